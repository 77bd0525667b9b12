"""The ports through which the owner of a partition reaches the world. Adapters implement them.

`streams.adapters.memory` ships fakes that pass the same contract tests as the real ones (tests/contract).
Every method may raise `streams.errors.Unavailable`; whoever calls waits with back-off and calls again.
An append, insertion or publication that raised may nevertheless have taken effect: all of them are harmless twice.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

from streams.records import Row, Table


class RawRecord(Protocol):
    """A record as it was read. aiokafka's `ConsumerRecord` is one, and so is what it is made of."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """The record's own timestamp, epoch ms."""
        ...

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


class Batch(NamedTuple):
    """A fetched range of one input: [from_offset, to_offset), and the records in it.

    Offsets of the range without a record hold none (markers, compaction), or were lost to retention.
    """

    topic: str
    partition: int
    from_offset: int
    to_offset: int
    records: list[RawRecord]
    is_lost: bool = False


class Span(NamedTuple):
    """The offsets of a topic-partition that can be read: [first, next)."""

    first: int
    next: int
    """Behind the last: what is not committed yet lies beyond it."""


class History(Protocol):
    """What topics held, by offset: for replays and archives. Reading it touches no group and commits nothing.

    Only committed records are told. Everything is safe for concurrent use from one event loop.
    """

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has.

        Raises:
            ConfigurationError: there is no such topic.
        """
        ...

    async def span(self, topic: str, partition: int) -> Span:
        """What can be read now. A topic that grows has a later end soon."""
        ...

    def read(self, topic: str, partition: int, from_offset: int, to_offset: int) -> AsyncGenerator[Batch]:
        """The records of [from_offset, to_offset), in order, in ranges that adjoin and together are exactly that.

        The next ranges are fetched (a bounded number of bytes) while the caller computes. A range with `is_lost` was
        there and is no more: retention has removed it. Close the generator (`contextlib.aclosing`) when leaving early.

        Raises:
            ConfigurationError: the offsets are in no order, reach beyond the end, or lie in a gap between archives.
            Unavailable: no answer for long; go on from the last range's end.
        """
        ...

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """The first offset whose record has a timestamp (epoch ms) of `time_ms` or later; the end where none has.

        Timestamps need not rise with the offsets: every record before the offset is older than `time_ms`, while those
        behind it may be older or later. What retention has removed is not looked at.
        """
        ...


class JournalRecord(NamedTuple):
    """One entry of a partition's journal and where it stands."""

    offset: int
    value: bytes


class Journal(Protocol):
    """A totally ordered, durable log per partition (the topic ads.journal)."""

    async def beginning(self, partition: int) -> int:
        """The first offset that can still be read."""
        ...

    async def append(self, partition: int, value: bytes) -> None:
        """Appends; returns when every replica in sync has it (acks=all)."""
        ...

    async def read(self, partition: int, from_offset: int) -> Sequence[JournalRecord]:
        """Some records at or after `from_offset`, in order; waits a little for the first, may return none.

        Raises:
            JournalMismatch: `from_offset` lies before the beginning or beyond the end.
        """
        ...


class CheckpointReader(Protocol):
    """Segments and manifests of each partition's checkpoints, for whoever only reads them: they may go at any time."""

    async def get(self, partition: int, key: str, place: str) -> bytes:
        """The segment's bytes.

        Raises:
            CorruptCheckpoint: it is not there, or not whole.
        """
        ...

    async def manifests(self, partition: int) -> Sequence[tuple[str, bytes]]:
        """Every manifest (key, bytes) acknowledged before this call and not deleted, oldest first."""
        ...


class CheckpointStore(CheckpointReader, Protocol):
    """The same, for their owner. Keys are never reused."""

    async def put(self, partition: int, key: str, data: bytes) -> str:
        """Stores a segment durably and returns its place, which `get` needs."""
        ...

    async def put_manifest(self, partition: int, key: str, data: bytes) -> None:
        """Stores a manifest durably and atomically: it is there whole, or not at all."""
        ...

    async def delete(self, partition: int, keys: Sequence[str]) -> None:
        """Forgets segments or manifests; unknown keys are ignored."""
        ...


class RowSink(Protocol):
    """ClickHouse: tables in which the row with the highest version wins."""

    async def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Inserts rows (in the order of `COLUMNS[table]`); returns when a reader can see them.

        Raises:
            SinkUnavailable: it did not answer in time; the rows may or may not be in.
        """
        ...


class Outgoing(NamedTuple):
    """A record to be produced."""

    topic: str
    partition: int | None
    """None: by the key, with the shared partitioner."""
    key: bytes | None
    value: bytes | None
    timestamp_ms: int | None = None


class Outbox(Protocol):
    """Produces records."""

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Returns when every message is acknowledged (acks=all), in order per partition."""
        ...


class Clock(Protocol):
    """The wall clock: it schedules, and never decides a number."""

    def now_ms(self) -> int:
        """Epoch ms, UTC."""
        ...
