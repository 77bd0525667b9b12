"""Python's garbage collector, told what batches look like."""

import gc
from typing import Final

THRESHOLDS: Final = (100_000, 20, 50)
"""Batches, and imports, allocate many short-lived objects and few cycles: the default of 700 would look for garbage all
the time."""


def collect_rarely() -> None:
    """For a process that goes through events: what is there by now (modules) is never looked at again."""
    gc.set_threshold(*THRESHOLDS)
    gc.freeze()
