"""Replays: historical topics through the same pure stages along the same journal, into rows of a run's own.

It reads by an assignment of its own, in no group, and commits nothing; alerts, controls and webhooks are computed and
not sent. Partitions are independent, so several processes share them. Whoever stops it may let it go on (`resume`).
"""

import asyncio
import multiprocessing
import queue
import time
from collections.abc import Callable, Sequence
from multiprocessing.queues import Queue, SimpleQueue
from pathlib import Path
from typing import Any, Final, NamedTuple

from streams.adapters.clickhouse_runs import ClickHouseRuns, RunInfo
from streams.adapters.collector import collect_rarely
from streams.errors import CampaignStreamsError
from streams.jobs.replay_journal import Anchor, prepare, recorded_behind, tick_at, ticks
from streams.jobs.replay_partition import PartitionReplay
from streams.jobs.replay_plan import Outlook, ReplayPlan, Sources, check, expected, outlook, sources_of
from streams.jobs.replay_progress import ReplayFolder, Saved
from streams.jobs.replay_start import Start, begin, candidates, empty_state, first_event_ms, missing, reach_back
from streams.ports import History
from streams.records import Row, Table
from streams.settings import Settings
from streams.state.partition import PartitionState
from streams.topics import INPUT_TOPICS

SAVE_EVERY_S: Final = 30.0
"""An interrupted replay repeats at most so much work."""
TELL_EVERY_S: Final = 0.5
QUEUED: Final = 64
"""Messages of the processes that wait; beyond it they wait themselves."""


class Progress(NamedTuple):
    """How far all partitions have come together."""

    events: int
    total: int
    seconds: float

    @property
    def events_per_s(self) -> float:
        """Since this process began."""
        return self.events / self.seconds if self.seconds else 0.0


class Summary(NamedTuple):
    """What a replay came to."""

    events: int
    seconds: float
    rows: int
    lost: int
    """Offsets that retention had removed before it could read them."""
    read_from_ms: int
    """Event time that it reached back to; 0: there was no event."""
    starts: tuple[Start, ...] = ()


class Done(NamedTuple):
    """What one partition came to."""

    events: int
    lost: int
    first_ms: int
    """The oldest event time that its state knows of; -1: none."""


Tell = Callable[[Progress], None]
Left = SimpleQueue["int | None"]


async def look(settings: Settings, plan: ReplayPlan) -> list[Outlook]:
    """What every partition's replay would read.

    Raises:
        CampaignStreamsError: it cannot be done; the message says what to do.
    """
    async with sources_of(settings, plan) as sources:
        partitions = await check(sources.history, plan.wanted)
        return [await outlook(sources, partition, plan.wanted) for partition in range(partitions)]


class Begun(NamedTuple):
    """A partition's state where its replay goes on, behind a tick."""

    state: PartitionState
    start: Start
    behind: Anchor
    saved: Saved | None = None


class Worker:
    """Replays some partitions, one after the other. `put` takes messages: ("began" | "rows" | "events" | "done", …)."""

    def __init__(
        self, sources: Sources, folder: ReplayFolder, plan: ReplayPlan, put: Callable[[tuple[Any, ...]], Any]
    ) -> None:
        self.history: History = sources.history
        self.reader = sources.reader
        self.folder = folder
        self.plan = plan
        self.put = put

    async def run(self, partition: int, partitions: int, log_epoch: int) -> None:
        """One partition, from where it was left, from a checkpoint, or from its beginning."""
        begun = await self._begun(empty_state(partition, partitions, log_epoch))
        state, saved = begun.state, begun.saved
        if saved is not None and saved.is_done:
            self.put(("began", partition, begun.start, saved.events))
            self.put(("done", partition, Done(saved.events, saved.lost, saved.first_ms)))
            return
        recorded = await recorded_behind(self.history, partition, begun.behind)
        prepare(state, recorded)
        begun = begun._replace(start=await self._with_missing(begun, recorded.ends))
        replay = PartitionReplay(self.history, state, self.plan.wanted, self._emitting(partition))
        replay.events, replay.lost = (saved.events, saved.lost) if saved else (0, 0)
        total = await expected(self.history, partition, state.positions(), recorded.ends, self.plan.wanted.to_ms)
        self.put(("began", partition, begun.start, replay.events + total))
        told = kept = time.monotonic()
        async for place in replay.run(ticks(self.history, partition, recorded), recorded.ends):
            now = time.monotonic()
            if now - told > TELL_EVERY_S:
                self.put(("events", partition, place.events))
                told = now
            if now - kept > SAVE_EVERY_S:
                await replay.flush()
                offset = place.journal_offset
                self.folder.save(state, Saved(offset, place.events, False, tuple(begun.start), replay.lost))
                kept = time.monotonic()
        done = Done(replay.events, replay.lost, first_event_ms(state))
        self.folder.save(state, Saved(0, done.events, True, tuple(begun.start), done.lost, done.first_ms))
        self.put(("done", partition, done))

    def _emitting(self, partition: int) -> Any:
        async def emit(table: Table, rows: Sequence[Row]) -> None:
            await asyncio.to_thread(self.put, ("rows", partition, table.value, rows))

        return emit

    async def _begun(self, empty: PartitionState) -> Begun:
        partition = empty.partition
        saved = self.folder.load(empty) if self.plan.resume else None
        if saved is None:
            chosen = await candidates(self.history, self.reader, partition, self.plan.wanted.from_ms)
            state, start = await begin(self.history, self.reader, empty, chosen)
            found = next((each for each in chosen.found if each.start.checkpoint == start.checkpoint), None)
            return Begun(state, start, found.anchor if found else Anchor())
        start = Start(*saved.start) if saved.start else Start(partition)
        if saved.is_done:
            return Begun(empty, start, Anchor(), saved)
        tick = await tick_at(self.history, partition, saved.journal_offset)
        if tick is None:
            raise CampaignStreamsError(
                f"partition {partition}: the journal does not hold the tick any more at which run {self.plan.run} was "
                "left; drop the run and begin it anew"
            )
        return Begun(empty, start, Anchor(saved.journal_offset, tick.claim_id, tick.seq), saved)

    async def _with_missing(self, begun: Begun, ends: dict[str, int]) -> Start:
        if begun.saved is not None:
            return begun.start
        gone = await missing(self.history, begun.state.partition, begun.state.positions(), ends)
        return begun.start._replace(missing=gone)


