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

CO_PARTITIONED: Final[tuple[str, ...]] = (*INPUT_TOPICS.values(), CAMPAIGNS, JOURNAL)
"""Topics that must have equal partition counts."""


def partition_of(key: str, partitions: int) -> int:
    """The partition that Java's default partitioner (murmur2) gives to a record with this key."""
    return int(murmur2(key.encode()) & 0x7FFFFFFF) % partitions
