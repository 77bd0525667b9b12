"""A what-if in several processes: each has some of the lanes, all make the same step at the same time.

Between steps this process collects what the lanes tell each other and hands it on (letters), inserts rows, and now
and then lets everybody keep where it stands, all at one step: so it can be interrupted, and taken up by any number of
processes.
"""

import asyncio
import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

import msgspec

from streams.adapters.clickhouse_runs import ClickHouseRuns
from streams.adapters.collector import collect_rarely
from streams.errors import CampaignStreamsError, CheckpointGone
from streams.jobs.replay import SAVE_EVERY_S, Progress, Summary, Tell
from streams.jobs.replay_journal import tick_at
from streams.jobs.replay_lanes import Lane, Letter
from streams.jobs.replay_plan import Outlook, ReplayPlan, Sources, check, outlook_from, sources_of
from streams.jobs.replay_progress import ReplayFolder
from streams.jobs.replay_start import Start, empty_state, first_event_ms, reach_back
from streams.jobs.replay_what_if import (
    Change,
    Course,
    Lanes,
    Origin,
    Pace,
    Stepped,
    choose,
    lane_of,
    letters_of,
    origins,
    reach_ms,
    state_of,
    told_before,
)
from streams.records import Row, Table
from streams.settings import Settings

TELL_EVERY_S: Final = 0.2
WAIT_S: Final = 1.0
STARTS: Final = 3
"""A live worker beside the run may delete a checkpoint between its choice and its reading: then another is chosen."""


class Kept(NamedTuple):
    """A step at which a run can be taken up."""

    generation: int
    pace: Pace
    origins: tuple[Origin, ...]


class _Task(NamedTuple):
    """What a process is given to begin with."""

    settings: Settings
    plan: ReplayPlan
    change: Change
    origins: tuple[Origin, ...]
    generation: int | None
    """The step to go on from; None: the beginning."""
    share: tuple[int, ...]


class _Finished(NamedTuple):
    lost: int
    first_ms: int


async def look_changed(settings: Settings, plan: ReplayPlan, change: Change) -> list[Outlook]:
    """What a what-if would read; no state is loaded for it.

    Raises:
        CampaignStreamsError: it cannot be done; the message says what to do.
    """
    async with sources_of(settings, plan) as sources:
        history, partitions = sources.history, await check(sources.history, plan.wanted)
        chosen = await choose(history, sources.reader, partitions, plan.wanted, reach_ms(change.rules))
        found = []
        for partition, mine in enumerate(chosen.by_partition):
            start, positions = Start(partition, remarks=tuple(mine.remarks)), dict[str, int]()
            if mine.found:
                start = chosen.remarks_of(mine.found[0].start._replace(remarks=start.remarks), plan.wanted)
                positions = mine.found[0].applied
            found.append(await outlook_from(history, start, positions, plan.wanted))
        return found


async def replay_changed(
    settings: Settings, plan: ReplayPlan, change: Change, runs: ClickHouseRuns, tell: Tell
) -> Summary:
    """A replay under other rules or settings.

    Raises:
        CampaignStreamsError: it cannot be done; the message says what to do.
    """
    for _ in range(STARTS - 1):
        with contextlib.suppress(CheckpointGone):
            return await _replay(settings, plan, change, runs, tell)
    return await _replay(settings, plan, change, runs, tell)


async def _replay(settings: Settings, plan: ReplayPlan, change: Change, runs: ClickHouseRuns, tell: Tell) -> Summary:
    folder = ReplayFolder(settings.worker.state_dir, plan.run)
    kept = _kept(folder) if plan.resume else None
    async with sources_of(settings, plan) as sources:
        partitions = await check(sources.history, plan.wanted)
        epoch = settings.worker.log_epoch
        found = kept.origins if kept else await _settled(sources, partitions, epoch, change, plan)
        total = sum([await _records(sources, origin, plan) for origin in found])
    shares = [tuple(range(partitions))[n :: plan.processes] for n in range(min(plan.processes, partitions))]
    generation = kept.generation if kept else None
    peers = [_Peer(_Task(settings, plan, change, tuple(found), generation, share)) for share in shares]
    before = kept.pace.events if kept else 0

    def told(events: int, began: float) -> None:
        tell(Progress(events, total, time.monotonic() - began, before))

    run = _Run(peers, folder, plan, runs, told)
    try:
        return await asyncio.to_thread(run.drive, tuple(found), kept)
    finally:
        for peer in peers:
            peer.close()


async def _settled(
    sources: Sources, partitions: int, epoch: int, change: Change, plan: ReplayPlan
) -> tuple[Origin, ...]:
    """Where the lanes begin, and what they have to read that has been removed."""
    settled = []
    for origin in await origins(sources.history, sources.reader, partitions, epoch, change, plan.wanted):
        outlook = await outlook_from(sources.history, origin.start, await _positions(sources, origin), plan.wanted)
        settled.append(origin._replace(start=outlook.start))
    return tuple(settled)


async def _positions(sources: Sources, origin: Origin) -> dict[str, int]:
    tick = await tick_at(sources.history, origin.start.partition, origin.anchor.offset)
    return tick.applied if tick else {}


async def _records(sources: Sources, origin: Origin, plan: ReplayPlan) -> int:
    return (await outlook_from(sources.history, origin.start, await _positions(sources, origin), plan.wanted)).records


def _kept(folder: ReplayFolder) -> Kept | None:
    committed = folder.committed()
    return msgspec.msgpack.decode(committed[1], type=Kept) if committed else None


