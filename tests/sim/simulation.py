"""One seeded run: a world, one to three workers, a producer, faults; then calm, and the checks.

Everything that happens is a function of the seed (`run(seed)`); which faults a seed knows is drawn first, so that
seeds differ in kind and not only in luck.
"""

import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate
from random import Random
from typing import Any
from unittest import mock

from streams.events import ClickType, ConversionType, Input
from streams.invalid import FanOut, InvalidRules, Lists, Mode, Rule, Velocity
from streams.records import Table
from streams.rules import Horizon, Rules
from streams.state import dedupe, inputs
from streams.state.inputs import Batch
from streams.state.partition import TOPICS, PartitionState
from streams.state.pins import NO_PINS, Pins
from tests.sim.checks import check
from tests.sim.scheduler import Scheduler, Task, pauses
from tests.sim.worker import Held, Worker
from tests.sim.world import Broken, Faults, Log, Nature, SimJournal, SimOutbox, SimSink, SimStore, World
from tests.support.events import (
    EVENT_TOPICS,
    HOSTED,
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

RECORDS = 220
PUBLISHERS = 9
"""Honest ones, with few clicks each: too few for any of them to be suspected, enough to be the flood's peers."""
OWN = ("partition", "windows", "desk", "judging")
"""Segments that belong to one checkpoint only, as those of inputs do."""


SERVICES = (*(f"sink.insert {table}" for table in Table), "sink", "outbox", "store", "journal")


@dataclass
class Plan:
    """What a seed knows. Shares are per step."""

    workers: int = 1
    partitions: int = 1
    records: int = RECORDS
    crash: float = 0.004
    pause: float = 0.0
    move: float = 0.0
    corrupt: float = 0.0
    outage: float = 0.0
    retention: float = 0.0
    trim: float = 0.0
    poison: float = 0.0
    transient: float = 0.0
    new_rules: float = 0.0
    producer_dies: float = 0.0
    holes: float = 0.0
    faults: Faults = field(default_factory=Faults)
    services: tuple[str, ...] = SERVICES
    """What an outage may befall."""
    calm_steps: int = 60_000
    """Whoever has not settled in so many steps never will."""
    checkpoint_ms: int = 300
    garbage: float = 0.05
    duplicate: float = 0.08
    pack_at: int = 200_000
    max_run_ids: int = 4_000_000
    max_keys: int = 1_000_000
    rules: Rules = field(default_factory=Rules)
    pins: Pins = NO_PINS


def pins_of(rng: Random) -> Pins:
    """Days so short that a run outlives many."""
    return Pins(rng.choice([0, 1, 2, 4]), rng.choice([200, 1_000, 5_000]))


def plan_of(rng: Random) -> Plan:
    """Draws what may happen under a seed."""

    def perhaps(chance: float, most: float) -> float:
        return rng.uniform(0, most) if rng.random() < chance else 0.0

    failing = rng.choice([0.0, 0.03, 0.15])
    return Plan(
        workers=rng.choice([1, 1, 2, 3]),
        partitions=rng.choice([1, 1, 2]),
        crash=perhaps(0.8, rng.choice([0.002, 0.006, 0.02])),
        pause=perhaps(0.5, 0.006),
        move=perhaps(0.6, 0.006),
        corrupt=perhaps(0.5, 0.02),
        outage=perhaps(0.5, 0.02),
        retention=perhaps(0.25, 0.004),
        trim=perhaps(0.3, 0.01),
        poison=perhaps(0.3, 0.03),
        transient=perhaps(0.2, 0.03),
        new_rules=perhaps(0.4, 0.5),
        producer_dies=perhaps(0.3, 0.02),
        holes=perhaps(0.5, 0.2),
        faults=Faults(failing, failing, rng.choice([0, 1, 3])),
        checkpoint_ms=rng.choice([100, 300, 3_000]),
        garbage=rng.choice([0.05, 0.3]),
        pack_at=rng.choice([1, 5, 30, 200_000]),
        max_run_ids=rng.choice([10, 60, 4_000_000]),
        max_keys=rng.choice([3, 1_000_000]),
        rules=rules_of(rng),
    )


LATENESS_MS = 2 * MINUTE_MS
DEDUPE_MS = 3 * MINUTE_MS


def rules_of(rng: Random) -> Rules:
    """Small horizons, so that a run outlives them. The de-duplication horizon is the same for all."""
    pane_ms = rng.choice([5_000, 10_000, 15_000])
    return Rules(
        pane_ms=pane_ms,
        report_pane_ms=pane_ms * rng.choice([2, 3, 6]),
        report_every_ms=rng.choice([100, 1_000, 5_000]),
        horizons={i: Horizon(rng.choice([LATENESS_MS, LATENESS_MS // 2, DEDUPE_MS]), DEDUPE_MS) for i in Input},
        ctr_click_types=tuple(ClickType)[: rng.randint(1, 6)],
        dimensions=tuple(rng.sample(["region", "channel", "publisher_id", "device_class"], rng.randint(0, 4))),
        max_pane_keys=rng.choice([2, 6, 50_000]),
        max_report_keys=rng.choice([2, 6, 20_000]),
        invalid=invalid_of(rng),
    )


def invalid_of(rng: Random) -> InvalidRules:
    """Rules of invalid traffic. Those that remember are never off, and theirs are the same thresholds for all."""
    remember = (Rule.DOUBLE_CLICK, Rule.ACTIVITY_CAP, Rule.REPEATED_CLICK, Rule.ORDER_REPEATED, Rule.PUBLISHER_FLOODING)
    modes = {rule: rng.choice([Mode.ON, Mode.ON, Mode.OBSERVE, Mode.OFF]) for rule in Rule}
    modes |= {rule: rng.choice([Mode.ON, Mode.OBSERVE]) for rule in remember}
    modes[Rule.NON_BROWSER_AGENT] = rng.choice([Mode.OBSERVE, Mode.OFF])
    return InvalidRules(
        modes=modes,
        lists=Lists(crawler_patterns=("Googlebot",), networks=zlib.compress(HOSTED.encode())),
        double_click_ms=5_000,
        double_click_by_type_ms={ClickType.BUTTON: 1_000},
        activity_clicks=4,
        activity_clicks_by_type={ClickType.CARD: 2},
        max_clicks_per_impression=1,
        max_clicks_per_impression_by_type={ClickType.CARD: 2},
        impression_wait_ms=rng.choice([1_000, 10_000, 60_000]),
        click_after_ms=rng.choice([300, 2_000]),
        click_after_by_type_ms={ClickType.BUTTON: rng.choice([0, 5_000])},
        click_wait_ms=rng.choice([1_000, 10_000, 60_000]),
        conversion_after_ms={ConversionType.LEAD: rng.choice([1_000, 6_000]), ConversionType.INSTALL: 2_000},
        user_velocity=Velocity(3, 60_000, {ClickType.BUTTON: 2}),
        device_velocity=Velocity(4, 30_000),
        device_fan_out=FanOut(3, 60_000, 2),
        address_velocity=Velocity(4, 60_000),
        address_fan_out=FanOut(3, 120_000, 3),
        flooding_min_clicks=5,
        flooding_window_ms=4 * MINUTE_MS,
        flooding_ratio=1.2,
        flooding_p=0.1,
    )


class Simulation:
    """One run. `world` and `trace` are left for whoever asks why."""

    def __init__(self, seed: int, plan: Plan | None = None, crash_at: int | None = None) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.plan = plan or replace(plan_of(self.rng), pins=pins_of(Random(f"pins {seed}")))
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
        self.assigned: dict[int, Worker] = {}
        self.producer = Task("producer", self._produce())
        self.scheduler = Scheduler(self.rng, self._tasks)
        self.crash_at = crash_at
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
            while not self.producer.is_done:
                self._disturb()
                self._step()
            for _ in range(self.rng.randrange(400)):
                self._disturb()
                self._step()
            self._calm()
            states = {p: self._held(p).owner.state for p in range(self.plan.partitions)}
        check(self.world, states)

    def stop(self) -> None:
        """Drops every coroutine."""
        self.producer.drop()
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
        tasks = [] if self.producer.is_done else [self.producer]
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
            worker.rules = rules_of(self.rng)
        for partition, owner in self.assigned.items():
            if owner is worker:
                worker.take(partition)

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
        raise Broken(f"has not settled in {self.plan.calm_steps} steps: {self._unsettled()}")

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


def one_worker(seed: int) -> Plan:
    """The thinnest plan: one worker, one partition, few records, nothing that fails by itself."""
    rules = rules_of(Random(seed))
    return Plan(records=60, crash=0.0, faults=Faults(0.0, 0.0, 0), rules=rules, checkpoint_ms=100, pack_at=5)


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
