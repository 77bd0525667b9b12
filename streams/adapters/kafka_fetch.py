"""Reads of single partitions at exact offsets, for the topics that are our own: journal, checkpoints, manifests.

aiokafka's consumer fetches ahead in the background and holds one long poll per broker, which delays whoever seeks or
appends and reads back (on Tansu by half of the poll: 38 ms of 100). Here every read is one Fetch request of its own
that the broker answers at once, with the high watermark of that moment: about 1 ms on loopback, on any broker.
"""

import asyncio
from typing import Any, NamedTuple

import aiokafka.errors as kafka_errors
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.memory_records import MemoryRecords

from streams.adapters.kafka_client import broker_errors, client_options, create_remedy, started, stopped
from streams.errors import BrokerUnavailable, ConfigurationError
from streams.settings import KafkaSettings

FETCH_BYTES = 1_048_576
MAX_WAIT_MS = 10
"""How long a broker waits for a record that is not there. With 0 Tansu never answers; with 1 or 2 it sometimes answers
with nothing although the record is there (0.5% of the reads)."""
_READ_UNCOMMITTED = 0  # nothing transactional is written to our own topics
_READ_COMMITTED = 1
_LEAST_OF_V4 = 3
"""Fields behind the high watermark in version 4 of Fetch: last stable offset, aborted transactions, records."""
_EARLIEST = -2
_ATTEMPTS = 20
_PAUSE_S = 0.1


class OffsetOutOfRange(Exception):
    """The broker does not hold this offset."""


class Record(NamedTuple):
    """One record of a partition: a `streams.ports.RawRecord`."""

    offset: int
    timestamp: int
    """Epoch ms."""
    key: bytes | None
    value: bytes | None


class Fetched(NamedTuple):
    """What one Fetch returned."""

    records: list[Record]
    """Those at or after the offset asked for, in order."""
    next_offset: int
    """Where to go on: behind the last batch, also where compaction left it empty."""
    high_watermark: int
    """The partition's end for consumers at the moment of the answer."""


class Packed(NamedTuple):
    """What one Fetch of committed records returned, not decoded yet."""

    data: bytes
    """Whole batches, and perhaps the begin of one more."""
    aborted: list[tuple[int, int]]
    """Producer id and first offset of the aborted transactions in it."""
    last_stable_offset: int
    """The end of what is committed, at the moment of the answer."""


class Timed(NamedTuple):
    """A broker's answer to: which record is the first of this time?"""

    offset: int
    timestamp: int
    """Epoch ms. On Kafka the record's own; Tansu says when it was appended."""


class _Connection(AIOKafkaClient):  # type: ignore[misc]
    """aiokafka's client with the lifecycle of its producer and consumer."""

    async def start(self) -> None:
        await self.bootstrap()

    async def stop(self) -> None:
        await self.close()


