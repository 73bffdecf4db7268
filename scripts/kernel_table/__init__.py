"""The parts of ``kernel_bench.py``."""
