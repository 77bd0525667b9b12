"""Names of the topics, what each is keyed by, and the one partitioner that all producers share."""

from typing import Final

from aiokafka.partitioner import murmur2

from streams.events import Input

PREFIX: Final = "ads."
INPUT_TOPICS: Final[dict[Input, str]] = {i: PREFIX + i.value for i in Input}
CAMPAIGNS: Final = PREFIX + "campaigns"
JOURNAL: Final = PREFIX + "journal"
CHECKPOINTS: Final = PREFIX + "checkpoints"
DEAD_LETTERS: Final = PREFIX + "dead-letters"
SESSIONS: Final = PREFIX + "sessions"
"""Begins and ends of live sessions, keyed by campaign."""
ALLOWANCES: Final = PREFIX + "allowances"
"""What campaigns may draw on balances and shared budgets, keyed by campaign."""
ACCOUNTS: Final = PREFIX + "accounts"
"""Balances and shared budgets, keyed by their own ids."""
SPENDS: Final = PREFIX + "spends"
"""Absolute spends of campaigns that draw on a pool, keyed by the pool."""
PACING: Final = PREFIX + "pacing"
"""Controls for the ad server, keyed by campaign."""
ALERTS: Final = PREFIX + "alerts"
"""Changes in the lives of alerts, keyed by campaign."""
ALERT_COMMANDS: Final = PREFIX + "alert-commands"
"""Acknowledgements and snoozes, keyed by what they are about."""
EVIDENCE: Final = PREFIX + "evidence"
"""Clicks on their way to the partitions that own their sources."""
VERDICTS: Final = PREFIX + "verdicts"
"""Verdicts of sources, in their clicks' partitions; and reviews, keyed by campaign."""
FLAGS: Final = PREFIX + "flags"
"""Flags with their evidence, keyed by campaign."""
DELIVERIES: Final = PREFIX + "deliveries"
"""Receipts of messages that were delivered, keyed by message."""

NOTICE_TOPICS: Final = (CAMPAIGNS, SESSIONS, ALLOWANCES, EVIDENCE, VERDICTS)
"""Low-rate inputs, in the partition that they are about."""
READ_TOPICS: Final[tuple[str, ...]] = (*INPUT_TOPICS.values(), *NOTICE_TOPICS)
"""What a partition reads."""
CO_PARTITIONED: Final[tuple[str, ...]] = (*READ_TOPICS, JOURNAL)
"""Topics that must have equal partition counts."""


def partition_of(key: str, partitions: int) -> int:
    """The partition that Java's default partitioner (murmur2) gives to a record with this key."""
    return int(murmur2(key.encode()) & 0x7FFFFFFF) % partitions
