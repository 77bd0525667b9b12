"""Replays over logs in memory: along the journal, cut anywhere, resumed anywhere; and in steps of their own."""

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from random import Random

import pytest

from streams.adapters.memory import MemoryHistory, MemoryLog
from streams.errors import CampaignStreamsError, ConfigurationError
from streams.invalid import InvalidRules, Mode, Rule
from streams.jobs.replay_journal import Anchor, prepare, recorded_behind, ticks
from streams.jobs.replay_partition import PartitionReplay, Place, Range
from streams.jobs.replay_progress import ReplayFolder, Saved
from streams.jobs.replay_start import Start, empty_state
from streams.jobs.replay_what_if import Change, Course, origins, told_before, what_if
from streams.ports import Batch
from streams.records import COLUMNS, KEY_COLUMNS, Row, Table
from streams.rules import Rules
from streams.state.journal import Claim, Tick, encode
from streams.state.partition import TOPICS, PartitionState
from streams.topics import JOURNAL
from tests.support.events import EVENT_TOPICS, SETTINGS_TOPIC, Mix, Traffic

EVER = Range(0, 4_000_000_000_000)
RULES = Rules(report_every_ms=1_000)


class Lived:
    """Logs of one partition with a journal behind them, and the rows that were published live."""

    def __init__(self, seed: int, partitions: int = 1) -> None:
        self.log = MemoryLog()
        self.live: dict[tuple[Table, Row], Row] = {}
        self.partitions = partitions
        for partition in range(partitions):
            self._live_through(Random(f"{seed} {partition}"), partition)

    def _append(self, topic: str, partition: int, value: bytes | None, at_ms: int, key: bytes | None = None) -> None:
        self.log.append(topic, partition, value, key=key, timestamp_ms=at_ms)

    def _live_through(self, rng: Random, partition: int) -> None:
        traffic = Traffic(rng, Mix(campaigns=3))
        state = PartitionState(partition, self.partitions, 1, RULES)
        starts = dict.fromkeys(TOPICS, 0)
        state.begin_at(starts)
        self._append(JOURNAL, partition, encode(Claim("c", "w", 0, starts)), 0)
        for seq in range(1, 12):
            for _ in range(25 if seq > 1 else 0):  # before the first tick nobody reads an event
                topic = rng.choice([*EVENT_TOPICS, *EVENT_TOPICS, SETTINGS_TOPIC])
                if topic == SETTINGS_TOPIC:
                    draft = traffic.settings(traffic.start_ms, partition, self.partitions)
                else:
                    draft = traffic.draft(topic, partition)
                self._append(topic, partition, draft.value, draft.timestamp, draft.key)
            for topic in TOPICS:
                begin, end = state.position(topic), self.log.end(topic, partition)
                if begin < end:
                    state.apply(_batch(self.log, topic, partition, begin, end))
            tick = Tick("c", seq, seq * 1_000, state.positions(), rules=RULES if seq == 1 else None)
            self._append(JOURNAL, partition, encode(tick), tick.wall_ms)
            version = (1 << 48) + self.log.end(JOURNAL, partition)
            for table, rows in state.tick(tick).rows.items():
                width = len(KEY_COLUMNS[table])
                self.live.update({(table, row[:width]): (*row, version) for row in rows})


def _batch(log: MemoryLog, topic: str, partition: int, begin: int, end: int) -> Batch:
    return Batch(topic, partition, begin, end, list(log.read(topic, partition, begin, end - begin)))


