"""One seeded run: a world, one to three workers, a producer, faults; then calm, and the checks.

Everything that happens is a function of the seed (`run(seed)`); which faults a seed knows is drawn first, so that
seeds differ in kind and not only in luck.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from random import Random
from typing import Any
from unittest import mock

from streams.rules import Rules
from streams.state import dedupe, inputs
from streams.state.inputs import Batch
from streams.state.partition import TOPICS, PartitionState
from tests.sim.checks import check
from tests.sim.plan import LATENESS_MS, PUBLISHERS, Plan, cast, pins_of, plan_of, roomy, rules_of
from tests.sim.scheduler import Scheduler, Task, pauses
from tests.sim.stories import Story
from tests.sim.worker import Held, Worker
from tests.sim.world import Faults, Log, Nature, SimJournal, SimOutbox, SimSink, SimStore, Unsettled, World
from tests.support.events import (
    EVENT_TOPICS,
    MINUTE_MS,
    NOTICE_TOPICS,
    SETTINGS_TOPIC,
    VERDICTS_TOPIC,
    Draft,
    Mix,
    Traffic,
    notice,
)
from tests.support.oracle import Lost, ticks_of

OWN = ("partition", "windows", "desk", "judging")
"""Segments that belong to one checkpoint only, as those of inputs do."""


class Simulation:
    """One run. `world` and `trace` are left for whoever asks why."""

    def __init__(self, seed: int, plan: Plan | None = None, crash_at: int | None = None) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.plan = plan or cast(replace(plan_of(self.rng), pins=pins_of(Random(f"pins {seed}"))), seed)
        plan = self.plan
        mix = Mix(lateness_ms=LATENESS_MS, garbage=plan.garbage, duplicate=plan.duplicate, publishers=PUBLISHERS)
        self.traffic = Traffic(self.rng, mix)
        self.nature = Nature(self.rng)
        self.nature.faults = self.plan.faults
        self.world = self._world()
        names = [f"w{n}" for n in range(self.plan.workers)]
        self.workers = [Worker(name, self.world, self.plan.rules, self.rng) for name in names]
        for worker in self.workers:
            worker.checkpoint_ms, worker.pins = self.plan.checkpoint_ms, self.plan.pins
            worker.behind = self.plan.behind
            worker.batches = worker.batches[2:] if plan.story else worker.batches
        self.assigned: dict[int, Worker] = {}
        self.producers = [Task("producer", self._produce())]
        if plan.story:
            rng = Random(f"told {seed}")
            self.story = Story(self.world, self.traffic, rng.randrange(plan.partitions), rng, self._has_heard)
            self.producers.append(Task("story", self.story.tell(plan.story)))
        self.scheduler = Scheduler(self.rng, self._tasks)
        self.crash_at = crash_at
        self.reached: set[str] = set()
        """By name, once all is checked: see `tests.sim.watch`."""
        self.is_calm = False
        self.fragile: set[int] = set()
        disturbances = (
            (self.plan.crash, self._crash),
            (self.plan.pause, self._pause),
            (self.plan.move, self._move),
            (self.plan.corrupt, self._corrupt),
            (self.plan.outage, self._outage),
            (self.plan.retention, self._retention),
            (self.plan.trim, self._trim),
        )
        self._chances = list(accumulate(chance for chance, _ in disturbances))
        self._disturbances = [disturbance for _, disturbance in disturbances]
        self._revivals: dict[str, int] = {}
        self._reopenings: dict[int, int] = {}

    def _world(self) -> World:
        partitions = range(self.plan.partitions)
        logs = {(t, p): Log(t, p, self.rng.choice([0, 0, 7])) for t in TOPICS for p in partitions}
        nature = self.nature
        journal = SimJournal(nature, len(partitions))
        store = SimStore(nature, self.plan.pins, journal)
        return World(nature, len(partitions), 1, logs, journal, store, SimOutbox(nature, logs), SimSink(nature))

    def run(self) -> None:
        """Raises `Broken` (or whatever the code raises) where something is wrong."""
        with self._patched():
            for partition in range(self.plan.partitions):
                self._assign(partition, self.rng.choice(self.workers))
            while not all(producer.is_done for producer in self.producers):
                self._disturb()
                self._step()
            for _ in range(self.rng.randrange(400)):
                self._disturb()
                self._step()
            self._calm()
            states = {p: self._held(p).owner.state for p in range(self.plan.partitions)}
        self.reached = check(self.world, states)

    def stop(self) -> None:
        """Drops every coroutine."""
        for producer in self.producers:
            producer.drop()
        for worker in self.workers:
            for partition in list(worker.held):
                worker.leave(partition)

    # Time

    def _step(self) -> None:
        self.nature.step += 1
        if self.nature.step == self.crash_at:
            self._crash()
        self.world.now_ms += self.rng.randrange(20)
        self.scheduler.step()
        self._look_after()

    def _tasks(self) -> list[Task]:
        tasks = [producer for producer in self.producers if not producer.is_done]
        for worker in self.workers:
            tasks += worker.tasks()
        return tasks

    def _look_after(self) -> None:
        """What surrounds the workers: a supervisor that starts them again, a coordinator that assigns partitions."""
        step = self.nature.step
        for worker in self.workers:
            if not worker.is_up and self._revivals.setdefault(worker.name, step + self.rng.randrange(80)) <= step:
                del self._revivals[worker.name]
                self._start(worker)
            for partition, held in list(worker.held.items()):
                if held.is_fenced:
                    self._after_fence(worker, partition)

    def _after_fence(self, worker: Worker, partition: int) -> None:
        if self.assigned[partition] is not worker:
            worker.leave(partition)
        elif self._reopenings.setdefault(partition, self.nature.step + self.rng.randrange(30)) <= self.nature.step:
            del self._reopenings[partition]
            worker.take(partition)

    def _start(self, worker: Worker) -> None:
        worker.is_up = True
        if not self.is_calm and self.rng.random() < self.plan.new_rules:
            worker.rules = self._other_rules()
        for partition, owner in self.assigned.items():
            if owner is worker:
                worker.take(partition)

    def _other_rules(self) -> Rules:
        rules = rules_of(self.rng)
        return roomy(rules) if self.plan.story else rules

    def _has_heard(self, partition: int, ends: dict[str, int], wall_ms: int) -> bool:
        """Whether the partition's owner has told of a tick that has read so far, no earlier than a time."""
        worker = self.assigned[partition]
        held = worker.held.get(partition)
        if held is None or not held.is_open or held.owner.confirmed_wall_ms < wall_ms + worker.skew_ms:
            return False
        applied = held.owner._last_applied
        is_told = held.owner._proposal is None and not held.owner._unsent
        return is_told and all(applied.get(topic, 0) >= end for topic, end in ends.items())

    def _assign(self, partition: int, worker: Worker) -> None:
        """The worker before is not told: it finds out."""
        self.assigned[partition] = worker
        self.nature.note(f"partition {partition} goes to {worker.name}")
        if worker.is_up:
            worker.take(partition)

    def _held(self, partition: int) -> Held:
        return self.assigned[partition].held[partition]

    # What happens

    async def _produce(self) -> None:
        """Appends over time; dies now and then, and sends its last records again when it is back."""
        rng, world = self.rng, self.world
        for partition in range(self.plan.partitions):
            for _ in range(rng.randrange(4)):
                self._append(SETTINGS_TOPIC, partition)
        left = self.plan.records
        while left > 0:
            topic, partition = (
                rng.choice([*EVENT_TOPICS, *EVENT_TOPICS, *NOTICE_TOPICS, VERDICTS_TOPIC]),
                rng.randrange(world.partitions),
            )
            for _ in range(rng.choice([1, 1, 3, 10])):
                self._append(topic, partition)
                left -= 1
            if rng.random() < self.plan.producer_dies:
                await pauses(rng.randrange(60))
                self._resend(topic, partition)
            await pauses(rng.randrange(30))

    def _append(self, topic: str, partition: int) -> None:
        if topic == SETTINGS_TOPIC:
            appended_ms = self.traffic.start_ms + self.rng.randrange(20 * MINUTE_MS)
            draft = self.traffic.settings(appended_ms, partition, self.plan.partitions)
        elif topic == VERDICTS_TOPIC:
            draft = self.traffic.review(self.traffic.start_ms + self.rng.randrange(20 * MINUTE_MS), partition)
        elif topic in NOTICE_TOPICS:
            at_ms = self.traffic.start_ms + self.rng.randrange(20 * MINUTE_MS)
            draft = notice(self.rng, topic, at_ms, self.rng.randrange(partition, 4, self.plan.partitions))
        else:
            draft = self.traffic.draft(topic, partition)
        holes = self.rng.randint(1, 3) if self.rng.random() < self.plan.holes else 0
        record = self.world.logs[topic, partition].append(draft, holes)
        if not record.expected and self.rng.random() < self.plan.poison:
            self.world.poison.add((topic, partition, record.offset))

    def _resend(self, topic: str, partition: int) -> None:
        log = self.world.logs[topic, partition]
        for record in log.records[-self.rng.randint(1, 6) :]:
            log.append(Draft(record.timestamp, record.key, record.value, record.expected))

    def _disturb(self) -> None:
        """At most one disturbance a step."""
        if self.rng.random() < self._chances[-1]:
            roll = self.rng.random() * self._chances[-1]
            self._disturbances[bisect_right(self._chances, roll)]()

    def _crash(self) -> None:
        worker = self.rng.choice(self.workers)
        if worker.is_up:
            worker.crash()

    def _pause(self) -> None:
        """It stops wherever it stands, and goes on much later, whoever owns its partitions by then."""
        worker = self.rng.choice(self.workers)
        worker.paused_until = self.nature.step + self.rng.randrange(400)
        self.nature.note(f"{worker.name} paused until {worker.paused_until}")
        if self.rng.random() < 0.7:
            for partition in [p for p, owner in self.assigned.items() if owner is worker]:
                self._assign(partition, self.rng.choice(self.workers))

    def _move(self) -> None:
        partition = self.rng.randrange(self.plan.partitions)
        self._assign(partition, self.rng.choice(self.workers))

    def _outage(self) -> None:
        """Some services, and some of the sink's tables, do not answer for a while."""
        services = self.plan.services
        self.nature.down = set(self.rng.sample(services, min(len(services), self.rng.choice([0, 1, 1, 2, 4]))))
        self.nature.note(f"down: {sorted(self.nature.down)}")

    def _corrupt(self) -> None:
        """Anything of the newest checkpoint, where the logs reach back to their beginning.

        Where they do not, only what every checkpoint writes anew: a fallback cannot help where both share what rots.
        """
        partition, store = self.rng.randrange(self.plan.partitions), self.world.store
        whole = store.documents(partition)
        if not whole or partition in self.fragile:
            return
        segments = whole[-1]["segments"]
        if self.world.journal.begins[partition]:
            if not self._newest_are_whole(partition, whole):
                return
            segments = {name: ref for name, ref in segments.items() if name in OWN or name.startswith("input/")}
        keys = sorted(ref["key"] for ref in segments.values())
        store.corrupt(partition, self.rng.choice([whole[-1]["key"], *keys]), self.rng)

    def _newest_are_whole(self, partition: int, whole: list[dict[str, Any]]) -> bool:
        """The two newest manifests that there are."""
        named = [key for (of, key) in self.world.store.named if of == partition]
        return len(whole) >= 2 and len(whole) == len(named)

    def _retention(self) -> None:
        """All workers are down; the broker drops what the last checkpoint has passed, and some more."""
        places = [(log, applied) for log in self.world.logs.values() if (applied := self._droppable(log)) is not None]
        if not places:
            return
        log, applied = self.rng.choice(places)
        for worker in self.workers:
            if worker.is_up:
                worker.crash()
        self.fragile.add(log.partition)
        readable = max(applied, log.beginning)
        log.beginning = self.rng.randint(readable, log.end)
        if log.beginning > readable:
            self.world.lost.append(Lost(log.topic, log.partition, readable, log.beginning))
        self.nature.note(f"RETENTION {log.topic}/{log.partition}: begins at {log.beginning}, applied up to {applied}")

    def _droppable(self, log: Log) -> int | None:
        """How far a log has been applied, if no recovery will read what lies before: only then is a loss exact."""
        whole = self.world.store.documents(log.partition)
        ticks = ticks_of(self.world.journal.entries[log.partition])
        if not ticks or not whole:
            return None
        at = [tick for tick in ticks if tick.offset == whole[-1]["journal_offset"]]
        applied: int = ticks[-1].document["applied"][log.topic]
        if not at or at[0].document["applied"][log.topic] != applied or applied >= log.end:
            return None
        return applied

    def _trim(self) -> None:
        """The journal forgets what lies before the older of the two newest checkpoints, pinned ones or not."""
        partition = self.rng.randrange(self.plan.partitions)
        whole = self.world.store.documents(partition)
        if self._newest_are_whole(partition, whole):
            self.world.journal.begins[partition] = max(
                self.world.journal.begins[partition], whole[-2]["journal_offset"]
            )

    # Calm

    def _calm(self) -> None:
        """Nothing fails any more; everything catches up."""
        self.nature.note("CALM")
        self.is_calm = True
        self.nature.faults = Faults(0.0, 0.0, self.plan.faults.delay)
        self.plan.transient = 0.0
        self.nature.down = set()
        for worker in self.workers:
            worker.paused_until = 0
        for step in range(self.plan.calm_steps):
            self._step()
            if step % 50 == 0:
                self.world.now_ms += 3_000
                if all(self._has_settled(p) for p in range(self.plan.partitions)):
                    return
        raise Unsettled(f"has not settled in {self.plan.calm_steps} steps: {self._unsettled()}")

    def _has_settled(self, partition: int) -> bool:
        worker = self.assigned[partition]
        held = worker.held.get(partition)
        if not worker.is_up or held is None or not held.is_open or held.is_fenced or held.owner.is_recovering:
            return False
        owner = held.owner
        ticks = ticks_of(self.world.journal.entries[partition])
        ends = self.world.ends(partition)
        return bool(
            ticks
            and owner.is_settled
            and ticks[-1].offset == owner.confirmed_offset
            and ticks[-1].document["applied"] == ends == owner.state.positions()
            and not len(owner.dirty)
            and all(i.report.is_clean and i.cohorts.is_clean and i.panes.is_clean for i in owner.state.inputs.values())
        )

    def _unsettled(self) -> str:
        lines = []
        for partition in range(self.plan.partitions):
            held = self.assigned[partition].held.get(partition)
            owner = held.owner if held else None
            lines.append(
                f"partition {partition}: {self.assigned[partition].name} up={self.assigned[partition].is_up} "
                f"open={held and held.is_open} recovering={owner and owner.is_recovering} "
                f"positions={owner and owner.state.positions()} ends={self.world.ends(partition)} "
                f"dirty={owner and len(owner.dirty)}"
            )
        return "; ".join(lines)

    # Exceptions in the code under test

    @contextmanager
    def _patched(self) -> Iterator[None]:
        real = PartitionState.apply
        with (
            mock.patch.object(dedupe, "PACK_AT", self.plan.pack_at),
            mock.patch.object(dedupe, "MAX_RUN_IDS", self.plan.max_run_ids),
            mock.patch.object(inputs, "MAX_KEYS", self.plan.max_keys),
            mock.patch.object(PartitionState, "apply", self._fragile_apply(real)),
        ):
            yield

    def _fragile_apply(self, real: Callable[[PartitionState, Batch], None]) -> Callable[[PartitionState, Batch], None]:
        def apply(state: PartitionState, batch: Batch) -> None:
            known = state.poisoned.get(batch.topic, ())
            for place, record in enumerate(batch.records):
                at = (batch.topic, batch.partition, record.offset)
                if record.offset in known:
                    continue
                if at in self.world.poison or self._is_transient(batch):
                    if at not in self.world.poison:
                        self.world.excused.add(at)
                    real(state, batch._replace(to_offset=record.offset, records=batch.records[:place]))
                    raise RuntimeError(f"injected at {at}")
            real(state, batch)

        return apply

    def _is_transient(self, batch: Batch) -> bool:
        """Only on what no tick has passed yet: history is not judged anew."""
        if not self.plan.transient or self.rng.random() >= self.plan.transient:
            return False
        ticks = ticks_of(self.world.journal.entries[batch.partition])
        return not ticks or ticks[-1].document["applied"][batch.topic] <= batch.from_offset


class Failed(AssertionError):
    """A seed that failed: its number and what happened last."""


def run(seed: int, plan: Plan | None = None, crash_at: int | None = None) -> Simulation:
    """Runs one seed, with a crash at one step where asked; what goes wrong is raised as `Failed`, with a trace."""
    simulation = Simulation(seed, plan, crash_at)
    try:
        simulation.run()
    except Exception as error:
        simulation.stop()
        trace = "\n".join(list(simulation.nature.trace)[-60:])
        what = f"seed {seed}" + (f", crash at step {crash_at}" if crash_at is not None else "")
        raise Failed(
            f"{what}: {type(error).__name__}\n{error}\nplan: {simulation.plan}\nlast events:\n{trace}"
        ) from error
    simulation.stop()
    return simulation
