"""`campaign-streams worker`: the production process."""

from streams.adapters.collector import collect_rarely
from streams.settings import load_settings


def worker() -> None:
    """Run one worker: Kafka in, ClickHouse and Prometheus out.

    Kafka and ClickHouse come from the settings (environment and TOML). SIGTERM ends it in order: last tick, last rows,
    last checkpoint. A killed worker loses nothing: the next one recovers from the journal.
    """
    collect_rarely()
    settings = load_settings()
    from streams.agents.app import run_worker  # Faust takes a second to import: other commands do without

    run_worker(settings)