class _Peer:
    """A process with some of the lanes."""

    def __init__(self, task: _Task) -> None:
        context = multiprocessing.get_context("spawn")
        self._mine, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(task, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, *question: Any) -> None:
        """Sends a question; the answer comes when it is there."""
        self._mine.send(question)

    def answer(self, take_rows: Callable[[Table, Sequence[Row]], None], wait: Callable[[], None]) -> Any:
        """The answer; rows that come before it are taken. Calls `wait` now and then while there is none."""
        while True:
            while not self._mine.poll(WAIT_S):
                wait()
            kind, *rest = self._mine.recv()
            if kind == "rows":
                take_rows(Table(rest[0]), rest[1])
            elif kind == "gone":
                raise CheckpointGone(rest[0])
            elif kind == "failed":
                raise CampaignStreamsError(rest[0])
            else:
                return rest[0]

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.join(10)


class _Run:
    """All processes together. Blocks: it belongs in a thread."""

    def __init__(
        self,
        peers: Sequence[_Peer],
        folder: ReplayFolder,
        plan: ReplayPlan,
        runs: ClickHouseRuns,
        tell: Callable[[int, float], None],
    ) -> None:
        self.peers = peers
        self.folder = folder
        self.plan = plan
        self.runs = runs
        self.tell = tell
        self.rows = 0
        self.events = 0
        self.began = 0.0

    def drive(self, found: tuple[Origin, ...], kept: Kept | None) -> Summary:
        """Steps until nothing is left."""
        pace, generation = (kept.pace, kept.generation) if kept else (Pace(), 0)
        self.began = told = saved = time.monotonic()
        self.events = before = pace.events
        letters: list[Letter] = []
        upcoming: list[int | None] = self._all("begin")
        self._tell()
        if kept is None:
            pace.begin(upcoming)
        while not pace.is_done:
            if time.monotonic() - saved > SAVE_EVERY_S:
                generation += 1
                self._all("save", generation, letters)
                self.folder.commit(generation, msgspec.msgpack.encode(Kept(generation, pace, found)))
                letters, saved = [], time.monotonic()
            steps: list[Stepped] = self._all("step", pace.now_ms, letters, not pace.has_begun)
            letters = letters_of(steps)
            pace.stepped(steps)
            self.events = pace.events
            if time.monotonic() - told > TELL_EVERY_S:
                self._tell()
                told = time.monotonic()
        ends: list[_Finished] = self._all("finish")
        self._tell()
        starts = tuple(each.start for each in found)
        firsts = [each.first_ms for each in ends if each.first_ms >= 0]
        read_from_ms = reach_back(starts, min(firsts, default=0))
        seconds, lost = time.monotonic() - self.began, sum(each.lost for each in ends)
        return Summary(pace.events, seconds, self.rows, lost, read_from_ms, starts, before)

    def _all(self, *question: Any) -> list[Any]:
        try:
            for peer in self.peers:
                peer.ask(*question)
            return [peer.answer(self._take_rows, self._tell) for peer in self.peers]
        except (EOFError, OSError):
            raise CampaignStreamsError(
                f"a process of the replay has ended; campaign-streams replay --resume {self.plan.run} goes on"
            ) from None

    def _tell(self) -> None:
        self.tell(self.events, self.began)

    def _take_rows(self, table: Table, rows: Sequence[Row]) -> None:
        self.runs.insert(self.plan.run, table, rows)
        self.rows += len(rows)


def _serve(task: _Task, connection: Connection) -> None:
    """A process: answers until it is ended. Ctrl-C reaches it too, but whoever began it ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    collect_rarely()
    try:
        asyncio.run(_answer(task, connection))
    except CheckpointGone as error:
        connection.send(("gone", str(error)))
    except CampaignStreamsError as error:
        connection.send(("failed", str(error)))
    except (EOFError, OSError):
        return


async def _answer(task: _Task, connection: Connection) -> None:
    folder = ReplayFolder(task.settings.worker.state_dir, task.plan.run)

    async def emit(table: Table, rows: Sequence[Row]) -> None:
        await asyncio.to_thread(connection.send, ("rows", table.value, rows))

    async with sources_of(task.settings, task.plan) as sources:
        lanes = Lanes(await _lanes(task, sources, folder, emit), task.change.rules)
        try:
            while True:
                kind, *rest = await asyncio.to_thread(connection.recv)
                answer = await _done(lanes, folder, kind, rest)
                await asyncio.to_thread(connection.send, ("answer", answer))
        finally:
            await lanes.close()


async def _done(lanes: Lanes, folder: ReplayFolder, kind: str, rest: list[Any]) -> Any:
    if kind == "step":
        now_ms, letters, is_first = rest
        return await lanes.step(now_ms, letters, is_first=is_first)
    if kind == "begin":
        return await lanes.upcoming_ms()
    await lanes.flush()
    if kind == "save":
        generation, letters = rest
        lanes.deliver(letters)
        for lane in lanes.lanes:
            folder.save_lane(generation, lane.state, lane.saved())
        return None
    firsts = [at for lane in lanes.lanes if (at := first_event_ms(lane.state)) >= 0]
    return _Finished(sum(lane.lost for lane in lanes.lanes), min(firsts, default=-1))


async def _lanes(task: _Task, sources: Sources, folder: ReplayFolder, emit: Any) -> list[Lane]:
    partitions, epoch = len(task.origins), task.settings.worker.log_epoch
    told = told_before([origin.start for origin in task.origins], epoch)
    course = Course(sources.history, task.change, task.plan.wanted, told, emit)
    found = []
    for partition in task.share:
        origin, state = task.origins[partition], empty_state(partition, partitions, epoch, task.change.rules)
        saved = None
        if task.generation is None:
            state = await state_of(sources.reader, origin, state)
        else:
            saved = folder.load_lane(task.generation, state)
        found.append(await lane_of(course, origin, state, saved))
    return found
