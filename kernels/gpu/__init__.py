"""Triton kernels behind the operations; imported only when a tensor on a GPU comes along."""