async def replay(settings: Settings, plan: ReplayPlan, runs: ClickHouseRuns, tell: Tell) -> Summary:
    """Replays the whole range into the run's rows.

    Raises:
        CampaignStreamsError: it cannot be done; the message says what to do.
    """
    async with sources_of(settings, plan) as sources:
        partitions = await check(sources.history, plan.wanted)
        order = await _largest_first(sources.history, partitions)
    folder = ReplayFolder(settings.worker.state_dir, plan.run)
    context = multiprocessing.get_context("spawn")
    messages: Queue[tuple[Any, ...]] = context.Queue(QUEUED)
    left: Left = context.SimpleQueue()
    task = Task(settings, plan, folder.path, partitions, left, messages)
    children = [
        context.Process(target=_child, args=(task,), daemon=True) for _ in range(min(plan.processes, partitions))
    ]
    for item in (*order, *(None for _ in children)):
        left.put(item)
    for child in children:
        child.start()
    try:
        return await asyncio.to_thread(_collect, children, messages, plan, runs, partitions, tell)
    finally:
        for child in children:
            child.terminate()
            child.join(10)


def _collect(
    children: Sequence[Any],
    messages: "Queue[tuple[Any, ...]]",
    plan: ReplayPlan,
    runs: ClickHouseRuns,
    partitions: int,
    tell: Tell,
) -> Summary:
    """Inserts what the processes find, in this one: the embedded engine is held by one process."""
    began, rows = time.monotonic(), 0
    starts: dict[int, Start] = {}
    totals: dict[int, int] = {}
    events: dict[int, int] = {}
    done: dict[int, Done] = {}
    while len(done) < partitions:
        try:
            kind, partition, *rest = messages.get(timeout=1.0)
        except queue.Empty:
            dead = [child for child in children if child.exitcode not in (None, 0)]
            if dead and messages.empty():
                raise CampaignStreamsError(
                    f"a process of the replay ended with {dead[0].exitcode}; --resume {plan.run} goes on"
                ) from None
            continue
        if kind == "rows":
            runs.insert(plan.run, Table(rest[0]), rest[1])
            rows += len(rest[1])
        elif kind == "failed":
            raise CampaignStreamsError(str(rest[0]))
        elif kind == "began":
            starts[partition], totals[partition] = rest
        elif kind == "done":
            done[partition] = rest[0]
            events[partition] = totals[partition] = rest[0].events
        else:
            events[partition] = rest[0]
        tell(Progress(sum(events.values()), sum(totals.values()), time.monotonic() - began))
    firsts = [each.first_ms for each in done.values() if each.first_ms >= 0]
    return Summary(
        events=sum(events.values()),
        seconds=time.monotonic() - began,
        rows=rows,
        lost=sum(each.lost for each in done.values()),
        read_from_ms=reach_back(list(starts.values()), min(firsts, default=0)),
        starts=tuple(starts[partition] for partition in sorted(starts)),
    )


async def _largest_first(history: History, partitions: int) -> list[int]:
    """Partitions by what their inputs hold: who takes the small ones last lets nobody wait long."""
    sizes = dict.fromkeys(range(partitions), 0)
    for partition in sizes:
        for topic in INPUT_TOPICS.values():
            span = await history.span(topic, partition)
            sizes[partition] += span.next - span.first
    return sorted(sizes, key=lambda partition: (-sizes[partition], partition))


class Task(NamedTuple):
    """What a process of the replay is told."""

    settings: Settings
    plan: ReplayPlan
    path: Path
    partitions: int
    left: Left
    """Partitions that nobody has taken yet; None: go home."""
    messages: "Queue[tuple[Any, ...]]"


def _child(task: Task) -> None:
    """A process of the replay."""
    collect_rarely()
    try:
        asyncio.run(_replay_share(task))
    except CampaignStreamsError as error:
        task.messages.put(("failed", -1, str(error)))


async def _replay_share(task: Task) -> None:
    async with sources_of(task.settings, task.plan) as sources:
        worker = Worker(sources, ReplayFolder(task.path.parent.parent, task.path.name), task.plan, task.messages.put)
        while (partition := task.left.get()) is not None:
            await worker.run(partition, task.partitions, task.settings.worker.log_epoch)


def info_of(plan: ReplayPlan, kind: str, state: str, created_ms: int, summary: Summary | None = None) -> RunInfo:
    """What is told of a run."""
    return RunInfo(
        run=plan.run,
        kind=kind,
        state=state,
        from_s=plan.wanted.from_ms // 1000,
        to_s=plan.wanted.to_ms // 1000,
        campaigns=plan.campaigns,
        read_from_s=summary.read_from_ms // 1000 if summary else 0,
        records=summary.events if summary else 0,
        lost=summary.lost if summary else 0,
        created_s=created_ms // 1000,
        changed_ms=time.time_ns() // 1_000_000,
    )
