"""Replays over logs in memory: along the journal, cut anywhere, resumed anywhere; and in steps of their own."""

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from random import Random

import msgspec
import pytest

from streams.adapters.memory import MemoryCheckpointStore, MemoryHistory, MemoryLog, MemoryRecord
from streams.errors import CampaignStreamsError, ConfigurationError
from streams.events import Input
from streams.invalid import InvalidRules, Mode, Rule
from streams.jobs.replay_journal import Anchor, prepare, recorded_behind, ticks
from streams.jobs.replay_notices import OwnLog
from streams.jobs.replay_partition import PartitionReplay, Place, Range
from streams.jobs.replay_progress import ReplayFolder, Saved, encoded
from streams.jobs.replay_start import Candidates, Start, begin, candidates, empty_state, missing
from streams.jobs.replay_what_if import (
    Change,
    Course,
    Lanes,
    Origin,
    Pace,
    lane_of,
    letters_of,
    origins,
    reach_ms,
    state_of,
    told_before,
    what_if,
)
from streams.ports import Batch
from streams.records import COLUMNS, KEY_COLUMNS, Row, Table
from streams.rules import DAY_MS, DEFAULT_HORIZONS, Horizon, Rules
from streams.state.checkpoint import (
    FORMAT,
    Manifest,
    SegmentRef,
    capture,
    checksum_of,
    decode_manifest,
    encode_manifest,
)
from streams.state.journal import Claim, Tick, encode
from streams.state.partition import TOPICS, PartitionState
from streams.topics import JOURNAL
from tests.support.events import EVENT_TOPICS, SETTINGS_TOPIC, Draft, Mix, Traffic

EVER = Range(0, 4_000_000_000_000)
RULES = Rules(report_every_ms=1_000)


class Lived:
    """Logs of some partitions with a journal behind them, and the rows that were published live."""

    topics: tuple[str, ...] = (*EVENT_TOPICS, *EVENT_TOPICS, SETTINGS_TOPIC)
    rules = RULES

    def __init__(self, seed: int, partitions: int = 1) -> None:
        self.log = MemoryLog()
        self.store = MemoryCheckpointStore()
        """A checkpoint of every tick."""
        self.live: dict[tuple[Table, Row], Row] = {}
        self.partitions = partitions
        for partition in range(partitions):
            self._live_through(Random(f"{seed} {partition}"), partition)

    def _append(self, topic: str, partition: int, value: bytes | None, at_ms: int, key: bytes | None = None) -> None:
        self.log.append(topic, partition, value, key=key, timestamp_ms=at_ms)

    def _draft(self, rng: Random, traffic: Traffic, topic: str, partition: int) -> Draft:
        if topic == SETTINGS_TOPIC:
            return traffic.settings(traffic.start_ms, partition, self.partitions)
        return traffic.draft(topic, partition)

    def _live_through(self, rng: Random, partition: int) -> None:
        traffic = Traffic(rng, Mix(campaigns=3))
        state = PartitionState(partition, self.partitions, 1, self.rules)
        starts = dict.fromkeys(TOPICS, 0)
        state.begin_at(starts)
        self._append(JOURNAL, partition, encode(Claim("c", "w", 0, starts)), 0)
        for seq in range(1, 12):
            for _ in range(25 if seq > 1 else 0):  # before the first tick nobody reads an event
                topic = rng.choice(self.topics)
                draft = self._draft(rng, traffic, topic, partition)
                self._append(topic, partition, draft.value, draft.timestamp, draft.key)
            for topic in TOPICS:
                begin, end = state.position(topic), self.log.end(topic, partition)
                if begin < end:
                    state.apply(_batch(self.log, topic, partition, begin, end))
            tick = Tick("c", seq, seq * 1_000, state.positions(), rules=self.rules if seq == 1 else None)
            self._append(JOURNAL, partition, encode(tick), tick.wall_ms)
            version = (1 << 48) + self.log.end(JOURNAL, partition)
            output = state.tick(tick)
            self._keep(state, tick.wall_ms)
            for table, rows in output.rows.items():
                width = len(KEY_COLUMNS[table])
                self.live.update({(table, row[:width]): (*row, version) for row in rows})

    def _keep(self, state: PartitionState, wall_ms: int) -> None:
        partition, taken, refs = state.partition, capture(state, (), {}, wall_ms), {}
        for name, data in taken.changed.items():
            key = f"c/{state.seq}/{name}"
            self.store.data[partition, key] = data
            refs[name] = SegmentRef(key, str(len(data)), len(data), checksum_of(data))
        at = self.log.end(JOURNAL, partition) - 1
        manifest = Manifest(FORMAT, "c", state.seq, at, refs, {}, wall_ms, state.newest_ms())
        self.store.named[partition][f"c/{state.seq}"] = encode_manifest(manifest)


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
    folder.keep(0, encoded(first.state, Saved(last.journal_offset, last.events, False, tuple(start))))
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


