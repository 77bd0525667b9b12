"""Where a what-if leaves off: when no lane can change a pane of the range any more, and not before."""

import pytest

from streams.adapters.memory import MemoryHistory
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
from tests.unit.test_replay_partition import EVER, RULES, Kept, Lived, of_panes


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
