"""Replays: historical topics through the same pure stages along the same journal, into rows of a run's own.

It reads by an assignment of its own, in no group, and commits nothing; alerts, controls and webhooks are computed and
not sent. Partitions are independent, so several processes share them. Whoever stops it may let it go on (`resume`).
"""

import asyncio
import contextlib
import multiprocessing
import queue
import time
from collections.abc import AsyncIterator, Callable, Sequence
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, Final, NamedTuple

from streams.adapters.clickhouse_runs import ClickHouseRuns, RunInfo
from streams.adapters.kafka_history import KafkaHistory
from streams.errors import CampaignStreamsError, ConfigurationError
from streams.jobs.replay_partition import PartitionReplay, Range, Recorded, fresh_state, recorded_ticks
from streams.jobs.replay_progress import ReplayFolder, Saved
from streams.jobs.replay_what_if import Change, what_if
from streams.ports import History
from streams.records import Row, Table
from streams.settings import Settings
from streams.topics import JOURNAL

SAVE_EVERY_S: Final = 30.0
"""An interrupted replay repeats at most so much work."""
TELL_EVERY_S: Final = 0.5
QUEUED: Final = 64
"""Messages of the processes that wait; beyond it they wait themselves."""


class ReplayPlan(NamedTuple):
    """What is asked for."""

    run: str
    wanted: Range
    processes: int = 1
    resume: bool = False
    campaigns: tuple[str, ...] = ()
    archives: tuple[Path, ...] = ()
    """Directories to read from instead of the topics."""


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
    read_from_ms: int


Tell = Callable[[Progress], None]


@contextlib.asynccontextmanager
async def history_of(settings: Settings, plan: ReplayPlan) -> AsyncIterator[History]:
    """What the plan reads from: archives, or the topics.

    Raises:
        ConfigurationError: an archive cannot be read.
    """
    if plan.archives:
        from streams.adapters.archive_history import ArchiveHistory

        yield ArchiveHistory(*plan.archives)
        return
    history = KafkaHistory(settings.kafka)
    try:
        yield history
    finally:
        await history.stop()


async def survey(history: History, wanted: Range) -> dict[int, Recorded]:
    """The journals, cut where no pane of the range can change any more.

    Raises:
        ConfigurationError: there is no journal, or nothing happened in the range.
    """
    partitions = await history.partitions(JOURNAL)
    found = {partition: await recorded_ticks(history, partition) for partition in range(partitions)}
    if not any(recorded.ticks for recorded in found.values()):
        raise ConfigurationError("the journal is empty: no worker has run yet, so there is nothing to replay")
    first_ms = min(recorded.ticks[0].tick.wall_ms for recorded in found.values() if recorded.ticks)
    if wanted.from_ms > time.time() * 1000:
        raise ConfigurationError("--from lies in the future; give a time that has passed")
    if wanted.to_ms <= first_ms - 366 * 86_400_000:
        raise ConfigurationError("--to lies over a year before the journal begins; nothing is known of that time")
    return found


def total_events(recorded: dict[int, Recorded]) -> int:
    """Offsets that the ticks have applied, over all topics: what a progress bar counts up to."""
    total = 0
    for each in recorded.values():
        if each.ticks:
            applied = each.ticks[-1].tick.applied
            total += sum(max(0, end - each.starts.get(topic, 0)) for topic, end in applied.items())
    return total


class Worker:
    """Replays some partitions, one after the other. `put` takes messages: ("rows" | "events" | "done", …)."""

    def __init__(
        self, history: History, folder: ReplayFolder, plan: ReplayPlan, put: Callable[[tuple[Any, ...]], Any]
    ) -> None:
        self.history = history
        self.folder = folder
        self.plan = plan
        self.put = put

    async def run(self, partition: int, partitions: int, log_epoch: int) -> None:
        """One partition, from where it was left or from its beginning."""
        recorded = await recorded_ticks(self.history, partition)
        state = fresh_state(partition, partitions, log_epoch, recorded)
        saved = self.folder.load(state) if self.plan.resume else None
        if saved is not None and saved.is_done:
            self.put(("done", partition, saved.events, 0))
            return
        behind = saved.journal_offset if saved else -1
        ticks = [each for each in recorded.ticks if each.offset > behind]

        async def emit(table: Table, rows: Sequence[Row]) -> None:
            await asyncio.to_thread(self.put, ("rows", partition, table.value, rows))

        replay = PartitionReplay(self.history, state, self.plan.wanted, emit)
        replay.events = saved.events if saved else 0
        told = kept = time.monotonic()
        async for place in replay.run(ticks):
            now = time.monotonic()
            if now - told > TELL_EVERY_S:
                self.put(("events", partition, place.events))
                told = now
                if replay.is_beyond:
                    break
            if now - kept > SAVE_EVERY_S:
                await replay.flush()
                self.folder.save(state, Saved(place.journal_offset, place.events, False))
                kept = time.monotonic()
        await replay.flush()
        self.folder.save(state, Saved(0, replay.events, True))
        lost = sum(held.ledger.get(("lost_retention", ""), 0) for held in state.inputs.values())
        self.put(("done", partition, replay.events, lost))


