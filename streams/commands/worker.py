"""`campaign-streams worker`: the production process."""

import gc
from typing import Final

from streams.settings import load_settings

GC_THRESHOLDS: Final = (100_000, 20, 50)
"""Batches, and imports, allocate many short-lived objects and few cycles: the default of 700 would look for garbage all
the time."""


def worker() -> None:
    """Run one worker: Kafka in, ClickHouse and Prometheus out.

    Kafka and ClickHouse come from the settings (environment and TOML). SIGTERM ends it in order: last tick, last rows,
    last checkpoint. A killed worker loses nothing: the next one recovers from the journal.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    settings = load_settings()
    from streams.agents.app import run_worker  # Faust takes a second to import: other commands do without

    run_worker(settings)
