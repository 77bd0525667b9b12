"""Replays that end anywhere and go on: what is kept for that never runs ahead of the rows that have been taken."""

from collections.abc import Sequence
from multiprocessing import Pipe
from pathlib import Path

import pytest

from streams.adapters.memory import MemoryHistory
from streams.errors import CampaignStreamsError
from streams.jobs.replay import Message, Progress, Worker, collect
from streams.jobs.replay_plan import ReplayPlan, Sources
from streams.jobs.replay_progress import ReplayFolder
from streams.records import Row, Table
from tests.unit.test_replay_partition import EVER, Kept, Lived, of_runs

PLAN = ReplayPlan("r", EVER)


async def messages_of(lived: Lived, folder: ReplayFolder, plan: ReplayPlan) -> list[Message]:
    """What a process tells that keeps every tick."""
    told: list[Message] = []

    async def put(message: Message) -> None:
        told.append(message)

    worker = Worker(Sources(MemoryHistory(lived.log), None), folder, plan, put, save_every_s=0.0)
    await worker.run(0, 1, 1)
    return told


async def take(messages: Sequence[Message], folder: ReplayFolder, kept: Kept) -> None:
    """What `collect` does with them."""
    for kind, partition, *rest in messages:
        if kind == "rows":
            await kept.emit(Table(rest[0]), rest[1])
        elif kind == "keep":
            folder.keep(partition, rest[0])


async def test_a_process_itself_keeps_nothing(tmp_path: Path) -> None:
    folder = ReplayFolder(tmp_path, "r")
    told = await messages_of(Lived(3), folder, PLAN)
    assert [message[0] for message in told].count("keep") > 5
    assert not folder.path.exists()


async def test_whichever_message_is_the_last_that_is_taken_no_row_is_lost(tmp_path: Path) -> None:
    lived = Lived(3)
    told = await messages_of(lived, ReplayFolder(tmp_path, "whole"), PLAN)
    for taken in range(len(told) + 1):
        folder, kept = ReplayFolder(tmp_path, f"r{taken}"), Kept()
        await take(told[:taken], folder, kept)
        rest = await messages_of(lived, folder, PLAN._replace(resume=True))
        await take(rest, folder, kept)
        assert kept.rows == of_runs(lived.live)
        assert rest[-1] == told[-1]


class Peer:
    """A process that has told all this, and has ended."""

    def __init__(self, told: Sequence[Message], error: str = "") -> None:
        self.messages, theirs = Pipe(duplex=False)
        self._told, self._error = list(told), error
        theirs.close()

    def take(self, run: str) -> Message | None:
        if not self._told and self._error:
            raise CampaignStreamsError(self._error)
        return self._told.pop(0) if self._told else None


class Runs:
    """ClickHouse, as far as rows go: it has an outage after some inserts."""

    def __init__(self, inserts: int) -> None:
        self.left = inserts

    def insert(self, run: str, table: Table, rows: Sequence[Row]) -> None:
        if self.left == 0:
            raise CampaignStreamsError("ClickHouse does not answer")
        self.left -= 1


async def test_what_a_process_wants_to_be_kept_is_written_when_the_rows_before_it_are_in(tmp_path: Path) -> None:
    told = await messages_of(Lived(3), ReplayFolder(tmp_path, "whole"), PLAN)
    places = [n for n, message in enumerate(told) if message[0] == "rows"]
    assert len(places) > 5
    for inserts, place in enumerate(places):
        folder, runs, peers = ReplayFolder(tmp_path, f"r{inserts}"), Runs(inserts), [Peer(told)]
        with pytest.raises(CampaignStreamsError, match="does not answer"):
            collect(peers, folder, PLAN, runs, 1, lambda progress: None)  # type: ignore[arg-type]
        behind = [message[2] for message in told[:place] if message[0] == "keep"]
        assert [file.read_bytes() for file in folder.path.glob("*")] == behind[-1:]


async def test_whoever_looks_whether_the_run_is_still_its_own_looks_before_any_row(tmp_path: Path) -> None:
    told = await messages_of(Lived(3), ReplayFolder(tmp_path, "whole"), PLAN)
    runs, peers, looked = Runs(99), [Peer(told)], list[int]()

    def taken(progress: Progress) -> None:
        looked.append(runs.left)
        raise CampaignStreamsError("taken")

    with pytest.raises(CampaignStreamsError, match="taken"):
        collect(peers, ReplayFolder(tmp_path, "r"), PLAN, runs, 1, taken)  # type: ignore[arg-type]
    assert looked == [99]


async def test_a_process_that_ends_before_its_work_is_done_is_told(tmp_path: Path) -> None:
    told = await messages_of(Lived(3), ReplayFolder(tmp_path, "whole"), PLAN)
    peers = [Peer(told[:3], "it ended with -9"), Peer([])]
    with pytest.raises(CampaignStreamsError, match="ended with -9"):
        collect(peers, ReplayFolder(tmp_path, "r"), PLAN, Runs(99), 1, lambda progress: None)  # type: ignore[arg-type]
