"""The operations' Numba kernels, for CPUs: compiled at the first use and kept on disk from then on.

Where maps may be bf16, kernels see them as flat arrays of their bits, channels-last, because Numba has no such type:
bf16 is the upper half of fp32's bits.
"""
