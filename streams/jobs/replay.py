"""Replays: historical topics through the same pure stages along the same journal, into rows of a run's own.

It reads by an assignment of its own, in no group, and commits nothing; alerts, controls and webhooks are computed and
not sent. Partitions are independent, so several processes share them. Whoever stops it may let it go on (`resume`).
"""

import asyncio
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.queues import SimpleQueue
from typing import Any, Final, NamedTuple

from streams.adapters.clickhouse_runs import ClickHouseRuns, RunInfo
from streams.adapters.collector import collect_rarely
from streams.errors import CampaignStreamsError
from streams.jobs.replay_journal import Anchor, prepare, recorded_behind, tick_at, ticks
from streams.jobs.replay_partition import PartitionReplay, Range
from streams.jobs.replay_plan import Outlook, ReplayPlan, Sources, check, expected, outlook, sources_of
from streams.jobs.replay_progress import ReplayFolder, Saved, encoded
from streams.jobs.replay_start import Start, begin, candidates, empty_state, first_event_ms, missing, reach_back
from streams.ports import History
from streams.records import Row, Table
from streams.settings import Settings
from streams.state.partition import PartitionState

SAVE_EVERY_S: Final = 30.0
"""An interrupted replay repeats at most so much work."""
TELL_EVERY_S: Final = 0.5
QUEUED: Final = 2
"""Messages of a process (of up to `FLUSH_AT` rows) that wait to be taken; beyond it the process waits itself.

So a process holds at most (1 + QUEUED) * FLUSH_AT rows, and those of one tick.
"""


class Progress(NamedTuple):
    """How far all partitions have come together."""

    events: int
    total: int
    seconds: float
    before: int = 0
    """Of the events: read before the run was interrupted."""

    @property
    def events_per_s(self) -> float:
        """Since this process began."""
        return (self.events - self.before) / self.seconds if self.seconds else 0.0


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
    before: int = 0
    """Of the events: read before the run was interrupted."""

    @property
    def events_per_s(self) -> float:
        """Since this process began."""
        return Progress(self.events, self.events, self.seconds, self.before).events_per_s


class Done(NamedTuple):
    """What one partition came to."""

    events: int
    lost: int
    first_ms: int
    """The oldest event time that its state knows of; -1: none."""


Tell = Callable[[Progress], None]
Message = tuple[Any, ...]
"""("began" | "rows" | "events" | "keep" | "done" | "failed", partition, …)."""
Put = Callable[[Message], Awaitable[None]]
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
    """Replays some partitions, one after the other. `put` takes messages, in order.

    What is to be kept for a resumption is a message itself, behind the rows that it takes for granted: whoever has
    inserted those writes it.
    """

    def __init__(
        self, sources: Sources, folder: ReplayFolder, plan: ReplayPlan, put: Put, save_every_s: float = SAVE_EVERY_S
    ) -> None:
        self.history: History = sources.history
        self.reader = sources.reader
        self.folder = folder
        self.plan = plan
        self.put = put
        self.save_every_s = save_every_s

    async def run(self, partition: int, partitions: int, log_epoch: int) -> None:
        """One partition, from where it was left, from a checkpoint, or from its beginning."""
        begun = await self._begun(empty_state(partition, partitions, log_epoch))
        state, saved = begun.state, begun.saved
        if saved is not None and saved.is_done:
            await self.put(("began", partition, begun.start, saved.events, saved.events))
            await self.put(("done", partition, Done(saved.events, saved.lost, saved.first_ms)))
            return
        recorded = await recorded_behind(self.history, partition, begun.behind)
        prepare(state, recorded)
        begun = begun._replace(start=await self._with_missing(begun, recorded.ends))
        replay = PartitionReplay(self.history, state, self.plan.wanted, self._emitting(partition))
        replay.events, replay.lost = (saved.events, saved.lost) if saved else (0, 0)
        total = await expected(self.history, partition, state.positions(), recorded.ends, self.plan.wanted.to_ms)
        await self.put(("began", partition, begun.start, replay.events + total, replay.events))
        told = kept = time.monotonic()
        async for place in replay.run(ticks(self.history, partition, recorded), recorded.ends):
            now = time.monotonic()
            if now - told > TELL_EVERY_S:
                await self.put(("events", partition, place.events))
                told = now
            if now - kept > self.save_every_s:
                await replay.flush()
                await self._keep(
                    state, Saved(place.journal_offset, place.events, False, tuple(begun.start), replay.lost)
                )
                kept = time.monotonic()
        done = Done(replay.events, replay.lost, first_event_ms(state))
        await self._keep(state, Saved(0, done.events, True, tuple(begun.start), done.lost, done.first_ms))
        await self.put(("done", partition, done))

    async def _keep(self, state: PartitionState, saved: Saved) -> None:
        await self.put(("keep", state.partition, encoded(state, saved)))

    def _emitting(self, partition: int) -> Any:
        async def emit(table: Table, rows: Sequence[Row]) -> None:
            await self.put(("rows", partition, table.value, rows))

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
        order = await largest_first(sources, partitions, plan.wanted)
    folder = ReplayFolder(settings.worker.state_dir, plan.run)
    context = multiprocessing.get_context("spawn")
    left: Left = context.SimpleQueue()
    task = Task(settings, plan, partitions, left, SAVE_EVERY_S)
    peers = [Peer(task) for _ in range(min(plan.processes, partitions))]
    for item in (*order, *(None for _ in peers)):
        left.put(item)
    collect_rarely()  # rows come as many small objects, and no cycles
    try:
        return await asyncio.to_thread(collect, peers, folder, plan, runs, partitions, tell)
    finally:
        for peer in peers:
            peer.close()


