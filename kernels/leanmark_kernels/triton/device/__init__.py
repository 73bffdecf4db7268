"""The GPU code itself, in Triton's language. Importing any module of this folder imports triton.

Capitals are compile-time constants. All tensors are dense and row-major, so their strides are their sizes;
counts of elements fit 32 bits, offsets are computed in 64.
"""
