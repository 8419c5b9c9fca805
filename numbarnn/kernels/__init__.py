"""Kernels that are not recurrent cells: optimizer updates, embedding, cross-entropy, normalization."""
