"""Waiting of the threads of PyTorch's OpenMP library for each other."""

import os

SPIN_VARIABLE = "GOMP_SPINCOUNT"
SPIN_COUNT = "1000"  # turns of a loop of pauses: some 10 us


def spin_briefly():
    """Let waiting threads sleep after some 10 us; call it before PyTorch is loaded, which is when libgomp reads it.

    libgomp's own choice is to spin for milliseconds at every barrier. Beside another busy process that keeps the very
    thread from its core that all wait for (tools/bench/busy.py measures it). A value that is set already stays.
    """
    os.environ.setdefault(SPIN_VARIABLE, SPIN_COUNT)