class PartitionReader:
    """Fetches from one topic. Safe for concurrent use from one event loop; keeps no position."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._client: Any = None

    async def start(self) -> None:
        """Connects.

        Raises:
            BrokerUnavailable: nobody answers.
            ConfigurationError: the topic is missing, or credentials are refused.
        """
        client: Any = await started(_Connection(**client_options(self._settings)), self._settings)
        try:
            await self._require_topic(client)
        except BaseException:
            await stopped(client)
            raise
        self._client = client

    async def stop(self) -> None:
        """Closes the connection."""
        client, self._client = self._client, None
        await stopped(client)

    @property
    def partitions(self) -> int:
        """How many partitions the topic has."""
        return len(self._connected().cluster.partitions_for_topic(self._topic) or ())

    async def fetch(self, partition: int, offset: int, max_bytes: int = FETCH_BYTES) -> Fetched:
        """Records from `offset` on: at least one whole batch if there is one, beyond that at most `max_bytes`.

        Raises:
            OffsetOutOfRange: the broker does not hold `offset` (Tansu answers with nothing instead).
            BrokerUnavailable: no answer, or no leader.
        """
        topics = [(self._topic, [(partition, offset, max_bytes)])]
        request = FetchRequest(MAX_WAIT_MS, 1, max_bytes, _READ_UNCOMMITTED, topics)
        _, error, high_watermark, *rest = await self._ask(partition, request)
        if error is kafka_errors.OffsetOutOfRangeError:
            raise OffsetOutOfRange(f"{self._topic}-{partition} does not hold offset {offset}")
        with broker_errors(f"reading {self._topic}-{partition}"):
            records, next_offset = _decode(rest[-1] or b"", offset)
        return Fetched(records, next_offset, high_watermark)

    async def fetch_committed(self, partition: int, offset: int, max_bytes: int, max_wait_ms: int) -> Packed:
        """As `fetch`, up to what is committed, as it lies on the wire.

        Raises:
            OffsetOutOfRange, BrokerUnavailable: as `fetch`.
        """
        topics = [(self._topic, [(partition, offset, max_bytes)])]
        request = FetchRequest(max_wait_ms, 1, max_bytes, _READ_COMMITTED, topics)
        _, error, high_watermark, *rest = await self._ask(partition, request)
        if error is kafka_errors.OffsetOutOfRangeError:
            raise OffsetOutOfRange(f"{self._topic}-{partition} does not hold offset {offset}")
        if len(rest) < _LEAST_OF_V4:
            raise ConfigurationError("the broker knows no transactions (Fetch before version 4); use a newer one")
        aborted = rest[1] if len(rest) == _LEAST_OF_V4 else rest[2]  # later versions put the log's start before it
        stable = high_watermark if rest[0] < 0 else rest[0]
        return Packed(rest[-1] or b"", list(aborted or ()), stable)

    async def offset_for_time(self, partition: int, time_ms: int) -> Timed | None:
        """What the broker takes for the first record of `time_ms` (epoch ms) or later; None: it knows none."""
        request = OffsetRequest(-1, _READ_UNCOMMITTED, [(self._topic, [(partition, time_ms)])])
        _, _, timestamp, offset, *_ = await self._ask(partition, request)
        return None if timestamp < 0 or offset < 0 else Timed(offset, timestamp)

    async def beginning(self, partition: int) -> int:
        """The first offset that the partition still holds."""
        request = OffsetRequest(-1, _READ_UNCOMMITTED, [(self._topic, [(partition, _EARLIEST)])])
        answer = await self._ask(partition, request)
        return int(answer[-1])

    def _connected(self) -> Any:
        if self._client is None:
            raise BrokerUnavailable(f"the reader of {self._topic} is not started; call start() first")
        return self._client

    async def _require_topic(self, client: Any) -> None:
        """Looks at all topics: to ask for one that is missing would create it where brokers create on demand."""
        with broker_errors(f"looking up {self._topic}"):
            cluster = await client.fetch_all_metadata()
        if self._topic not in cluster.topics():
            raise ConfigurationError(f"topic {self._topic} is missing; {create_remedy([self._topic])}")
        client.add_topic(self._topic)
        with broker_errors(f"looking up {self._topic}"):
            await client.force_metadata_update()

    async def _ask(self, partition: int, request: Any) -> tuple[Any, ...]:
        """The leader's answer; waits a little for a leader that moves, or that a new topic does not have yet."""
        for _ in range(_ATTEMPTS):
            try:
                return await self._ask_leader(partition, request)
            except _LeaderMoves:
                await self._connected().force_metadata_update()
                await asyncio.sleep(_PAUSE_S)
        raise BrokerUnavailable(f"{self._topic}-{partition} has no leader; wait, or check the brokers")

    async def _ask_leader(self, partition: int, request: Any) -> tuple[Any, ...]:
        """This partition's part of the leader's answer, its error code turned into a class."""
        client, name = self._connected(), f"{self._topic}-{partition}"
        leader = client.cluster.leader_for_partition(TopicPartition(self._topic, partition))
        if leader is None or leader == -1:
            raise _LeaderMoves
        with broker_errors(f"reading {name}"):
            answer = await client.send(leader, request)
            if not answer.topics:
                raise kafka_errors.KafkaError("the broker refused the request")
            number, code, *rest = answer.topics[0][1][0]
            error = kafka_errors.for_code(code)
            if error.invalid_metadata:
                raise _LeaderMoves
            if error not in (kafka_errors.NoError, kafka_errors.OffsetOutOfRangeError):
                raise error(name)
        return number, error, *rest


class _LeaderMoves(Exception):
    """Whoever led the partition does not, or not yet."""


def _decode(data: bytes, offset: int) -> tuple[list[Record], int]:
    """Records at or after `offset`, and the offset behind the last whole batch."""
    batches = MemoryRecords(data)
    records: list[Record] = []
    next_offset = offset
    while batches.has_next():
        batch = batches.next_batch()
        if not batch.validate_crc():
            raise kafka_errors.CorruptRecordException("a batch fails its checksum")
        if not batch.is_control_batch:
            records += [Record(r.offset, r.timestamp, r.key, r.value) for r in batch if r.offset >= offset]
        next_offset = max(next_offset, batch.next_offset)
    return records, next_offset
