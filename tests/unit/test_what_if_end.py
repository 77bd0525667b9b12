"""Where a what-if leaves off: when no lane can change a pane of the range any more, and not before."""

import pytest

from streams.adapters.memory import MemoryHistory, MemoryLog
from streams.jobs.replay_lanes import TimedCursor
from streams.jobs.replay_notices import ALL_READ
from streams.jobs.replay_partition import Range
from streams.jobs.replay_start import Start, empty_state
from streams.jobs.replay_what_if import (
    SETTLING_STEPS,
    Change,
    Course,
    Lanes,
    Origin,
    Pace,
    Stepped,
    lane_of,
    reach_ms,
    told_before,
    what_if,
)
from streams.records import COLUMNS, Row, Table
from streams.rules import HOUR_MS
from tests.support.events import EVENT_TOPICS
from tests.unit.test_replay_partition import EVER, RULES, Kept, Lived, gross, of_panes


def course_of(lived: Lived, wanted: Range, kept: Kept) -> tuple[Course, list[Origin]]:
    found = [Origin(Start(partition)) for partition in range(lived.partitions)]
    told = told_before([origin.start for origin in found], 1)
    return Course(MemoryHistory(lived.log), Change(RULES), wanted, told, kept.emit), found


async def run(lived: Lived, wanted: Range) -> tuple[int, dict[tuple[Table, Row], Row]]:
    """How many records a what-if reads, and its rows."""
    kept = Kept()
    course, found = course_of(lived, wanted, kept)
    events = [read async for read in what_if(course, None, found, 1)]
    return events[-1], of_panes(kept.rows)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_what_lies_behind_the_range_is_not_read_and_no_row_of_it_is_missing(partitions: int) -> None:
    lived = Lived(5, partitions)
    effect = COLUMNS[Table.PANES].index("effect_pane")
    panes = sorted({row[effect] for (table, _), row in lived.live.items() if table is Table.PANES})
    wanted = Range(0, panes[len(panes) // 4] * 1000)
    (everything, whole), (events, rows) = await run(lived, EVER), await run(lived, wanted)
    assert rows == {key: row for key, row in whole.items() if wanted.holds(key[0], row)}
    assert len(rows) > 20
    assert events < 0.75 * everything


@pytest.mark.parametrize(("begin_h", "waits"), [(-1, True), (1, False)])
async def test_a_lane_that_has_read_everything_in_the_range_waits_for_what_others_may_tell_of_it(
    begin_h: int, waits: bool
) -> None:
    lived = Lived(5)
    effect = COLUMNS[Table.PANES].index("effect_pane")
    newest_ms = max(row[effect] for (table, _), row in lived.live.items() if table is Table.PANES) * 1000
    wanted = Range(newest_ms + begin_h * HOUR_MS, newest_ms + 2 * HOUR_MS)
    course, (origin,) = course_of(lived, wanted, Kept())
    lanes = Lanes([await lane_of(course, origin, empty_state(0, 1, 1, RULES))], RULES)
    await lanes.step(0, [], is_first=True)
    assert not await lanes.is_beyond(wanted.to_ms + reach_ms(RULES))  # there is much to read
    await lanes.step(newest_ms + HOUR_MS, [])
    assert await lanes.upcoming_ms() is None
    assert await lanes.is_beyond(wanted.to_ms) is not waits
    assert await lanes.is_beyond(wanted.to_ms + reach_ms(RULES))
    await lanes.close()


@pytest.mark.parametrize("removed", [3, 10, 1_000])
async def test_what_retention_has_removed_of_an_input_is_passed_and_told(removed: int) -> None:
    lived, topic = Lived(4), EVENT_TOPICS[0]
    held = lived.log.read(topic, 0, 0)
    lived.log.trim(topic, 0, removed)
    kept = Kept()
    course, (origin,) = course_of(lived, EVER, kept)
    lane = await lane_of(course, origin, empty_state(0, 1, 1, RULES))
    lanes, pace = Lanes([lane], RULES), Pace()
    pace.begin([await lanes.upcoming_ms()])
    while not pace.is_done:
        pace.stepped([await lanes.step(pace.now_ms, [], is_first=not pace.has_begun)])
    await lanes.flush()
    await lanes.close()
    assert lane.lost == min(removed, len(held))
    assert lane.state.position(topic) == len(held)
    assert gross(kept.rows, "impressions") < gross(lived.live, "impressions")
    assert gross(kept.rows, "clicks") == gross(lived.live, "clicks") > 0


async def test_a_cursor_gives_every_offset_once_whether_it_holds_a_record_or_not() -> None:
    log = MemoryLog()
    for at_ms in (1_000, 2_000, 9_000):
        log.append("t", 0, b"", timestamp_ms=at_ms)
        log.skip("t", 0, 2)
    log.trim("t", 0, 1)
    cursor = TimedCursor(MemoryHistory(log, 1), "t", 0, 0, log.end("t", 0))
    found = [
        [batch async for batch in cursor.before(at_ms, below)] for at_ms, below in ((5_000, 3), (5_000, 9), (9_001, 9))
    ]
    spans = [(b.from_offset, b.to_offset, len(b.records), b.is_lost) for part in found for b in part]
    assert [span[0] for span in spans] == [0, *(span[1] for span in spans[:-1])]
    assert spans[-1][1] == 9
    assert [(sum(len(b.records) for b in part), sum(b.is_lost for b in part)) for part in found] == [
        (0, 1),
        (1, 0),
        (1, 0),
    ]
    assert (await cursor.head(), await cursor.next_ms()) == (ALL_READ, None)
    await cursor.close()


def test_it_settles_when_every_process_is_beyond_the_range() -> None:
    beyond, within = Stepped(1, 9_000, [], is_beyond=True), Stepped(1, 9_000, [], is_beyond=False)
    pace = Pace(has_begun=True)
    for _ in range(2 * SETTLING_STEPS):
        pace.stepped([beyond, within])
    assert not pace.is_done
    for _ in range(SETTLING_STEPS):
        assert not pace.is_done
        pace.stepped([beyond, beyond])
    assert pace.is_done
