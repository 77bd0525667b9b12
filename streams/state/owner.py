"""The owner of one partition: claims it, recovers, applies, ticks, and writes checkpoints.

It reaches the world through ports only and holds no lock, task or clock, so that a worker, a replay and the seeded
simulation run the same code. Three coroutines may interleave at its awaits: `advance` (ticks), `checkpoint`, and
whoever calls `offer` (which never awaits).

A tick is **proposed** at once (its outputs are computed from the state as it stands), appended, and read back; only
then is anything of it **released**. What a voided tick had computed goes nowhere: its owner stops (`Fenced`).
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from streams.blocks import Blocks, RowBlock, stamped
from streams.errors import Fenced
from streams.ports import CheckpointStore, Journal, Outbox, Outgoing
from streams.rules import Rules
from streams.state.checkpoint import Capture, capture, encode_rows, unsaved
from streams.state.checkpoints import Checkpointer
from streams.state.dirty import DirtyRows
from streams.state.inputs import Batch
from streams.state.journal import Claim, Tick, decode, encode, version_of
from streams.state.outgoing import outgoing
from streams.state.partition import TOPICS, Output, PartitionState
from streams.state.pins import Pins
from streams.state.recovery import PlacedTick, recover
from streams.topics import CAMPAIGNS, NOTICE_TOPICS


class OwnerConfig(NamedTuple):
    """What an owner is told. Times are wall time, ms."""

    partitions: int
    log_epoch: int
    worker: str
    rules: Rules
    checkpoint_ms: int = 5_000
    idle_tick_ms: int = 10_000
    """Without anything new, a tick is written this often."""
    pins: Pins = Pins()
    """Checkpoints that stay beside the last two, for replays."""


class Ports(NamedTuple):
    """The world, as an owner sees it."""

    journal: Journal
    store: CheckpointStore
    outbox: Outbox


class _Proposal(NamedTuple):
    tick: Tick
    output: Output
    capture: Capture | None


class Owner:
    """One partition's owner. Call `open` first; after `Fenced` drop it."""

    def __init__(self, partition: int, config: OwnerConfig, ports: Ports, new_claim_id: Callable[[], str]) -> None:
        self.partition = partition
        self.config = config
        self.ports = ports
        self.claim_id = new_claim_id()
        self.dirty = DirtyRows()
        self.state = self._empty()
        self.confirmed_offset = -1
        self._own_offset = -1
        self.confirmed_wall_ms = 0
        self.corrupt: list[str] = []
        self.must_seek = False
        """After a reload: the caller seeks every topic to `expected` and clears this."""
        self._checkpointer = Checkpointer(partition, self.claim_id, ports.store, config.pins)
        self._pending: deque[PlacedTick] = deque()
        self._inbox: dict[str, deque[Batch]] = {topic: deque() for topic in TOPICS}
        self._expected: dict[str, int] = {}
        self._proposal: _Proposal | None = None
        self._unsent: dict[Any, Outgoing] = {}
        """What goes out, in order. Of controls and spend reports only a campaign's latest waits."""
        self._is_open = False
        self._is_broken = False
        self._settings_end = 0
        self._suspects: dict[str, tuple[int, int]] = {}
        """By topic: the range in which the code has failed."""
        self._poisoned: dict[str, set[int]] = {}
        self._last_applied: dict[str, int] = {}
        self._captured_ms = 0
        self._wants_checkpoint = False
        self._captured: tuple[Capture, int] | None = None

    def _empty(self) -> PartitionState:
        config = self.config
        return PartitionState(self.partition, config.partitions, config.log_epoch, config.rules)

    # Opening and recovering

    async def open(self, starts: dict[str, int], settings_end: int, wall_ms: int) -> None:
        """Claims the partition and loads the last checkpoint; the journal's ticks behind it wait for their input.

        `starts`: the first readable offset by topic, for a partition without history. `settings_end`: the end of the
        settings topic, which is read up to there before the first new event. May be called again after `Unavailable`.
        """
        self._settings_end = settings_end
        claim = Claim(self.claim_id, self.config.worker, wall_ms, starts)
        await self.ports.journal.append(self.partition, encode(claim))
        await self._recover(self.claim_id)

    async def _recover(self, read_until: int | str) -> None:
        found = await recover(self._empty(), self.ports.journal, self.ports.store, read_until)
        self.state, self._fold, self._cursor = found.state, found.fold, found.cursor
        self.corrupt = found.corrupt
        self._pending = deque(found.ticks)
        self._checkpointer.loaded(found.manifests, found.used)
        self.dirty.clear()
        for table, row in found.rows:
            self.dirty.put(table, Blocks([row]) if isinstance(row, RowBlock) else [row])
        self._unsent = {}
        for topic, offsets in self._poisoned.items():
            self.state.poisoned.setdefault(topic, set()).update(offsets)
        for inbox in self._inbox.values():
            inbox.clear()
        self._expected = self.state.positions()
        self._last_applied = {}
        self._drain()

    @property
    def is_recovering(self) -> bool:
        """Whether ticks of the journal still wait for their input."""
        return bool(self._pending) or self._is_broken

    @property
    def confirmed_version(self) -> int:
        """The version of the rows that the last confirmed tick released."""
        return version_of(self.config.log_epoch, self.confirmed_offset)

    @property
    def is_settled(self) -> bool:
        """Whether everything applied stands behind a confirmed tick, and what it tells has been sent."""
        is_told = self._proposal is None and not self._unsent
        return is_told and self._is_open and self.state.positions() == self._last_applied

    @property
    def expected(self) -> dict[str, int]:
        """The offset that each topic must go on from."""
        return self._expected

    # Input

    def wants(self, topic: str) -> bool:
        """Whether more of this topic can be applied now; otherwise the caller pauses it."""
        return not self._inbox[topic] and not self._is_broken

    def offer(self, batch: Batch) -> int | None:
        """Takes a fetched range. Returns None, or the offset to seek to where the range leaves a gap before it."""
        if self._is_broken:
            return None
        expected = self._expected[batch.topic]
        if batch.to_offset <= expected:
            return None
        if batch.from_offset > expected:
            return expected
        self._expected[batch.topic] = batch.to_offset
        self._inbox[batch.topic].append(_from(batch, expected))
        self._drain()
        return None

    def _drain(self) -> None:
        while self._pending and not self._is_broken:
            placed = self._pending[0]
            for topic, target in placed.tick.applied.items():
                self._apply_up_to(topic, target)
            if self._is_broken or self.state.positions() != placed.tick.applied:
                return
            self._pending.popleft()
            self._release(self.state.tick(placed.tick), placed.offset, placed.tick)
        if not self._pending:
            for topic in TOPICS if self._is_open else NOTICE_TOPICS:
                self._apply_up_to(topic, None)

    def _apply_up_to(self, topic: str, target: int | None) -> None:
        inbox = self._inbox[topic]
        while inbox and not self._is_broken:
            batch = inbox[0]
            if target is not None and batch.from_offset >= target:
                return
            inbox.popleft()
            if target is not None and batch.to_offset > target:
                inbox.appendleft(_from(batch, target))
                batch = _up_to(batch, target)
            self._apply(batch)

    def _apply(self, batch: Batch) -> None:
        """An exception here means that this code is wrong about some input: the state is given up, never the input."""
        for part in self._parts(batch):
            try:
                self.state.apply(part)
            except AssertionError:
                raise
            except Exception:
                self._break(part)
                return

    def _is_suspect(self, batch: Batch) -> bool:
        held = self._suspects.get(batch.topic)
        return held is not None and batch.from_offset < held[1] and batch.to_offset > held[0]

    def _parts(self, batch: Batch) -> Sequence[Batch]:
        if not batch.records or not self._is_suspect(batch):
            return [batch]
        return _one_by_one(batch)

    def _break(self, part: Batch) -> None:
        """Run again from the last checkpoint, one by one; what fails alone, and again, is condemned."""
        self._is_broken = True
        if len(part.records) == 1 and self._is_suspect(part):
            self._poisoned.setdefault(part.topic, set()).add(part.records[0].offset)
        else:
            self._suspects[part.topic] = (part.from_offset, part.to_offset)

    # Ticks

    async def advance(self, wall_ms: int, silent: Sequence[str] = (), is_catching_up: bool = False) -> bool:
        """Writes the next tick and releases its outputs; finishes one that an outage interrupted first.

        Returns whether a tick was confirmed.

        Raises:
            Fenced: a later claim stands in the journal.
            Unavailable: call again later; nothing is lost.
        """
        if self._proposal is None:
            if self._is_broken:
                await self._reload()
            await self._send()
            if not self._is_due(wall_ms, is_catching_up):
                return False
            self._propose(wall_ms, silent, is_catching_up)
        await self._settle()
        await self._send()
        return True

    def _is_due(self, wall_ms: int, is_catching_up: bool) -> bool:
        if self._pending or self._expected[CAMPAIGNS] < self._settings_end:
            return False
        changed = not self._is_open or self.state.positions() != self._last_applied
        return (
            changed
            or self._wants_checkpoint
            or self.state.has_something_due(wall_ms, is_catching_up)
            or wall_ms - self.confirmed_wall_ms >= self.config.idle_tick_ms
        )

    def _propose(self, wall_ms: int, silent: Sequence[str], is_catching_up: bool) -> None:
        for topic in NOTICE_TOPICS:
            self._apply_up_to(topic, None)
        rules = self.config.rules if self.config.rules != self.state.rules or self.state.seq == 0 else None
        tick = Tick(
            claim_id=self.claim_id,
            seq=self.state.seq + 1,
            wall_ms=max(wall_ms, self.confirmed_wall_ms),
            applied=self.state.positions(),
            is_catching_up=is_catching_up,
            silent=tuple(silent),
            poisoned={topic: tuple(sorted(offsets)) for topic, offsets in self._poisoned.items()},
            rules=rules,
        )
        output = self.state.tick(tick)
        self._checkpointer.tick_proposed(tick.seq)
        self._last_applied = tick.applied
        self._proposal = _Proposal(tick, output, self._capture(output, tick.wall_ms))
        self._is_open = True
        self._drain()

    def _capture(self, output: Output, wall_ms: int) -> Capture | None:
        every_ms = self.config.checkpoint_ms
        phase_ms = every_ms * self.partition // self.config.partitions  # partitions take turns
        is_due = (
            self._wants_checkpoint or (wall_ms + phase_ms) // every_ms != (self._captured_ms + phase_ms) // every_ms
        )
        if self.has_checkpoint_to_write or not is_due:
            return None
        self._captured_ms, self._wants_checkpoint = wall_ms, False
        new = unsaved(output.rows)
        waiting = self.dirty.since(self._checkpointer.captured_version)
        rows = encode_rows([*waiting, *new]) if waiting or new else None
        segments = self._checkpointer.row_segments(self.dirty.oldest_version())
        if rows is not None:
            segments[f"rows/{self.state.seq}"] = rows
        return capture(self.state, self._checkpointer.immutable_names(), segments, wall_ms)

    async def _settle(self) -> None:
        """Appends the proposed tick, reads it back, and only then releases what it gave."""
        assert self._proposal is not None
        tick, output, captured = self._proposal
        await self.ports.journal.append(self.partition, encode(tick))
        offset = self._own_offset = await self._read_back(tick.seq)
        self._release(output, offset, tick)
        self._proposal = None
        self._poisoned = {} if tick.poisoned and not self._is_broken else self._poisoned
        self._checkpointer.tick_confirmed(tick.seq)
        if captured is not None:
            self._captured = (captured, offset)

    async def _read_back(self, seq: int) -> int:
        while True:
            for record in await self.ports.journal.read(self.partition, self._cursor):
                self._cursor = record.offset + 1
                entry = decode(record.value)
                if isinstance(entry, Claim) and entry.claim_id != self.claim_id:
                    raise Fenced(f"partition {self.partition}: {entry.worker} has claimed it; this worker gives it up")
                tick = self._fold.take(entry)
                if tick is not None and (tick.claim_id, tick.seq) == (self.claim_id, seq):
                    return record.offset

    def _release(self, output: Output, offset: int, tick: Tick) -> None:
        version = version_of(self.config.log_epoch, offset)
        for table, rows in output.rows.items():
            self.dirty.put(table, stamped(rows, version))
        for key, message in outgoing(output, version):
            self._unsent.pop(key, None)
            self._unsent[key] = message
        self.confirmed_offset, self.confirmed_wall_ms = offset, tick.wall_ms

    async def _send(self) -> None:
        """What a tick tells goes out before the next is proposed, and before a checkpoint behind it is written."""
        waiting = list(self._unsent.items())
        if waiting:
            await self.ports.outbox.publish([message for _, message in waiting])
            for key, message in waiting:
                if self._unsent.get(key) is message:  # a newer one may have come meanwhile
                    del self._unsent[key]
        if self._captured is not None:
            captured, offset = self._captured
            self._captured = None
            self._checkpointer.begin(captured, offset, version_of(self.config.log_epoch, offset))

    async def _reload(self) -> None:
        """Gives the state up for the last checkpoint; what broke it is known by then."""
        self._checkpointer.abandon()
        self._captured = None
        await self._recover(self._own_offset if self._own_offset >= 0 else self.claim_id)
        if self._fold.claim_id != self.claim_id:
            raise Fenced(f"partition {self.partition}: another worker has claimed it; this worker gives it up")
        self._is_broken = False
        self._is_open = False
        self.must_seek = True

    # Checkpoints

    async def checkpoint(self) -> bool:
        """Writes the checkpoint that the last due tick captured, if any; tidies up behind the one before.

        Returns whether a manifest was written. After `Unavailable` call again.
        """
        return await self._checkpointer.run()

    @property
    def has_checkpoint_to_write(self) -> bool:
        """Whether `checkpoint` has something to do."""
        return self._captured is not None or self._checkpointer.is_busy

    def request_checkpoint(self) -> None:
        """The next tick captures, whenever the last one did; there is one even where nothing is new."""
        self._wants_checkpoint = True


def _from(batch: Batch, offset: int) -> Batch:
    if batch.from_offset >= offset:
        return batch
    records = [record for record in batch.records if record.offset >= offset]
    return batch._replace(from_offset=offset, records=records)


def _up_to(batch: Batch, offset: int) -> Batch:
    records = [record for record in batch.records if record.offset < offset]
    return batch._replace(to_offset=offset, records=records)


def _one_by_one(batch: Batch) -> list[Batch]:
    parts, at = [], batch.from_offset
    for record in batch.records:
        parts.append(batch._replace(from_offset=at, to_offset=record.offset + 1, records=[record]))
        at = record.offset + 1
    if at < batch.to_offset:
        parts.append(batch._replace(from_offset=at, records=[]))
    return parts