class Kept:
    """The rows that a replay gives out."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Table, Row], Row] = {}

    async def emit(self, table: Table, rows: Sequence[Row]) -> None:
        width = len(KEY_COLUMNS[table])
        for row in rows:
            assert len(row) == len(COLUMNS[table])
            known = self.rows.get((table, row[:width]))
            assert known is None or known[-1] <= row[-1]
            self.rows[table, row[:width]] = row


def of_runs(rows: dict[tuple[Table, Row], Row]) -> dict[tuple[Table, Row], Row]:
    return {key: row for key, row in rows.items() if key[0] not in (Table.LEDGER, Table.CAMPAIGNS)}


def of_panes(rows: dict[tuple[Table, Row], Row]) -> dict[tuple[Table, Row], Row]:
    """Rows whose key names their pane: the others may come again later."""
    return {key: row for key, row in rows.items() if key[0] in (Table.PANES, Table.REPORTS, Table.COHORTS)}


async def replayed(lived: Lived, wanted: Range = EVER, chunk: int = 7) -> Kept:
    history, kept = MemoryHistory(lived.log, chunk), Kept()
    places = await followed(history, empty_state(0, 1, 1), kept, wanted)
    assert wanted != EVER or [place.journal_offset for place in places] == list(range(1, lived.log.end(JOURNAL, 0)))
    return kept


async def followed(
    history: MemoryHistory, state: PartitionState, kept: Kept, wanted: Range = EVER, behind: Anchor | None = None
) -> list[Place]:
    recorded = await recorded_behind(history, 0, behind or Anchor())
    prepare(state, recorded)
    replay = PartitionReplay(history, state, wanted, kept.emit)
    return [place async for place in replay.run(ticks(history, 0, recorded), recorded.ends)]


@pytest.mark.parametrize("seed", range(8))
async def test_a_replay_gives_the_live_rows_however_ranges_are_cut(seed: int) -> None:
    lived = Lived(seed)
    for chunk in (1, 5, 1_000):
        assert (await replayed(lived, chunk=chunk)).rows == of_runs(lived.live)
    assert any(table is Table.PANES for table, _ in lived.live)


async def test_only_rows_of_the_range_are_kept() -> None:
    lived = Lived(1)
    effect = COLUMNS[Table.PANES].index("effect_pane")
    panes = sorted({row[effect] for (table, _), row in lived.live.items() if table is Table.PANES})
    middle = panes[len(panes) // 2]
    before, after = Range(0, middle * 1000), Range(middle * 1000, EVER.to_ms)
    one, two = [of_panes((await replayed(lived, wanted)).rows) for wanted in (before, after)]
    assert one.keys().isdisjoint(two)
    assert one | two == of_panes(lived.live)
    assert {row[effect] for (table, _), row in one.items() if table is Table.PANES} == {p for p in panes if p < middle}


@pytest.mark.parametrize("stop", [1, 4, 9])
async def test_an_interrupted_replay_goes_on_where_it_was_kept(tmp_path: Path, stop: int) -> None:
    lived, kept = Lived(3), Kept()
    history, folder = MemoryHistory(lived.log), ReplayFolder(tmp_path, "r")
    state, recorded = empty_state(0, 1, 1), await recorded_behind(history, 0)
    prepare(state, recorded)
    first = PartitionReplay(history, state, EVER, kept.emit)
    async with aclosing(first.run(ticks(history, 0, recorded), recorded.ends)) as places:
        async for last in places:
            if last.journal_offset == stop:
                break
    await first.flush()
    start = Start(0, remarks=("told",))
    folder.save(first.state, Saved(last.journal_offset, last.events, False, tuple(start)))
    state = empty_state(0, 1, 1)
    saved = folder.load(state)
    assert saved is not None
    assert Start(*saved.start)[:5] == start[:5]
    await followed(history, state, kept, behind=Anchor(saved.journal_offset, "c", state.seq))
    assert kept.rows == of_runs(lived.live)


async def test_a_journal_without_its_beginning_is_refused() -> None:
    lived = Lived(1)
    lived.log.trim(JOURNAL, 0, 3)
    with pytest.raises(CampaignStreamsError, match="its beginning has been removed"):
        await recorded_behind(MemoryHistory(lived.log), 0)


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 65, ".hidden"])
def test_names_of_runs_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="is no name"):
        ReplayFolder(tmp_path, name)


async def changed(lived: Lived, rules: Rules, chunk: int = 1_000) -> Kept:
    history, kept, change = MemoryHistory(lived.log, chunk), Kept(), Change(rules)
    found = await origins(history, None, lived.partitions, 1, change, EVER)
    course = Course(history, change, EVER, told_before([each.start for each in found], 1), kept.emit)
    async for _ in what_if(course, None, found, 1):
        pass
    return kept


def gross(rows: dict[tuple[Table, Row], Row], measure: str) -> int:
    at = COLUMNS[Table.PANES].index(measure)
    return sum(row[at] for (table, _), row in rows.items() if table is Table.PANES)


async def test_a_what_if_is_the_same_again_and_counts_everything_once() -> None:
    lived = Lived(5, partitions=2)
    one, two = await changed(lived, RULES), await changed(lived, RULES, chunk=3)
    assert one.rows == two.rows
    for measure in ("impressions", "clicks", "conversions", "judged", "duplicates"):
        assert gross(one.rows, measure) == gross(lived.live, measure)


async def test_what_a_rule_changes_is_what_it_flags() -> None:
    lived = Lived(6)
    modes = {Rule.PREFETCH: Mode.ON}
    strict = await changed(lived, Rules(report_every_ms=1_000, invalid=InvalidRules(modes=modes)))
    lax = await changed(lived, Rules(report_every_ms=1_000, invalid=InvalidRules(modes=dict.fromkeys(modes, Mode.OFF))))
    at, validity = (COLUMNS[Table.PANES].index(name) for name in ("impressions", "validity"))

    def valid(rows: dict[tuple[Table, Row], Row]) -> int:
        panes = [row for (table, _), row in rows.items() if table is Table.PANES]
        return sum(row[at] for row in panes if row[validity] == "valid")

    rule, event = (COLUMNS[Table.FLAGS].index(name) for name in ("rule", "event"))
    flags = [row for (table, _), row in strict.rows.items() if table is Table.FLAGS]
    others = {row[event] for row in flags if row[rule] != "prefetch"}
    alone = [row for row in flags if row[rule] == "prefetch" and row[event] not in others]
    assert valid(lax.rows) - valid(strict.rows) == len(alone) > 0