class Peer:
    """A process of the replay. Where it ends, and be it in the middle of a message, its connection tells."""

    def __init__(self, task: "Task") -> None:
        context = multiprocessing.get_context("spawn")
        self.messages, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_child, args=(task, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def take(self, run: str) -> Message | None:
        """The next message; None: it has gone home.

        Raises:
            CampaignStreamsError: it has ended otherwise.
        """
        try:
            message: Message = self.messages.recv()
        except (EOFError, OSError):
            self._process.join(10)
            if self._process.exitcode == 0:
                return None
            raise CampaignStreamsError(
                f"a process of the replay ended with {self._process.exitcode}; --resume {run} goes on"
            ) from None
        return message

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.join(10)


def collect(
    peers: Sequence[Peer], folder: ReplayFolder, plan: ReplayPlan, runs: ClickHouseRuns, partitions: int, tell: Tell
) -> Summary:
    """Inserts what the processes find, in this one: the embedded engine is held by one process.

    A process's messages come in order: what it wants to be kept is written when the rows before it are in.
    """
    began, rows = time.monotonic(), 0
    starts: dict[int, Start] = {}
    totals: dict[int, int] = {}
    events: dict[int, int] = {}
    before: dict[int, int] = {}
    done: dict[int, Done] = {}
    busy = list(peers)
    while len(done) < partitions:
        ready = set(wait([peer.messages for peer in busy], TELL_EVERY_S))
        for peer in [peer for peer in busy if peer.messages in ready]:
            message = peer.take(plan.run)
            if message is None:
                busy.remove(peer)
                continue
            kind, partition, *rest = message
            if kind == "rows":
                runs.insert(plan.run, Table(rest[0]), rest[1])
                rows += len(rest[1])
            elif kind == "keep":
                folder.keep(partition, rest[0])
            elif kind == "failed":
                raise CampaignStreamsError(str(rest[0]))
            elif kind == "began":
                starts[partition], totals[partition], before[partition] = rest
                events[partition] = before[partition]
            elif kind == "done":
                done[partition] = rest[0]
                events[partition] = totals[partition] = rest[0].events
            else:
                events[partition] = rest[0]
        read, total, already = (sum(each.values()) for each in (events, totals, before))
        tell(Progress(read, total, time.monotonic() - began, already))
    firsts = [each.first_ms for each in done.values() if each.first_ms >= 0]
    return Summary(
        events=sum(events.values()),
        seconds=time.monotonic() - began,
        rows=rows,
        lost=sum(each.lost for each in done.values()),
        read_from_ms=reach_back(list(starts.values()), min(firsts, default=0)),
        starts=tuple(starts[partition] for partition in sorted(starts)),
        before=sum(before.values()),
    )


async def largest_first(sources: Sources, partitions: int, wanted: Range) -> list[int]:
    """Partitions by what is to be read of each: who takes the small ones last lets nobody wait long."""
    sizes = [(await outlook(sources, partition, wanted)).records for partition in range(partitions)]
    return sorted(range(partitions), key=lambda partition: (-sizes[partition], partition))


class Task(NamedTuple):
    """What a process of the replay is told."""

    settings: Settings
    plan: ReplayPlan
    partitions: int
    left: Left
    """Partitions that nobody has taken yet; None: go home."""
    save_every_s: float


class Sending:
    """Messages on their way, in order, behind the computing: at most `QUEUED` wait to be taken."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._thread = ThreadPoolExecutor(1)
        self._sent: deque[Awaitable[None]] = deque()

    async def put(self, message: Message) -> None:
        """Sends it.

        Raises:
            OSError: nobody takes messages any more.
        """
        while len(self._sent) >= QUEUED:
            await self._sent.popleft()
        self._sent.append(asyncio.get_running_loop().run_in_executor(self._thread, self._connection.send, message))

    async def flush(self) -> None:
        """Waits until everything has been taken."""
        while self._sent:
            await self._sent.popleft()


def _child(task: Task, connection: Connection) -> None:
    """A process of the replay. Ctrl-C reaches it too, but whoever began it ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    collect_rarely()
    try:
        asyncio.run(_replay_share(task, connection))
    except BrokenPipeError:
        raise SystemExit(1) from None


async def _replay_share(task: Task, connection: Connection) -> None:
    sending, folder = Sending(connection), ReplayFolder(task.settings.worker.state_dir, task.plan.run)
    try:
        async with sources_of(task.settings, task.plan) as sources:
            worker = Worker(sources, folder, task.plan, sending.put, task.save_every_s)
            while (partition := task.left.get()) is not None:
                await worker.run(partition, task.partitions, task.settings.worker.log_epoch)
    except CampaignStreamsError as error:
        await sending.put(("failed", -1, str(error)))
    await sending.flush()


def info_of(
    plan: ReplayPlan, kind: str, state: str, created_ms: int, summary: Summary | None = None, note: str = ""
) -> RunInfo:
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
        note=note,
    )
