"""The ports through which the owner of a partition reaches the world. Adapters implement them.

`streams.adapters.memory` ships fakes that pass the same contract tests as the real ones (tests/contract).
Every method may raise `streams.errors.Unavailable`; whoever calls waits with back-off and calls again.
An append, insertion or publication that raised may nevertheless have taken effect: all of them are harmless twice.
"""

from collections.abc import Sequence
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


class CheckpointStore(Protocol):
    """Segments and manifests of each partition's checkpoints. Keys are never reused."""

    async def put(self, partition: int, key: str, data: bytes) -> str:
        """Stores a segment durably and returns its place, which `get` needs."""
        ...

    async def get(self, partition: int, key: str, place: str) -> bytes:
        """The segment's bytes.

        Raises:
            CorruptCheckpoint: it is not there, or not whole.
        """
        ...

    async def put_manifest(self, partition: int, key: str, data: bytes) -> None:
        """Stores a manifest durably and atomically: it is there whole, or not at all."""
        ...

    async def manifests(self, partition: int) -> Sequence[tuple[str, bytes]]:
        """Every manifest (key, bytes) acknowledged before this call and not deleted, oldest first."""
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