# Pinned checkpoints


def in_range(rows: dict[tuple[Table, Row], Row], from_ms: int) -> dict[tuple[Table, Row], Row]:
    wanted = Range(from_ms, EVER.to_ms)
    return {key: row for key, row in of_runs(rows).items() if wanted.holds(key[0], row)}


@pytest.mark.parametrize("seed", range(4))
async def test_whichever_checkpoint_it_starts_from_the_rows_behind_it_are_the_live_ones(seed: int) -> None:
    lived = Lived(seed)
    history = MemoryHistory(lived.log)
    chosen = await candidates(history, lived.store, 0, EVER.to_ms)
    assert len(chosen.found) == 11
    lengths = []
    for candidate in chosen.found:
        from_ms = candidate.start.newest_ms // 1000 * 1000 + 1000
        kept = Kept()
        state, start = await begin(history, lived.store, empty_state(0, 1, 1), Candidates([candidate], []))
        assert start.checkpoint == candidate.start.checkpoint
        await followed(history, state, kept, Range(from_ms, EVER.to_ms), candidate.anchor)
        assert kept.rows == in_range(lived.live, from_ms)
        lengths.append(len(kept.rows))
    assert max(lengths) > 100
    assert sorted(lengths) == lengths  # the newest comes first, and gives the least


async def test_the_newest_checkpoint_from_before_the_range_is_chosen() -> None:
    lived = Lived(2)
    history = MemoryHistory(lived.log)
    reached = [decode_manifest(data).newest_ms for data in lived.store.named[0].values()]
    for at in (0, 4, 10):
        start = (await candidates(history, lived.store, 0, reached[at] + 1)).found[0].start
        newest = max(seq for seq, newest_ms in enumerate(reached, 1) if newest_ms <= reached[at])
        assert (start.checkpoint, start.newest_ms) == (f"c/{newest}", reached[at])
    at_all = await candidates(history, lived.store, 0, -1)
    assert at_all.found == []
    state, start = await begin(history, lived.store, empty_state(0, 1, 1), at_all)
    assert (state.seq, start.checkpoint) == (0, "")


async def test_a_checkpoint_that_cannot_be_used_is_told_and_an_earlier_one_is() -> None:
    lived = Lived(2)
    history, named = MemoryHistory(lived.log), lived.store.named[0]
    named["c/11"] = encode_manifest(msgspec.structs.replace(decode_manifest(named["c/11"]), format=FORMAT + 1))
    named["c/10"] = named["c/10"][:-1]
    del lived.store.data[0, "c/9/windows"]
    named["c/8"] = encode_manifest(msgspec.structs.replace(decode_manifest(named["c/8"]), claim_id="another"))
    chosen = await candidates(history, lived.store, 0, EVER.to_ms)
    state, start = await begin(history, lived.store, empty_state(0, 1, 1), chosen)
    assert (state.seq, start.checkpoint) == (7, "c/7")
    told = " ".join(start.remarks)
    assert f"c/11 is of format {FORMAT + 1}, and this version reads {FORMAT}" in told
    assert "c/10: a manifest fails its checksum" in told
    assert "c/9: segment c/9/windows is missing" in told
    assert "c/8: the journal does not hold its tick" in told


