"""Records as the wire gives them, for the one consumer that reads every event.

aiokafka copies each record into a `ConsumerRecord` of eleven fields: as much work again as reading it. The records of
its reader have all that a `streams.ports.RawRecord` needs, so a consumer that asks for it gets those. This reaches
into aiokafka, whose version is pinned exactly; everything else of its fetching (checksums, aborted transactions,
positions) stays as it is, and other consumers notice nothing.
"""

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher


def bare(value: bytes | None) -> bytes | None:
    """A consumer with this `value_deserializer` gets bare records: offset, timestamp, key, value, headers."""
    return value


class BareRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """aiokafka's iterator over a fetched partition, which leaves the records of such a consumer as they are."""

    def __iter__(self) -> Iterator[Any]:
        return self._records_iterator  # type: ignore[no-any-return]

    def _consumer_record(self, tp: Any, record: Any) -> Any:
        return record if self._value_deserializer is bare else super()._consumer_record(tp, record)


def offer_bare_records() -> None:
    """From now on consumers can ask for bare records."""
    fetcher.PartitionRecords = BareRecords
