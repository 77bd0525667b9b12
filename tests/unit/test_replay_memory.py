"""What a replay holds at most: rows that wait, messages on their way, and what is said of it."""

import asyncio
from multiprocessing import Pipe
from pathlib import Path

import pytest

from streams.adapters.memory import MemoryHistory
from streams.commands.replay import replay
from streams.jobs import replay_what_if
from streams.jobs.replay import QUEUED, Sending
from streams.jobs.replay_lanes import Letter
from streams.jobs.replay_partition import FLUSH_AT
from streams.jobs.replay_start import Start, empty_state
from streams.jobs.replay_what_if import Change, Course, Lanes, Origin, Pace, lane_of, letters_of, told_before
from tests.unit.test_replay_partition import EVER, RULES, Kept, Lived

MESSAGE = b"x" * 1_000_000
"""More than a pipe takes by itself."""


async def test_a_process_waits_when_its_messages_are_not_taken() -> None:
    mine, theirs = Pipe(duplex=False)
    sending = Sending(theirs)
    for n in range(QUEUED):
        await asyncio.wait_for(sending.put(("rows", n, MESSAGE)), 5)
    third = asyncio.create_task(sending.put(("rows", QUEUED, MESSAGE)))
    await asyncio.sleep(0.1)
    assert not third.done()
    assert (await asyncio.to_thread(mine.recv))[1] == 0
    await asyncio.wait_for(third, 5)
    assert [(await asyncio.to_thread(mine.recv))[1] for _ in range(QUEUED)] == [*range(1, QUEUED + 1)]
    await asyncio.wait_for(sending.flush(), 5)


async def test_a_process_ends_when_nobody_takes_its_messages_any_more() -> None:
    mine, theirs = Pipe(duplex=False)
    sending = Sending(theirs)
    await sending.put(("rows", 0, MESSAGE))
    mine.close()
    with pytest.raises(BrokenPipeError):
        await asyncio.wait_for(sending.flush(), 5)


async def test_the_lanes_of_a_process_share_the_bound_of_rows_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_what_if, "FLUSH_AT", 100)
    lived, kept, origins = Lived(5, 3), Kept(), [Origin(Start(partition)) for partition in range(3)]
    course = Course(MemoryHistory(lived.log), Change(RULES), EVER, told_before([], 1), kept.emit)
    lanes = Lanes([await lane_of(course, each, empty_state(n, 3, 1, RULES)) for n, each in enumerate(origins)], RULES)
    pace, waited = Pace(), list[int]()
    letters = list[Letter]()
    pace.begin([await lanes.upcoming_ms()])
    while not pace.is_done:
        step = await lanes.step(pace.now_ms, letters, is_first=not pace.has_begun)
        letters = letters_of([step])
        pace.stepped([step])
        waited.append(sum(len(lane.replay.rows) for lane in lanes.lanes))
    assert 50 < max(waited) <= 100
    assert len(kept.rows) > 300
    await lanes.close()


def test_the_bound_is_stated_where_people_look() -> None:
    stated = f"at most {(1 + QUEUED) * FLUSH_AT:,} rows"
    readme = Path(__file__).parents[2] / "README.md"
    for text in (replay.__doc__ or "", readme.read_text()):
        assert stated in " ".join(text.split())
