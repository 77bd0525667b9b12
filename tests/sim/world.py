"""The simulated world: broker logs, journal, checkpoint store, outbox and sink, with faults at every await."""

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from random import Random
from typing import Any, Final

import xxhash

from streams.errors import BrokerUnavailable, CorruptCheckpoint, JournalMismatch, SinkUnavailable, Unavailable
from streams.ports import JournalRecord, Outgoing
from streams.records import COLUMNS, KEY_COLUMNS, Row, Table
from streams.state.inputs import Batch
from streams.state.pins import NO_PINS, Pins
from streams.topics import DEAD_LETTERS, PACING
from tests.sim.scheduler import pauses
from tests.support.events import WORD_TOPICS, Draft, RawRecord
from tests.support.oracle import Lost, Place


class Broken(AssertionError):
    """The simulated system has done what it must never do."""


class Unsettled(Broken):
    """It has not come to rest in the steps that it was given."""


@dataclass
class Faults:
    """How likely a call fails before or after its effect, and how long it takes at most."""

    before: float = 0.03
    after: float = 0.03
    delay: int = 3


class Nature:
    """Chance, and the memory of what happened last."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.faults = Faults()
        self.down: set[str] = set()
        """Services that do not answer: journal, store, outbox, or one of the sink's tables."""
        self.trace: deque[str] = deque(maxlen=400)
        self.step = 0

    def note(self, what: str) -> None:
        """For the trace of a failing seed."""
        self.trace.append(f"{self.step:6d} {what}")

    async def before(self, what: str, error: type[Unavailable]) -> None:
        """Passes time before an effect; it may never come."""
        await pauses(1 + self.rng.randrange(self.faults.delay + 1))
        if not self.down.isdisjoint((what, what.partition(".")[0])):
            raise error(f"{what}: down")
        if self.rng.random() < self.faults.before:
            self.note(f"{what}: unavailable, without effect")
            raise error(f"{what}: injected before the effect")

    async def after(self, what: str, error: type[Unavailable]) -> None:
        """Passes time after an effect; its answer may be lost."""
        await pauses(self.rng.randrange(self.faults.delay + 1))
        if self.rng.random() < self.faults.after:
            self.note(f"{what}: unavailable, AFTER its effect")
            raise error(f"{what}: injected after the effect")


class Log:
    """One topic-partition: records, holes between them, a beginning that retention moves."""

    def __init__(self, topic: str, partition: int, start: int) -> None:
        self.topic = topic
        self.partition = partition
        self.start = self.beginning = self.end = start
        self.records: list[RawRecord] = []

    def append(self, draft: Draft, holes_before: int = 0) -> RawRecord:
        """At the end, or behind some offsets without a record."""
        offset = self.end + holes_before
        record = RawRecord(self.topic, self.partition, offset, *draft)
        self.records.append(record)
        self.end = offset + 1
        return record

    def fetch(self, from_offset: int, to_offset: int) -> Batch:
        """A range as the broker has it now; what retention took is a range of its own."""
        if from_offset < self.beginning:
            return Batch(self.topic, self.partition, from_offset, self.beginning, [], is_lost=True)
        return self.slice(from_offset, to_offset)

    def slice(self, from_offset: int, to_offset: int) -> Batch:
        """A range as it once was."""
        records: list[Any] = [r for r in self.records if from_offset <= r.offset < to_offset]
        return Batch(self.topic, self.partition, from_offset, to_offset, records)


class SimJournal:
    """`streams.ports.Journal`. Keeps everything for the final replay, whatever is trimmed."""

    def __init__(self, nature: Nature, partitions: int) -> None:
        self.nature = nature
        self.entries: dict[int, list[JournalRecord]] = {p: [] for p in range(partitions)}
        self.begins: dict[int, int] = dict.fromkeys(range(partitions), 0)

    def end(self, partition: int) -> int:
        """The next offset."""
        entries = self.entries[partition]
        return entries[-1].offset + 1 if entries else 0

    def is_superseded(self, partition: int, claim_id: str) -> bool:
        """Whether a claim of another stands behind this one."""
        claims = [json.loads(entry.value)["claim_id"] for entry in self.entries[partition] if b'"claim"' in entry.value]
        return claim_id in claims and claims[-1] != claim_id

    async def beginning(self, partition: int) -> int:
        await self.nature.before("journal.beginning", BrokerUnavailable)
        return self.begins[partition]

    async def append(self, partition: int, value: bytes) -> None:
        await self.nature.before("journal.append", BrokerUnavailable)
        holes = int(self.nature.rng.random() < 0.05)
        offset = self.end(partition) + (holes if self.entries[partition] else 0)
        self.entries[partition].append(JournalRecord(offset, value))
        self.nature.note(f"journal {partition}@{offset}: {value.decode()[:150]}")
        await self.nature.after("journal.append", BrokerUnavailable)

    async def read(self, partition: int, from_offset: int) -> Sequence[JournalRecord]:
        await self.nature.before("journal.read", BrokerUnavailable)
        if not self.begins[partition] <= from_offset <= self.end(partition):
            raise JournalMismatch(f"offset {from_offset} is not in the journal")
        found = [entry for entry in self.entries[partition] if entry.offset >= from_offset]
        return found[: self.nature.rng.randint(1, 8)]


