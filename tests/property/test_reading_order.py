"""How reads interleave, how batches are cut and when ticks fold changes nothing."""

from collections import Counter
from operator import add
from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from streams.records import COLUMNS, MEASURES, Entry, Row, Table
from streams.state.effects import JOURNAL_INPUT
from streams.state.partition import INPUT_OF
from tests.property.histories import (
    BOUNDED,
    ends,
    final_rows,
    history,
    new_state,
    patient,
    read,
    reloaded,
    run,
    seeds,
    small_rules,
    stops,
    tick_at,
)
from tests.sim.checks import portrait
from tests.sim.plan import LATENESS_MS
from tests.support.events import Draft, Mix


@given(seeds, seeds, seeds)
@BOUNDED
def test_how_batches_are_cut_and_interleaved_changes_no_row(seed: int, one: int, other: int) -> None:
    logs, rules = history(seed), small_rules(seed)
    at = stops(logs, 4, Random(seed))
    first_state, first_rows = run(logs, rules, at, Random(one), most=5)
    second_state, second_rows = run(logs, rules, at, Random(other), most=1000)
    assert sorted(map(repr, first_rows)) == sorted(map(repr, second_rows))
    assert portrait(first_state) == portrait(second_state)


@given(seeds, seeds)
@BOUNDED
def test_when_ticks_fold_changes_no_final_row(seed: int, other: int) -> None:
    """Also under small key limits: which keys are admitted does not depend on ticks."""
    logs, rules = history(seed), small_rules(seed)
    _, often = run(logs, rules, stops(logs, 25, Random(other)), Random(other), most=7)
    _, once = run(logs, rules, [ends(logs)], Random(other))
    assert _of_events(final_rows(often)) == _of_events(final_rows(once))


DECIDED_AT_TICKS = (Table.CAMPAIGNS, Table.PACING, Table.ALERTS, Table.FLAGS, Table.RISKS)
"""Rows of when somebody looked; so are all rows of the journal (credits)."""


def _of_events(rows: dict[tuple[Table, Row], Row]) -> dict[tuple[Table, Row], Row]:
    return {key: row for key, row in rows.items() if key[0] not in DECIDED_AT_TICKS and JOURNAL_INPUT not in key[1]}


@given(seeds, seeds)
@BOUNDED
def test_a_restored_state_goes_on_like_the_one_it_was_taken_from(seed: int, other: int) -> None:
    logs, rules, rng = history(seed), small_rules(seed), Random(other)
    half, *rest = stops(logs, 2, rng)
    state = new_state(logs, rules)
    read(state, logs, half, rng)
    tick_at(state, wall_ms=1_100)
    restored = reloaded(state)
    assert portrait(restored) == portrait(state)
    for number, targets in enumerate(rest):
        rows = []
        for each in (state, restored):
            read(each, logs, targets, Random(number))
            rows.append(final_rows(tick_at(each, wall_ms=3_000 + number * 4_000)))
        assert rows[0] == rows[1]
    assert portrait(restored) == portrait(state)


@given(seeds)
@BOUNDED
def test_the_ledger_balances_whatever_comes(seed: int) -> None:
    logs = history(seed, mix=Mix(garbage=0.4, late=0.2, future=0.2, duplicate=0.3))
    state, _ = run(logs, small_rules(seed), [ends(logs)], Random(seed))
    for topic, source in INPUT_OF.items():
        held = state.inputs[source]
        assert sum(held.ledger.values()) == held.consumed() == logs[topic].end - logs[topic].start
        assert held.ledger.get((Entry.NO_RECORD.value, ""), 0) == held.consumed() - len(logs[topic].records)
    for notice in state.notices.values():
        assert sum(notice.ledger.values()) == notice.consumed()


