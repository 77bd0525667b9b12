"""Checkpoints in two compacted topics: segments in ads.checkpoints, manifests in ads.manifests, one partition each.

A record's value begins with which part of how many it is; what does not fit into one record is split. A segment's
place is the offsets of its parts, so reading one back is one short Fetch for each part. Manifests are read from the
beginning of their (small) topic up to a barrier that is appended first, so that nothing acknowledged is missed even
where a new leader's high watermark lies behind.
"""

import asyncio
import struct
from collections.abc import Sequence
from typing import NamedTuple

from streams.adapters.kafka_client import RAISED, Producer, mapped
from streams.adapters.kafka_fetch import OffsetOutOfRange, PartitionReader, Record
from streams.errors import CorruptCheckpoint
from streams.settings import KafkaSettings
from streams.topics import CHECKPOINTS, PREFIX

MANIFESTS = PREFIX + "manifests"
PART_BYTES = 900_000
"""Payload of one record: below the brokers' default limit of 1,048,588 bytes a batch."""
MAX_PARTS = 64
MAX_DATA_BYTES = PART_BYTES * MAX_PARTS
_PART = struct.Struct("<HH")  # this part's number, number of parts
_BARRIER_KEY = b"\0barrier"  # no key of a part: those end with a number
_ONE_BATCH = 1  # byte: a broker answers with one whole batch at least


def barrier_record() -> tuple[bytes, None]:
    """Key and value of a record that any reader of ads.manifests skips."""
    return _BARRIER_KEY, None


class _Manifest(NamedTuple):
    """One manifest while its parts come in: offset of the newest part, and the parts by number."""

    offset: int
    total: int
    parts: dict[int, bytes]

    @property
    def whole(self) -> bool:
        return len(self.parts) == self.total


class _Seen(NamedTuple):
    """What is known of a partition of ads.manifests: read up to here, manifests not deleted."""

    next_offset: int
    manifests: dict[str, _Manifest]


