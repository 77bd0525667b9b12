"""A simulated worker: for each partition that it believes to own, an owner and the coroutines around it."""

from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

from streams.errors import Fenced, JournalMismatch, Unavailable
from streams.records import Table
from streams.rules import Rules
from streams.state.owner import Owner, OwnerConfig, Ports
from streams.state.partition import TOPICS
from streams.state.pins import Pins
from streams.topics import CAMPAIGNS
from tests.sim.scheduler import Task, pauses
from tests.sim.world import World
from tests.support.events import EVENT_TOPICS


class Held:
    """One partition in one worker's hands, until it is crashed, fenced or revoked."""

    def __init__(self, worker: "Worker", partition: int, owner: Owner) -> None:
        self.worker = worker
        self.partition = partition
        self.owner = owner
        self.name = f"{worker.name}/{partition}"
        self.is_open = False
        self.is_fenced = False
        self.heard_ms: dict[str, int] = {}
        """Wall time at which each topic last brought something, or was opened."""
        self.tasks = [Task(f"{self.name} open", self._guarded(self._open))]

    def drop(self) -> None:
        """A crash: no coroutine goes on."""
        for task in self.tasks:
            task.drop()

    async def _guarded(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs until this owner is fenced."""
        try:
            await run()
        except Fenced:
            self.worker.world.nature.note(f"{self.name} fenced ({self.owner.claim_id})")
            self.is_fenced = True
        except JournalMismatch:
            # slower than the journal's retention while another owner went on: it cannot even see that it is fenced
            if not self.worker.world.journal.is_superseded(self.partition, self.owner.claim_id):
                raise
            self.is_fenced = True

    async def _open(self) -> None:
        world = self.worker.world
        starts, settings_end = world.beginnings(self.partition), world.ends(self.partition)[CAMPAIGNS]
        while True:
            try:
                await self.owner.open(starts, settings_end, self.worker.wall_ms())
                break
            except Unavailable:
                await pauses(self.worker.rng.randrange(6))
        world.nature.note(f"{self.name} open as {self.owner.claim_id}; corrupt: {self.owner.corrupt}")
        self.is_open = True
        self.heard_ms = dict.fromkeys(TOPICS, self.worker.wall_ms())
        for name, run in (
            ("intake", self._intake),
            ("ticker", self._tick),
            ("checkpointer", self._checkpoint),
            ("publisher", self._publish),
        ):
            self.tasks.append(Task(f"{self.name} {name}", self._guarded(run)))

    async def _intake(self) -> None:
        rng, owner = self.worker.rng, self.owner
        at = dict(owner.expected)
        while True:
            if owner.must_seek:
                at, owner.must_seek = dict(owner.expected), False
            topic = rng.choice(self._unread() if rng.random() < 0.7 else TOPICS)
            wanted = owner.wants(topic) or rng.random() < 0.1  # a fetch in flight comes though it is not wanted
            if not wanted or len(owner.dirty) > self.worker.max_dirty:
                await pauses(1)
                continue
            batch = self._fetch(topic, at[topic])
            await pauses(rng.randrange(3))
            if batch.to_offset > batch.from_offset:
                self.heard_ms[topic] = self.worker.wall_ms()
                seek = owner.offer(batch)
                at[topic] = batch.to_offset if seek is None else seek
            await pauses(1)

    def _fetch(self, topic: str, at: int) -> Any:
        """Arbitrary boundaries; sometimes it overlaps what was read, sometimes it leaves a gap."""
        log, rng = self.worker.world.logs[topic, self.partition], self.worker.rng
        roll = rng.random()
        begin = at
        if roll < 0.08:
            begin = max(log.beginning, at - rng.randrange(12))
        elif roll < 0.12:
            begin = min(log.end, at + rng.randrange(1, 5))
        size = rng.choice(self.worker.batches)
        return log.fetch(begin, min(log.end, begin + size))

    async def _tick(self) -> None:
        while True:
            try:
                await self.owner.advance(self.worker.wall_ms(), self._silent(), self._is_behind())
            except Unavailable:
                await pauses(self.worker.rng.randrange(6))
            await pauses(1 + self.worker.rng.randrange(self.worker.tick_pauses))

    def _silent(self) -> list[str]:
        """Topics that have been read to their end, and from which nothing has come for a while."""
        ends, expected = self.worker.world.ends(self.partition), self.owner.expected
        before = self.worker.wall_ms() - self.worker.silent_ms
        return [topic for topic in TOPICS if self.heard_ms[topic] <= before and expected[topic] >= ends[topic]]

    def _unread(self) -> Sequence[str]:
        """Topics with something to read; all, where there are none."""
        ends, expected = self.worker.world.ends(self.partition), self.owner.expected
        return [topic for topic in TOPICS if expected[topic] < ends[topic]] or TOPICS

    def _is_behind(self) -> bool:
        ends, expected = self.worker.world.ends(self.partition), self.owner.expected
        return sum(ends[topic] - expected[topic] for topic in EVENT_TOPICS) > self.worker.behind

    async def _checkpoint(self) -> None:
        while True:
            try:
                await self.owner.checkpoint()
            except Unavailable:
                await pauses(self.worker.rng.randrange(6))
            await pauses(1 + self.worker.rng.randrange(4))

    async def _publish(self) -> None:
        rng = self.worker.rng
        while True:
            for table in rng.sample(list(Table), len(Table)):
                rows = self.owner.dirty.take(table, rng.choice([1, 3, 1000]))
                if rows:
                    await self._insert(table, rows)
            await pauses(1 + rng.randrange(4))

    async def _insert(self, table: Table, rows: list[Any]) -> None:
        try:
            await self.worker.world.sink.insert(table, rows)
        except Unavailable:
            return
        self.owner.dirty.acknowledge(table, rows)


class Worker:
    """A process: it may crash, be paused, start again with other rules."""

    def __init__(self, name: str, world: World, rules: Rules, rng: Random) -> None:
        self.name = name
        self.world = world
        self.rules = rules
        self.rng = rng
        self.held: dict[int, Held] = {}
        self.paused_until = 0
        self.is_up = True
        self.skew_ms = rng.randrange(-3_000, 3_000)
        self.checkpoint_ms = 300
        self.pins = Pins()
        self.idle_tick_ms = 2_000
        self.silent_ms = 10_000
        self.behind = 10**9
        self.batches = [1, 2, 5, 20, 1000]
        """Sizes of what is fetched."""
        self.max_dirty = 100_000
        self.tick_pauses = 6
        self._claims = 0

    def wall_ms(self) -> int:
        """This machine's idea of the time."""
        return self.world.now_ms + self.skew_ms

    def take(self, partition: int) -> None:
        """Opens the partition anew."""
        self.leave(partition)
        world = self.world
        config = OwnerConfig(
            world.partitions, world.log_epoch, self.name, self.rules, self.checkpoint_ms, self.idle_tick_ms, self.pins
        )
        owner = Owner(partition, config, Ports(world.journal, world.store, world.outbox), self._new_claim_id)
        self.held[partition] = Held(self, partition, owner)

    def _new_claim_id(self) -> str:
        self._claims += 1
        return f"{self.name}.{self._claims}"

    def leave(self, partition: int) -> None:
        """Drops everything of the partition."""
        held = self.held.pop(partition, None)
        if held:
            held.drop()

    def crash(self) -> None:
        """SIGKILL."""
        self.world.nature.note(f"{self.name} CRASHES")
        for partition in list(self.held):
            self.leave(partition)
        self.is_up = False

    def tasks(self) -> list[Task]:
        """What can be stepped now."""
        if not self.is_up or self.world.nature.step < self.paused_until:
            return []
        return [task for held in self.held.values() if not held.is_fenced for task in held.tasks if not task.is_done]
