"""What-ifs under the rules as they were: low-rate records are in force where they were live, whatever their times."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from random import Random

import pytest

from streams.adapters.memory import MemoryHistory
from streams.invalid import InvalidRules, Mode, Rule
from streams.jobs.replay_journal import Anchor, recorded_behind, ticks
from streams.jobs.replay_lanes import Letter
from streams.jobs.replay_partition import Range
from streams.jobs.replay_progress import ReplayFolder
from streams.jobs.replay_start import Start, empty_state
from streams.jobs.replay_what_if import (
    Change,
    Course,
    Lanes,
    Origin,
    Pace,
    lane_of,
    letters_of,
    state_of,
    told_before,
    what_if,
)
from streams.records import COLUMNS, KEY_COLUMNS, Row, Table
from streams.rules import DAY_MS, Rules
from streams.state.checkpoint import decode_manifest
from streams.topics import ALLOWANCES, CAMPAIGNS, INPUT_TOPICS, SESSIONS, VERDICTS
from tests.support.events import (
    ALLOWANCES_TOPIC,
    EVENT_TOPICS,
    SESSIONS_TOPIC,
    SETTINGS_TOPIC,
    VERDICTS_TOPIC,
    Draft,
    Traffic,
    notice,
)
from tests.unit.test_replay_partition import EVER, Kept, Lived, changed, course_of, stepped

ACROSS = {rule: Mode.OFF for rule in Rule if "velocity" in rule or "fan_out" in rule or "publisher" in rule}
"""What they find goes over topics that nobody reads back here live."""
TOUCHED = {Rule.CLICK_TOO_SOON: Mode.ON, Rule.CLICK_WITHOUT_IMPRESSION: Mode.ON}
NOTICES = (SETTINGS_TOPIC, SESSIONS_TOPIC, ALLOWANCES_TOPIC, VERDICTS_TOPIC, VERDICTS_TOPIC)
LOADED_MS = 7 * DAY_MS


class Put(Lived):
    """Settings, sessions, allowances and reviews came while events were read, of the same time as those."""

    topics = (*EVENT_TOPICS, *EVENT_TOPICS, *NOTICES)
    rules = Rules(report_every_ms=1_000, invalid=InvalidRules(modes=ACROSS | TOUCHED))
    behind_ms = 0

    def _draft(self, rng: Random, traffic: Traffic, topic: str, partition: int) -> Draft:
        at_ms = traffic.start_ms + self.behind_ms + rng.randrange(100_000)
        if topic == SETTINGS_TOPIC:
            return traffic.settings(at_ms, partition, self.partitions)
        if topic == VERDICTS_TOPIC:
            return traffic.review(at_ms, partition)
        return notice(rng, topic, at_ms, rng.randrange(3)) if topic in NOTICES else traffic.draft(topic, partition)


class Loaded(Put):
    """The events were a week old when they were loaded, and everything else was put then."""

    behind_ms = LOADED_MS


KINDS = pytest.mark.parametrize("kind", [Put, Loaded])
Rows = Mapping[tuple[Table, Row], Row]


def figures(rows: Rows) -> dict[tuple[Row, str], int]:
    """Every measure by what it counts for and its origin pane, however it came about: money, validity, all."""
    columns = COLUMNS[Table.PANES]
    key = [columns.index(name) for name in (*_DECISION, "validity", "origin_pane")]
    left_out = {*KEY_COLUMNS[Table.PANES], "version", "rules", "rules_seq"}
    measures = [(name, at) for at, name in enumerate(columns) if name not in left_out]
    found: Counter[tuple[Row, str]] = Counter()
    for row in (row for (table, _), row in rows.items() if table is Table.PANES):
        for name, at in measures:
            found[tuple(row[place] for place in key), name] += row[at]
    return {place: count for place, count in found.items() if count}


_DECISION = ("campaign_id", "ad_unit_id", "creative_id", "variant", "currency")


def of_events(rows: Rows, from_ms: int) -> dict[tuple[Table, Row], Row]:
    """Rows of inputs in a range, without their version and what says by which rules."""
    wanted, left_out = Range(from_ms, EVER.to_ms), {"version", "rules", "rules_seq"}
    source, found = COLUMNS[Table.PANES].index("input"), dict[tuple[Table, Row], Row]()
    for (table, _), row in rows.items():
        if table is Table.PANES and row[source] != "journal" and wanted.holds(table, row):
            told = tuple(v for name, v in zip(COLUMNS[table], row, strict=True) if name not in left_out)
            places = [n for n, name in enumerate(KEY_COLUMNS[table]) if name not in left_out]
            found[table, tuple(row[n] for n in places)] = told
    return found


@KINDS
@pytest.mark.parametrize("seed", range(3))
async def test_under_the_same_rules_every_figure_is_the_live_one(kind: type[Put], seed: int) -> None:
    lived = kind(seed, partitions=2)
    found, live = figures((await changed(lived, lived.rules)).rows), figures(lived.live)
    assert found == live
    spent = [count for (_, name), count in live.items() if name == "spend_millimicros"]
    assert len(spent) > 20
    assert {place[-2] for place, _ in live} == {"valid", "givt", "sivt"}


@KINDS
@pytest.mark.parametrize("seq", [2, 7])
async def test_the_same_from_pinned_checkpoints(kind: type[Put], seq: int) -> None:
    lived = kind(3, partitions=2)
    manifests = [decode_manifest(lived.store.named[partition][f"c/{seq}"]) for partition in range(2)]
    pinned = [
        Origin(Start(p, f"c/{seq}", m.journal_offset, m.wall_ms, m.newest_ms), Anchor(m.journal_offset, "c", seq))
        for p, m in enumerate(manifests)
    ]
    from_ms = max(manifest.newest_ms for manifest in manifests) // 1000 * 1000 + 1000
    told, kept = told_before([each.start for each in pinned], 1), Kept()
    course = Course(MemoryHistory(lived.log), Change(lived.rules), Range(from_ms, EVER.to_ms), told, kept.emit)
    async for _ in what_if(course, lived.store, pinned, 1):
        pass
    assert of_events(kept.rows, from_ms) == of_events(lived.live, from_ms)
    assert len(of_events(kept.rows, from_ms)) > 20


@pytest.mark.parametrize("save_at", [1, 11])
async def test_where_it_is_taken_up_changes_nothing(tmp_path: Path, save_at: int) -> None:
    lived = Loaded(5, partitions=2)
    course, kept, found = await course_of(lived, lived.rules)
    await stepped(course, lived, found, ReplayFolder(tmp_path, "r"), save_at)
    assert figures(kept.rows) == figures(lived.live)


@KINDS
@pytest.mark.parametrize("removed", [0, 10_000])
async def test_each_is_in_force_no_later_than_live_and_not_before_what_live_had_read_by_then(
    kind: type[Put], removed: int
) -> None:
    """Of records that retention has removed nobody can say when they were read: they do not count."""
    lived = kind(4)
    lived.log.trim(EVENT_TOPICS[0], 0, removed)
    course, _, (origin,) = await course_of(lived, lived.rules)
    lane = await lane_of(course, origin, await state_of(None, origin, empty_state(0, 1, 1, lived.rules)))
    lanes, pace, letters = Lanes([lane], lived.rules), Pace(), list[Letter]()
    recorded = [tick.tick.applied async for tick in ticks(course.history, 0, await recorded_behind(course.history, 0))]
    pace.begin([await lanes.upcoming_ms()])
    seen = set()
    while not pace.is_done:
        step = await lanes.step(pace.now_ms, letters, is_first=not pace.has_begun)
        letters = letters_of([step])
        pace.stepped([step])
        at = lane.state.positions()
        seen.add(tuple(at[topic] for topic in (CAMPAIGNS, SESSIONS, ALLOWANCES, VERDICTS)))
        counting = INPUT_TOPICS.values() if not removed else [t for t in INPUT_TOPICS.values() if t != EVENT_TOPICS[0]]
        assert_in_place(at, recorded, lived, counting)
    assert len(seen) > 5
    assert at[VERDICTS] == reviews(lived, recorded[-1][VERDICTS]) > 5
    for topic in (*INPUT_TOPICS.values(), CAMPAIGNS, SESSIONS, ALLOWANCES):
        assert at[topic] == recorded[-1][topic] > 0
    await lanes.close()


def assert_in_place(
    at: Mapping[str, int], recorded: Sequence[Mapping[str, int]], lived: Lived, inputs: Iterable[str]
) -> None:
    """Behind a step's tick: what low-rate inputs were read up to, beside the recorded ticks that events have passed."""
    passed = [tick for tick in recorded if any(at[topic] > tick[topic] for topic in inputs)]
    reached = [tick for tick in recorded if all(at[topic] >= tick[topic] for topic in inputs)]
    for topic in (CAMPAIGNS, SESSIONS, ALLOWANCES):
        assert at[topic] == max(tick[topic] for tick in [*passed, *reached])
    assert at[VERDICTS] == max(reviews(lived, tick[VERDICTS]) for tick in reached)


def reviews(lived: Lived, up_to: int) -> int:
    """How many of the recorded words people said; a what-if of these rules adds none."""
    return sum(b'"perhaps"' not in (r.value or b"") for r in lived.log.read(VERDICTS, 0, 0) if r.offset < up_to)