class KafkaCheckpointStore:
    """`streams.ports.CheckpointStore` over Kafka. Safe for concurrent use from one event loop.

    `get` takes about 1 ms on loopback; gather many to overlap them on a distant broker. Data is bounded by
    `MAX_DATA_BYTES` (57.6 MB).
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str = CHECKPOINTS,
        manifests_topic: str = MANIFESTS,
        *,
        is_reader: bool = False,
    ) -> None:
        """A reader appends nothing, not even a barrier: it may miss what was acknowledged a moment ago."""
        self._is_reader = is_reader
        self._topic = topic
        self._manifests_topic = manifests_topic
        self._producer = Producer(settings, linger_ms=2)  # segments are put concurrently: let them share a request
        self._segments = PartitionReader(settings, topic)
        self._manifests = PartitionReader(settings, manifests_topic)
        self._parts_of: dict[tuple[int, str], int] = {}  # segments put or read here
        self._manifest_parts_of: dict[tuple[int, str], int] = {}
        self._seen: dict[int, _Seen] = {}
        self._reading = asyncio.Lock()

    async def start(self) -> None:
        """Connects.

        Raises:
            ConfigurationError: a topic is missing.
            BrokerUnavailable: nobody answers.
        """
        try:
            await self._segments.start()
            await self._manifests.start()
            if not self._is_reader:
                await self._producer.get()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Closes the connections."""
        await self._producer.stop()
        await self._segments.stop()
        await self._manifests.stop()

    async def put(self, partition: int, key: str, data: bytes) -> str:
        """Stores a segment (acks=all); its place lists the offsets of its parts, as in `17` or `17,18`."""
        offsets = await self._append_parts(self._topic, partition, key, data)
        self._parts_of[partition, key] = len(offsets)
        return ",".join(map(str, offsets))

    async def get(self, partition: int, key: str, place: str) -> bytes:
        """The segment's bytes.

        Raises:
            CorruptCheckpoint: it is not there, or not whole.
        """
        try:
            offsets = [int(offset) for offset in place.split(",")]
        except ValueError:
            raise CorruptCheckpoint(f"segment {key}: {place!r} is no place; an older checkpoint is tried") from None
        parts = [await self._part(partition, key, number, offset) for number, offset in enumerate(offsets)]
        if any(total != len(offsets) for total, _ in parts):
            raise CorruptCheckpoint(f"segment {key}: its place names {len(offsets)} parts, but there are more")
        self._parts_of[partition, key] = len(offsets)
        return b"".join(payload for _, payload in parts)

    async def put_manifest(self, partition: int, key: str, data: bytes) -> None:
        """Stores a manifest (acks=all). One of several parts is not there until its last part is."""
        offsets = await self._append_parts(self._manifests_topic, partition, key, data)
        self._manifest_parts_of[partition, key] = len(offsets)

    async def manifests(self, partition: int) -> Sequence[tuple[str, bytes]]:
        """Every manifest (key, bytes) acknowledged before this call and not deleted, oldest first."""
        seen = await self._read_manifests(partition)
        whole = [(manifest.offset, key, manifest) for key, manifest in seen.manifests.items() if manifest.whole]
        return [
            (key, b"".join(manifest.parts[number] for number in range(manifest.total)))
            for _, key, manifest in sorted(whole, key=lambda item: item[0])
        ]

    async def delete(self, partition: int, keys: Sequence[str]) -> None:
        """Appends tombstones; unknown keys are ignored.

        Where this process has neither put nor read a segment, tombstones for `MAX_PARTS` parts are written.
        """
        if not keys:
            return
        if partition not in self._seen:
            await self._read_manifests(partition)
        in_manifests: list[bytes] = []
        in_segments: list[bytes] = []
        for key in keys:
            total = self._manifest_parts_of.pop((partition, key), None)
            if total is None:
                in_segments += _part_keys(key, self._parts_of.pop((partition, key), MAX_PARTS))
            else:
                in_manifests += _part_keys(key, total)
        await self._append(self._manifests_topic, partition, [(part, None) for part in in_manifests])
        await self._append(self._topic, partition, [(part, None) for part in in_segments])

    async def segments(self, partition: int) -> Sequence[str]:
        """Keys of all segments that are not deleted, oldest first: to find strays that a crash left unnamed.

        Reads the whole partition of ads.checkpoints: not for every day.
        """
        live: dict[str, None] = {}
        barrier = await self._append(self._topic, partition, [barrier_record()])
        offset = await self._segments.beginning(partition)
        while offset <= barrier[0]:
            fetched = await self._segments.fetch(partition, offset)
            for record in fetched.records:
                key, number = _parsed(record.key)
                if record.value is None:
                    live.pop(key, None)
                elif number is not None:
                    live[key] = None
            offset = fetched.next_offset
        return list(live)

    async def _part(self, partition: int, key: str, number: int, offset: int) -> tuple[int, bytes]:
        """One part of a segment: the number of parts, and the payload."""
        try:
            fetched = await self._segments.fetch(partition, offset, _ONE_BATCH)
        except OffsetOutOfRange as error:
            raise CorruptCheckpoint(f"segment {key}: {error}; an older checkpoint is tried") from error
        record = fetched.records[0] if fetched.records else None
        if record is None or record.offset != offset or record.value is None or _parsed(record.key) != (key, number):
            raise CorruptCheckpoint(f"segment {key} is not at offset {offset}; an older checkpoint is tried")
        return _PART.unpack_from(record.value)[1], record.value[_PART.size :]

    async def _append_parts(self, topic: str, partition: int, key: str, data: bytes) -> list[int]:
        payloads = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)] or [b""]
        if len(payloads) > MAX_PARTS:
            raise ValueError(f"{key} has {len(data)} bytes, over {MAX_DATA_BYTES}")
        keys = _part_keys(key, len(payloads))
        values = [_PART.pack(number, len(payloads)) + payload for number, payload in enumerate(payloads)]
        return await self._append(topic, partition, list(zip(keys, values, strict=True)))

    async def _append(self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> list[int]:
        """Appends records in order; returns their offsets when all are acknowledged."""
        producer = await self._producer.get()
        try:
            sent = [await producer.send(topic, value, key=key, partition=partition) for key, value in records]
            return [metadata.offset for metadata in await asyncio.gather(*sent)]
        except RAISED as error:
            self._producer.discard(producer)
            raise mapped(error, f"appending to {topic}-{partition}") from error

    async def _read_manifests(self, partition: int) -> _Seen:
        """Reads on from where the last call ended, up to a barrier appended now (a reader: up to the end)."""
        async with self._reading:
            seen = self._seen.get(partition) or _Seen(await self._manifests.beginning(partition), {})
            end = await self._manifests_end(partition, seen.next_offset)
            while seen.next_offset < end:
                try:
                    fetched = await self._manifests.fetch(partition, seen.next_offset)
                except OffsetOutOfRange:  # the topic was created anew, or compaction cleaned its beginning
                    seen = _Seen(await self._manifests.beginning(partition), {})
                    continue
                for record in fetched.records:
                    _apply(seen.manifests, record)
                seen = seen._replace(next_offset=fetched.next_offset)
            self._seen[partition] = seen
            for key, manifest in seen.manifests.items():
                self._manifest_parts_of[partition, key] = manifest.total
            return seen

    async def _manifests_end(self, partition: int, offset: int) -> int:
        if not self._is_reader:
            return 1 + (await self._append(self._manifests_topic, partition, [barrier_record()]))[0]
        try:
            return (await self._manifests.fetch(partition, offset, _ONE_BATCH)).high_watermark
        except OffsetOutOfRange:
            beginning = await self._manifests.beginning(partition)
            return (await self._manifests.fetch(partition, beginning, _ONE_BATCH)).high_watermark


def _apply(manifests: dict[str, _Manifest], record: Record) -> None:
    """Takes one record of ads.manifests into account."""
    key, number = _parsed(record.key)
    if number is None:
        return
    if record.value is None:
        manifests.pop(key, None)
        return
    total = _PART.unpack_from(record.value)[1]
    before = manifests.get(key)
    parts = {**(before.parts if before else {}), number: record.value[_PART.size :]}
    manifests[key] = _Manifest(record.offset, total, parts)


def _part_keys(key: str, total: int) -> list[bytes]:
    """Each part has a record key of its own, or compaction would keep only the last."""
    return [f"{key}\0{number}".encode() for number in range(total)]


def _parsed(key: bytes | None) -> tuple[str, int | None]:
    """Key and part number of a record's key; no number: not ours."""
    name, _, number = (key or b"").rpartition(b"\0")
    return (name.decode(), int(number)) if number.isdigit() else ("", None)