async def test_what_retention_has_removed_is_told() -> None:
    lived = Lived(1)
    history = MemoryHistory(lived.log)
    lived.log.trim(JOURNAL, 0, 5)
    chosen = await candidates(history, lived.store, 0, EVER.to_ms)
    assert [each.start.checkpoint for each in chosen.found][-1] == "c/5"
    assert "c/4: the journal does not hold its tick" in " ".join(chosen.remarks)
    oldest = chosen.found[-1]
    assert await missing(history, 0, oldest.applied, oldest.applied) == ()
    topic = EVENT_TOPICS[0]
    lived.log.trim(topic, 0, oldest.applied[topic] + 3)
    ends = {topic: lived.log.end(topic, 0)}
    assert await missing(history, 0, oldest.applied, ends) == ((topic, 3),)
    nothing = await candidates(history, lived.store, 0, -1)
    with pytest.raises(CampaignStreamsError, match="its beginning has been removed"):
        await begin(history, lived.store, empty_state(0, 1, 1), nothing)


async def test_a_replay_leaves_off_when_no_pane_of_its_range_can_change() -> None:
    lived = Lived(3)
    effect = COLUMNS[Table.PANES].index("effect_pane")
    panes = sorted({row[effect] for (table, _), row in lived.live.items() if table is Table.PANES})
    wanted = Range(0, panes[len(panes) // 4] * 1000)
    kept = Kept()
    places = await followed(MemoryHistory(lived.log), empty_state(0, 1, 1), kept, wanted)
    assert len(places) < 11
    live = {key: row for key, row in of_panes(lived.live).items() if wanted.holds(key[0], row)}
    assert of_panes(kept.rows) == live


# What-ifs


async def course_of(
    lived: Lived, rules: Rules, wanted: Range = EVER, chunk: int = 1_000
) -> tuple[Course, Kept, list[Origin]]:
    history, kept, change = MemoryHistory(lived.log, chunk), Kept(), Change(rules)
    reader = None if wanted == EVER else lived.store
    found = await origins(history, reader, lived.partitions, 1, change, wanted)
    told = told_before([each.start for each in found], 1)
    return Course(history, change, wanted, told, kept.emit), kept, found


async def changed(lived: Lived, rules: Rules, chunk: int = 1_000) -> Kept:
    course, kept, found = await course_of(lived, rules, chunk=chunk)
    async for _ in what_if(course, None, found, 1):
        pass
    return kept


async def stepped(course: Course, lived: Lived, found: Sequence[Origin], folder: ReplayFolder, save_at: int) -> None:
    """Two groups of lanes that exchange letters; at one step they are saved, thrown away and loaded."""
    count, rules = len(found), course.change.rules

    async def groups(generation: int | None) -> list[Lanes]:
        made = []
        for partition, origin in enumerate(found):
            state = empty_state(partition, count, 1, rules)
            saved = folder.load_lane(generation, state) if generation else None
            state = state if saved else await state_of(lived.store, origin, state)
            made.append(Lanes([await lane_of(course, origin, state, saved)], rules))
        return made

    lanes, pace, letters, made = await groups(None), Pace(), [], 0
    pace.begin([await each.upcoming_ms() for each in lanes])
    while not pace.is_done:
        steps = [await each.step(pace.now_ms, letters, is_first=not pace.has_begun) for each in lanes]
        letters, made = letters_of(steps), made + 1
        pace.stepped(steps)
        if made == save_at:
            for each in lanes:
                each.deliver(letters)
                await each.flush()
                folder.save_lane(made, each.lanes[0].state, each.lanes[0].saved())
                await each.close()
            folder.commit(made, msgspec.msgpack.encode(pace))
            letters, lanes = [], await groups(made)
            committed = folder.committed()
            assert committed is not None
            assert msgspec.msgpack.decode(committed[1], type=Pace) == pace
    for each in lanes:
        await each.flush()
        await each.close()


@pytest.mark.parametrize("save_at", [1, 3, 20])
async def test_whoever_has_which_partition_and_wherever_it_is_taken_up_a_what_if_is_the_same(
    tmp_path: Path, save_at: int
) -> None:
    lived = Lived(5, partitions=2)
    whole = await changed(lived, RULES)
    course, kept, found = await course_of(lived, RULES)
    await stepped(course, lived, found, ReplayFolder(tmp_path, "r"), save_at)
    assert kept.rows == whole.rows


async def test_a_what_if_begins_at_checkpoints_as_far_back_as_its_rules_look() -> None:
    """Those of the same rules give what the whole history gives, in every pane of the range."""
    lived = Lived(5, partitions=2)
    manifests = [decode_manifest(data) for named in lived.store.named.values() for data in named.values()]
    newest = max(manifest.newest_ms for manifest in manifests if manifest.seq == 8)
    wanted = Range((newest + reach_ms(RULES)) // 1000 * 1000 + 1000, EVER.to_ms)
    course, _, found = await course_of(lived, RULES, wanted)
    assert [each.start.checkpoint for each in found] != ["", ""]
    assert all(each.start.newest_ms < wanted.from_ms - reach_ms(RULES) for each in found)
    near = Range(newest // 1000 * 1000 + 1000, EVER.to_ms)
    pinned = [
        Origin(Start(p, "c/8", m.journal_offset, m.wall_ms, m.newest_ms), Anchor(m.journal_offset, "c", 8))
        for p, m in enumerate(m for m in manifests if m.seq == 8)
    ]
    kept = Kept()
    told = told_before([each.start for each in pinned], 1)
    async for _ in what_if(Course(course.history, course.change, near, told, kept.emit), lived.store, pinned, 1):
        pass
    whole, begun = await course_of(lived, RULES, EVER), Kept()
    async for _ in what_if(whole[0]._replace(wanted=near, emit=begun.emit), None, whole[2], 1):
        pass
    assert own_panes(kept.rows) == own_panes(begun.rows)
    assert len(own_panes(kept.rows)) > 20


def own_panes(rows: dict[tuple[Table, Row], Row]) -> dict[tuple[Table, Row], Row]:
    """Rows of panes without their version."""
    return {key: row[:-1] for key, row in of_panes(rows).items()}


async def test_where_nothing_lies_far_enough_back_the_journal_is_begun_or_it_is_told() -> None:
    lived = Lived(5, partitions=2)
    newest = max(decode_manifest(data).newest_ms for named in lived.store.named.values() for data in named.values())
    wanted = Range(newest + 1, EVER.to_ms)
    _, _, found = await course_of(lived, RULES, wanted)
    assert [(each.start.checkpoint, each.start.newest_ms) for each in found] == [("c/1", -1), ("c/1", -1)]
    for named in lived.store.named.values():
        del named["c/1"]
    _, _, found = await course_of(lived, RULES, wanted)
    assert [each.start.checkpoint for each in found] == ["", ""]
    for partition in range(2):
        lived.log.trim(JOURNAL, partition, 4)
    _, _, found = await course_of(lived, RULES, wanted)
    assert [each.start.checkpoint for each in found] == ["c/4", "c/4"]
    assert all("as far as the rules look back" in each.start.remarks[-1] for each in found)


async def test_ids_that_are_remembered_for_longer_are_read_again() -> None:
    lived = Lived(5, partitions=1)
    newest = max(decode_manifest(data).newest_ms for data in lived.store.named[0].values())
    longer = Rules(report_every_ms=1_000, horizons=DEFAULT_HORIZONS | {Input.CLICKS: Horizon(DAY_MS, 9 * DAY_MS)})
    wanted = Range(newest + reach_ms(RULES) + 1, EVER.to_ms)
    assert [each.start.checkpoint for each in (await course_of(lived, RULES, wanted))[2]] == ["c/11"]
    assert [each.start.checkpoint for each in (await course_of(lived, longer, wanted))[2]] == ["c/1"]
    wanted = Range(newest + 9 * DAY_MS + 1, EVER.to_ms)
    assert [each.start.checkpoint for each in (await course_of(lived, longer, wanted))[2]] == ["c/11"]


def test_what_is_told_in_a_run_does_not_wait_for_what_is_recorded_later() -> None:
    log = OwnLog(7, [MemoryRecord(3, 9_000, b"k", b"review")], [(1_000, None, b"verdict")])
    assert (log.take_recorded(3), log.take_told(1_000)) == ([], [])
    assert [(record.offset, record.value) for record in log.take_told(5_000)] == [(7, b"verdict")]
    assert [(record.offset, record.value) for record in log.take_recorded(4)] == [(8, b"review")]
    assert log.snapshot() == (9, 4, [])


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