@given(seeds, seeds)
@BOUNDED
def test_a_redelivery_changes_nothing_but_the_duplicates(seed: int, other: int) -> None:
    """The last records of every log stand in it again, all within the horizon."""
    calm = Mix(garbage=0.0, late=0.0, future=0.0, ahead=0.0, duplicate=0.0, step_ms=200)
    logs, rules = history(seed, 90, calm, settings_first=0), patient(small_rules(seed))
    state = new_state(logs, rules)
    read(state, logs, ends(logs), Random(other))
    rows = final_rows(tick_at(state, wall_ms=10**6))
    before = {topic: dict(state.inputs[source].ledger) for topic, source in INPUT_OF.items()}
    again = {topic: logs[topic].records[-8:] for topic in INPUT_OF}
    for topic, records in again.items():
        for record in records:
            logs[topic].append(Draft(record.timestamp, record.key, record.value))
    read(state, logs, ends(logs), Random(other))
    for topic, source in INPUT_OF.items():
        grown = Counter(state.inputs[source].ledger) - Counter(before[topic])
        rejected = sum(count for (entry, _), count in grown.items() if entry == Entry.REJECTED.value)
        assert set(grown) <= {("duplicate", ""), ("rejected", "money_without_currency")}
        assert grown["duplicate", ""] + rejected == len(again[topic])
    assert _sums(rows | final_rows(tick_at(state, wall_ms=2 * 10**6))) == _sums(rows)


def _sums(rows: dict[tuple[Table, Row], Row]) -> dict[Row, Row]:
    """Measures but `duplicates`, by key without the effect pane; those that are not all zero."""
    columns = COLUMNS[Table.PANES]
    effect, first = columns.index("effect_pane"), columns.index(MEASURES[0])
    skipped = MEASURES.index("duplicates")
    sums: dict[Row, Row] = {}
    for (table, key), row in rows.items():
        if table is Table.PANES:
            measures = [v for at, v in enumerate(row[first : first + len(MEASURES)]) if at != skipped]
            place = key[:effect] + key[effect + 1 :]
            sums[place] = tuple(map(add, sums.get(place, (0,) * len(measures)), measures))
    return {key: row for key, row in sums.items() if any(row)}


@given(seeds, seeds, st.sampled_from([500, 5_000, 30_000]))
@BOUNDED
def test_how_reads_interleave_changes_no_final_flag(seed: int, other: int, step_ms: int) -> None:
    """Whichever input is read first, and whenever a tick looks: in the end the same flags stand, and the same sums.

    Though the logs be many horizons long. But no words of people, who may speak before an event; and no id comes again.
    """
    calm = Mix(garbage=0.0, late=0.1, future=0.0, ahead=0.0, duplicate=0.0, step_ms=step_ms, lateness_ms=LATENESS_MS)
    logs, rules = history(seed, 200, calm), small_rules(seed)
    rules = msgspec.structs.replace(rules, max_pane_keys=50_000)  # which keys of effects are admitted depends on ticks
    found = []
    for count, most in ((0, 1000), (30, 7)):
        rng = Random(other + count)
        _, rows = run(logs, rules, stops(logs, count, rng), rng, most)
        final = final_rows(rows)
        found.append((_standing(final), _by_validity(final)))
    assert found[0] == found[1]


def _standing(rows: dict[tuple[Table, Row], Row]) -> dict[Row, str]:
    """Flags that were not withdrawn: who waits longer need not take a word back."""
    state = COLUMNS[Table.FLAGS].index("state")
    flags = {key: row[state] for (table, key), row in rows.items() if table is Table.FLAGS}
    return {key: state for key, state in flags.items() if state != "withdrawn"}


def _by_validity(rows: dict[tuple[Table, Row], Row]) -> dict[Row, Row]:
    """Sums over inputs and effect panes."""
    columns = COLUMNS[Table.PANES]
    skipped = {"input", "effect_pane"}
    first = columns.index(MEASURES[0])
    kept = [at for at, name in enumerate(columns[:first]) if name not in skipped]
    credited = first + MEASURES.index("credited_millimicros")
    found: dict[Row, Row] = {}
    for (table, key), row in rows.items():
        if table is Table.PANES:
            measures = [v for at, v in enumerate(row[first : first + len(MEASURES)], first) if at != credited]
            place = tuple(key[at] for at in kept)
            found[place] = tuple(map(add, found.get(place, (0,) * len(measures)), measures))
    return {key: row for key, row in found.items() if any(row)}
