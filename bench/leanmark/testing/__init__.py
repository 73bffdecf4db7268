"""Machines that are not there, for tests: a clock that obeys, counters and GPUs whose truth is known.

They are read through the same meters, and through other tools, as the real ones.
"""
