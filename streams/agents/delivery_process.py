"""The second Faust app as a process: until SIGTERM or SIGINT, with operating errors told in one line."""

import asyncio

from streams.adapters.kafka_admin import partitions_for_worker
from streams.agents.app import Worker
from streams.agents.delivery_app import create_notifier, is_needed
from streams.errors import CampaignStreamsError, ConfigurationError
from streams.settings import Settings


def run_notifier(settings: Settings) -> None:
    """Runs it. Ends the process.

    Raises:
        CampaignStreamsError: what kept it from starting, or ended it.
    """
    if not is_needed(settings):
        raise ConfigurationError(
            "nobody is to be told: there is no route; write one as [delivery.routes.NAME], with url and secret"
            if settings.delivery.enabled
            else "delivery.enabled is false; set it to true"
        )
    asyncio.run(partitions_for_worker(settings.kafka))
    worker = Worker(create_notifier(settings), loglevel=settings.worker.log_level)
    try:
        worker.execute_from_commandline()
    except SystemExit:
        reason = worker.failure or worker.crash_reason
        if isinstance(reason, CampaignStreamsError):
            raise reason from None
        raise