async def replay(settings: Settings, plan: ReplayPlan, runs: ClickHouseRuns, tell: Tell) -> Summary:
    """Replays the whole range into the run's rows.

    Raises:
        CampaignStreamsError: it cannot be done; the message says what to do.
    """
    async with history_of(settings, plan) as history:
        recorded = await survey(history, plan.wanted)
    partitions, total = len(recorded), total_events(recorded)
    folder = ReplayFolder(settings.worker.state_dir, plan.run)
    messages: Queue[tuple[Any, ...]] = multiprocessing.get_context("spawn").Queue(QUEUED)
    shares = [list(range(partitions))[n :: plan.processes] for n in range(min(plan.processes, partitions))]
    children = [
        multiprocessing.get_context("spawn").Process(
            target=_child, args=(settings, plan, folder.path, share, partitions, messages), daemon=True
        )
        for share in shares
    ]
    for child in children:
        child.start()
    try:
        return await asyncio.to_thread(_collect, children, messages, plan, runs, total, partitions, tell)
    finally:
        for child in children:
            child.terminate()
            child.join(10)


async def replay_changed(
    settings: Settings, plan: ReplayPlan, change: Change, runs: ClickHouseRuns, tell: Tell
) -> Summary:
    """The same under other rules or settings: all partitions in this process, for evidence crosses them.

    Raises:
        CampaignStreamsError: it cannot be done; the message says what to do.
    """
    began, rows, events = time.monotonic(), 0, 0

    async def emit(table: Table, found: Sequence[Row]) -> None:
        nonlocal rows
        rows += len(found)
        await asyncio.to_thread(runs.insert, plan.run, table, list(found))

    async with history_of(settings, plan) as history:
        recorded = await survey(history, plan.wanted)
        total = total_events(recorded)
        steps = what_if(history, recorded, settings.worker.log_epoch, change, plan.wanted, emit)
        async with contextlib.aclosing(steps):
            async for events in steps:
                tell(Progress(events, total, time.monotonic() - began))
    return Summary(events, time.monotonic() - began, rows, 0, 0)


def _collect(
    children: Sequence[Any],
    messages: "Queue[tuple[Any, ...]]",
    plan: ReplayPlan,
    runs: ClickHouseRuns,
    total: int,
    partitions: int,
    tell: Tell,
) -> Summary:
    """Inserts what the processes find, in this one: the embedded engine is held by one process."""
    began, rows, lost = time.monotonic(), 0, 0
    events: dict[int, int] = {}
    done: set[int] = set()
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
        else:
            events[partition] = rest[0]
            if kind == "done":
                done.add(partition)
                lost += rest[1]
            tell(Progress(sum(events.values()), total, time.monotonic() - began))
    return Summary(sum(events.values()), time.monotonic() - began, rows, lost, 0)


def _child(
    settings: Settings,
    plan: ReplayPlan,
    path: Path,
    share: list[int],
    partitions: int,
    messages: "Queue[tuple[Any, ...]]",
) -> None:
    """A process of the replay."""
    try:
        asyncio.run(_replay_share(settings, plan, path, share, partitions, messages))
    except CampaignStreamsError as error:
        messages.put(("failed", -1, str(error)))


async def _replay_share(
    settings: Settings,
    plan: ReplayPlan,
    path: Path,
    share: list[int],
    partitions: int,
    messages: "Queue[tuple[Any, ...]]",
) -> None:
    async with history_of(settings, plan) as history:
        worker = Worker(history, ReplayFolder(path.parent.parent, path.name), plan, messages.put)
        for partition in share:
            await worker.run(partition, partitions, settings.worker.log_epoch)


def info_of(plan: ReplayPlan, kind: str, state: str, created_ms: int, summary: Summary | None = None) -> RunInfo:
    """What is told of a run."""
    return RunInfo(
        run=plan.run,
        kind=kind,
        state=state,
        from_s=plan.wanted.from_ms // 1000,
        to_s=plan.wanted.to_ms // 1000,
        campaigns=plan.campaigns,
        records=summary.events if summary else 0,
        lost=summary.lost if summary else 0,
        created_s=created_ms // 1000,
        changed_ms=time.time_ns() // 1_000_000,
    )
