"""Recurrent networks in plain Python, compiled by Numba."""