class SimStore:
    """`streams.ports.CheckpointStore`."""

    def __init__(self, nature: Nature, pins: Pins = NO_PINS, journal: SimJournal | None = None) -> None:
        self.nature = nature
        self.pins = pins
        self.journal = journal
        self.stale: set[tuple[int, str]] = set()
        """Manifests that came when their claim had been superseded: the owner since need not know them."""
        self.segments: dict[tuple[int, str], bytes] = {}
        self.named: dict[tuple[int, str], bytes] = {}
        self.corrupted: set[tuple[int, str]] = set()

    async def put(self, partition: int, key: str, data: bytes) -> str:
        await self.nature.before(f"store.put {key}", BrokerUnavailable)
        known = self.segments.setdefault((partition, key), data)
        if known != data and (partition, key) not in self.corrupted:
            raise Broken(f"segment {key} of partition {partition} is written twice with other content")
        await self.nature.after(f"store.put {key}", BrokerUnavailable)
        return f"place of {key}"

    async def get(self, partition: int, key: str, place: str) -> bytes:
        await self.nature.before(f"store.get {key}", BrokerUnavailable)
        if place != f"place of {key}":
            raise Broken(f"segment {key} is looked for at {place}")
        if (partition, key) not in self.segments:
            raise CorruptCheckpoint(f"segment {key} is not there")
        return self.segments[partition, key]

    async def put_manifest(self, partition: int, key: str, data: bytes) -> None:
        await self.nature.before(f"store.put_manifest {key}", BrokerUnavailable)
        known = self.named.setdefault((partition, key), data)
        if known != data and (partition, key) not in self.corrupted:
            raise Broken(f"manifest {key} of partition {partition} is written twice with other content")
        if self.journal is not None and self.journal.is_superseded(partition, key.partition("/")[0]):
            self.stale.add((partition, key))
        self.nature.note(f"manifest {partition}: {key}")
        await self.nature.after(f"store.put_manifest {key}", BrokerUnavailable)

    async def manifests(self, partition: int) -> Sequence[tuple[str, bytes]]:
        await self.nature.before("store.manifests", BrokerUnavailable)
        return [(key, data) for (p, key), data in self.named.items() if p == partition]

    async def delete(self, partition: int, keys: Sequence[str]) -> None:
        await self.nature.before("store.delete", BrokerUnavailable)
        is_sound = all(of != partition for of, _ in self.corrupted)  # who writes does not see what rots at rest
        newest = [document["key"] for document in self.documents(partition)[-2:]]
        pinned = self.pinned(partition)
        for key in keys:
            self.segments.pop((partition, key), None)
            self.named.pop((partition, key), None)
        left = {document["key"] for document in self.documents(partition)}
        if is_sound and not left.issuperset(newest):
            raise Broken(f"of the two newest checkpoints, {newest}, one cannot be loaded any more")
        days = {(self._day(d), d["journal_offset"]) for d in self.documents(partition)}
        for document in pinned if is_sound else ():
            at = (self._day(document), document["journal_offset"])
            if (partition, document["key"]) not in self.stale and not any(d == at[0] and o >= at[1] for d, o in days):
                raise Broken(f"the pinned checkpoint {document['key']} cannot be loaded any more")
        self.nature.note(f"deleted {partition}: {list(keys)}")
        await self.nature.after("store.delete", BrokerUnavailable)

    # Seen from outside

    def _day(self, document: dict[str, Any]) -> int:
        return int(document["wall_ms"] // self.pins.every_ms)

    def pinned(self, partition: int) -> list[dict[str, Any]]:
        """The last checkpoint of each of the last days, but the newest of all; oldest first."""
        whole = self.documents(partition)
        last = [
            document
            for at, document in enumerate(whole)
            if all(self._day(later) != self._day(document) for later in whole[at + 1 :])
        ]
        return last[:-1][-self.pins.keep :] if self.pins.keep else []

    def documents(self, partition: int) -> list[dict[str, Any]]:
        """Whole manifests whose segments are all there and whole, oldest first."""
        found = []
        for (of, key), data in self.named.items():
            if of != partition or (of, key) in self.corrupted:
                continue
            document = json.loads(data.partition(b"\n")[2])
            keys = [(of, ref["key"]) for ref in document["segments"].values()]
            if all(k in self.segments and k not in self.corrupted for k in keys):
                found.append(document | {"key": key})
        return sorted(found, key=lambda d: d["journal_offset"])

    def corrupt(self, partition: int, key: str, rng: Random) -> None:
        """Flips one bit of a segment or a manifest."""
        held = self.named if (partition, key) in self.named else self.segments
        data = bytearray(held[partition, key])
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            held[partition, key] = bytes(data)
            self.corrupted.add((partition, key))
            self.nature.note(f"CORRUPTED {partition}: {key}")


class SimSink:
    """`streams.ports.RowSink`: in each table the highest version of a key wins. One version has one content."""

    def __init__(self, nature: Nature) -> None:
        self.nature = nature
        self.final: dict[Table, dict[Row, Row]] = {table: {} for table in Table}
        self.seen: dict[tuple[Table, Row, int], Row] = {}

    async def insert(self, table: Table, rows: Sequence[Row]) -> None:
        await self.nature.before(f"sink.insert {table}", SinkUnavailable)
        for row in rows:
            self._take(table, plain(table, row))
        await self.nature.after(f"sink.insert {table}", SinkUnavailable)

    def _take(self, table: Table, row: Row) -> None:
        if len(row) != len(COLUMNS[table]) or not row[-1]:
            raise Broken(f"{table}: a row of {len(row)} values, version {row[-1]}")
        key = sink_key(table, row)
        known = self.seen.setdefault((table, key, row[-1]), row)
        if known != row:
            raise Broken(f"{table}: version {row[-1]} of {key} has two contents:\n  {known}\n  {row}")
        held = self.final[table]
        if key not in held or held[key][-1] < row[-1]:
            held[key] = row


_KEY_OF: Final = {
    table: itemgetter(*(COLUMNS[table].index(name) for name in KEY_COLUMNS[table])) for table in KEY_COLUMNS
}
_USERS: Final = COLUMNS[Table.REPORTS].index("users")


def sink_key(table: Table, row: Row) -> Row:
    """The values of the table's key columns, found by name."""
    key: Row = _KEY_OF[table](row)
    return key


def plain(table: Table, row: Row) -> Row:
    """A row without lists, so that rows can be compared however they have travelled."""
    if table is Table.REPORTS:
        return (*row[:_USERS], tuple(row[_USERS]), *row[_USERS + 1 :])
    return tuple(row)


class SimOutbox:
    """`streams.ports.Outbox`: dead letters by the place of the record, and what ticks told. One has one content."""

    def __init__(self, nature: Nature, logs: dict[tuple[str, int], Log]) -> None:
        self.nature = nature
        self.logs = logs
        self.letters: dict[Place, dict[str, Any]] = {}
        self.signals: dict[Told, bytes] = {}
        self.rates: dict[str, tuple[int, float]] = {}
        """What an ad server obeys: each campaign's control of the highest sequence, and that."""

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        await self.nature.before("outbox.publish", BrokerUnavailable)
        for message in messages:
            if message.topic == DEAD_LETTERS:
                self._take_letter(json.loads(message.value or b""))
                continue
            value = message.value or b""
            if message.topic in WORD_TOPICS:
                assert message.partition is not None
                self.logs[message.topic, message.partition].append(Draft(0, message.key, value))
            if message.topic == PACING:
                self._take_control(json.loads(value))
            known = self.signals.setdefault(told(message), value)
            if known != value:
                raise Broken(f"{told(message)} has two contents:\n  {known!r}\n  {value!r}")
        await self.nature.after("outbox.publish", BrokerUnavailable)

    def _take_control(self, control: dict[str, Any]) -> None:
        known = self.rates.get(control["campaign_id"], (-1, 0.0))
        self.rates[control["campaign_id"]] = max(known, (control["sequence"], control["rate"]))

    def _take_letter(self, letter: dict[str, Any]) -> None:
        place = (letter["topic"], letter["partition"], letter["offset"])
        if self.letters.setdefault(place, letter) != letter:
            raise Broken(f"the dead letter of {place} has two contents: {self.letters[place]}, {letter}")


Told = tuple[str, bytes, str, int]
"""Topic, key, what else it is about, and the sequence of what a tick told."""


def told(message: Outgoing) -> Told:
    """What a message is about, and of which tick."""
    if message.topic in WORD_TOPICS:
        return message.topic, str(message.partition).encode(), xxhash.xxh3_128_hexdigest(message.value or b""), 0
    document = json.loads(message.value or b"")
    about = " ".join(str(document.get(name, "")) for name in ("alert_id", "flag_id", "state", "campaign_id"))
    return message.topic, message.key or b"", about, document["sequence"]


@dataclass
class World:
    """Everything outside the workers."""

    nature: Nature
    partitions: int
    log_epoch: int
    logs: dict[tuple[str, int], Log]
    journal: SimJournal
    store: SimStore
    outbox: SimOutbox
    sink: SimSink
    now_ms: int = 1_800_000_000_000
    lost: list[Lost] = field(default_factory=list)
    poison: set[Place] = field(default_factory=set)
    excused: set[Place] = field(default_factory=set)
    """Records on which an exception that would not come again was raised: they may become poison."""

    def ends(self, partition: int) -> dict[str, int]:
        """The next offset of every input."""
        return {topic: log.end for (topic, p), log in self.logs.items() if p == partition}

    def beginnings(self, partition: int) -> dict[str, int]:
        """The first offset of every input that can be read."""
        return {topic: log.beginning for (topic, p), log in self.logs.items() if p == partition}
