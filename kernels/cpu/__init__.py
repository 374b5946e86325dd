"""The operations' Numba kernels, for CPUs: compiled at the first use and kept on disk from then on.

They see maps as flat arrays of their bits, channels-last, because Numba has no bfloat16: fp32 is what the bits of a
bf16 number are the upper half of.
"""
