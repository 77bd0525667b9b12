"""The second Faust app as a process: until SIGTERM or SIGINT, with operating errors told in one line."""

import asyncio

from streams.adapters.kafka_admin import partitions_for_worker
from streams.agents.app import Worker
from streams.agents.delivery_app import create_notifier
from streams.errors import CampaignStreamsError
from streams.settings import Settings


def run_notifier(settings: Settings) -> None:
    """Runs it. Ends the process.

    Raises:
        CampaignStreamsError: what kept it from starting, or ended it.
    """
    asyncio.run(partitions_for_worker(settings.kafka))
    worker = Worker(create_notifier(settings), loglevel=settings.worker.log_level)
    try:
        worker.execute_from_commandline()
    except SystemExit:
        reason = worker.failure or worker.crash_reason
        if isinstance(reason, CampaignStreamsError):
            raise reason from None
        raise
