"""Recurrent cells: equations and kernels on plain arrays."""
