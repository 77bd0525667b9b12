"""Duplicate, late or counted: by event id and event time, each judged in offset order."""

import pytest

from streams.events import Input
from streams.state import dedupe
from tests.unit.given import DAY, HOUR, MINUTE, T0, Document, Fed, document, nonzero, quick_rules, record, with_horizon

SOURCE = Input.IMPRESSIONS
LATENESS = 10 * MINUTE


def impression(event_id: str, at_ms: int = T0) -> Document:
    return document(SOURCE, event_id, at_ms)


# Duplicates


def test_the_first_in_the_log_counts_whatever_the_others_say() -> None:
    first, second = document(SOURCE, "e", viewable=False), document(SOURCE, "e", T0 + 5_000, viewable=True)
    fed = Fed().feed(SOURCE, first, second)
    fed.tick()
    assert nonzero(fed.one()) == {"impressions": 1, "measured_impressions": 1, "duplicates": 1}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_repetition_is_one_whichever_batch_it_comes_in(size: int) -> None:
    events = [impression(name) for name in "abacabb"]
    fed = Fed()
    for at in range(0, len(events), size):
        fed.feed(SOURCE, *events[at : at + size])
    assert fed.ledger(SOURCE) == {"counted": 3, "duplicate": 4}


def test_a_repetition_after_a_tick_is_one_still() -> None:
    fed = Fed().feed(SOURCE, impression("e"))
    fed.tick()
    fed.feed(SOURCE, impression("e"))
    assert fed.ledger(SOURCE) == {"counted": 1, "duplicate": 1}


def test_a_repetition_of_a_packed_id_is_one_still() -> None:
    fed = Fed().feed(SOURCE, *(impression(f"e{n}") for n in range(300)))
    index = fed.state.inputs[SOURCE].dedupe
    index.pack(T0)
    assert not index.fresh
    assert len(index.runs) == 1
    fed.feed(SOURCE, *(impression(f"e{n}") for n in range(250, 350)))
    assert fed.ledger(SOURCE) == {"counted": 350, "duplicate": 50}


def test_ids_are_found_in_every_run_and_after_runs_were_merged() -> None:
    fed = Fed()
    index = fed.state.inputs[SOURCE].dedupe
    for start in range(0, 600, 100):
        fed.feed(SOURCE, *(impression(f"e{n}") for n in range(start, start + 100)))
        index.pack(T0)
    assert sum(len(run.high) for run in index.runs) == 600
    assert len(index.runs) < 6
    fed.feed(SOURCE, *(impression(f"e{n}") for n in range(600)))
    assert fed.ledger(SOURCE) == {"counted": 600, "duplicate": 600}


def test_packed_ids_take_22_bytes_each() -> None:
    fed = Fed().feed(SOURCE, *(impression(f"e{n}") for n in range(1_000)))
    index = fed.state.inputs[SOURCE].dedupe
    index.pack(T0)
    assert index.bytes_packed() == 22_000
    assert len(index.runs[0].encode()) == 22_000


def test_a_refused_record_does_not_use_up_its_id() -> None:
    fed = Fed().feed(SOURCE, document(SOURCE, "e", campaign_id=None), impression("e"))
    assert fed.ledger(SOURCE) == {"rejected/paid_without_campaign": 1, "counted": 1}


def test_a_late_record_does_not_use_up_its_id() -> None:
    late = impression("e", T0 - LATENESS - 1)
    fed = Fed().feed(SOURCE, impression("now"), late, impression("e"))
    assert fed.ledger(SOURCE) == {"counted": 2, "late": 1}


def test_inputs_have_ids_of_their_own() -> None:
    fed = Fed().feed(SOURCE, impression("e")).feed(Input.CLICKS, document(Input.CLICKS, "e"))
    assert fed.ledger(SOURCE) == fed.ledger(Input.CLICKS) == {"counted": 1}


def test_campaigns_do_not_have_ids_of_their_own() -> None:
    fed = Fed().feed(SOURCE, impression("e"), document(SOURCE, "e", campaign_id="c2"))
    assert fed.ledger(SOURCE) == {"counted": 1, "duplicate": 1}


def test_ids_that_look_alike_are_different() -> None:
    names = ["e", "E", "e ", "é", "e\u0301", "e\x00", "ee"]
    fed = Fed().feed(SOURCE, *(impression(name) for name in names))
    assert fed.ledger(SOURCE) == {"counted": len(names)}


# The horizon

HORIZON = with_horizon(SOURCE, HOUR, HOUR)


def test_an_id_is_known_for_the_whole_horizon() -> None:
    fed = Fed(quick_rules(horizons=HORIZON)).feed(SOURCE, impression("e"), impression("now", T0 + HOUR))
    fed.feed(SOURCE, impression("e", T0 + HOUR))
    assert fed.ledger(SOURCE) == {"counted": 2, "duplicate": 1}


def test_an_id_counts_again_once_its_bucket_has_left_the_horizon() -> None:
    # a bucket is 1 h / 24 = 150 s; that of T0 ends with T0 + 150 s and is forgotten an hour later
    forgotten = T0 + HOUR + 150_000
    for at_ms, entry in ((forgotten - 1, "duplicate"), (forgotten, "counted")):
        fed = Fed(quick_rules(horizons=HORIZON)).feed(SOURCE, impression("e"), impression("e", at_ms))
        assert fed.ledger(SOURCE) == ({"counted": 1, "duplicate": 1} if entry == "duplicate" else {"counted": 2})


def test_packing_does_not_change_when_an_id_is_forgotten() -> None:
    for at_ms, expected in (
        (T0 + HOUR + 149_999, {"counted": 1, "duplicate": 1}),
        (T0 + HOUR + 150_000, {"counted": 2}),
    ):
        fed = Fed(quick_rules(horizons=HORIZON)).feed(SOURCE, impression("e"))
        fed.state.inputs[SOURCE].dedupe.pack(T0)
        fed.feed(SOURCE, impression("e", at_ms))
        assert fed.ledger(SOURCE) == expected


def test_when_there_is_no_room_the_oldest_bucket_goes_and_what_is_older_is_late() -> None:
    rules = quick_rules(horizons=with_horizon(SOURCE, DAY, DAY, max_ids=4))  # buckets of an hour
    fed = Fed(rules).feed(SOURCE, *(impression(f"old{n}") for n in range(4)), impression("new", T0 + HOUR))
    index = fed.state.inputs[SOURCE].dedupe
    assert index.floor_ms == T0 + HOUR
    assert len(index) == 1
    fed.feed(SOURCE, impression("old0"), impression("unheard of", T0 + HOUR - 1), impression("new", T0 + HOUR))
    assert fed.ledger(SOURCE) == {"counted": 5, "late": 2, "duplicate": 1}


def test_a_longer_memory_does_not_bring_back_what_was_forgotten() -> None:
    short, long = quick_rules(horizons=HORIZON), quick_rules(horizons=with_horizon(SOURCE, DAY, DAY))
    fed = Fed(short)
    fed.tick()
    fed.feed(SOURCE, impression("e"), impression("now", T0 + 5 * HOUR))
    fed.tick(long)
    fed.feed(SOURCE, impression("e"), impression("f", T0 + 4 * HOUR + 10 * MINUTE))
    assert fed.ledger(SOURCE) == {"counted": 3, "late": 1}  # e would be timely now, but may have been seen


# Lateness


def test_an_event_may_be_as_late_as_the_lateness_and_no_later() -> None:
    newest = T0 + LATENESS
    fed = Fed().feed(SOURCE, impression("newest", newest), impression("just", T0), impression("too", T0 - 1))
    assert fed.ledger(SOURCE) == {"counted": 2, "late": 1}


@pytest.mark.parametrize(
    ("source", "lateness_ms"),
    [
        (Input.IMPRESSIONS, 10 * MINUTE),
        (Input.PLAYS, 10 * MINUTE),
        (Input.CLICKS, DAY),
        (Input.CONVERSIONS, 30 * DAY),
        (Input.ADJUSTMENTS, 30 * DAY),
        (Input.ENGAGEMENTS, DAY),
    ],
)
def test_every_input_has_the_lateness_that_is_stated(source: Input, lateness_ms: int) -> None:
    first = document(source, "now")
    fed = Fed().feed(source, first, document(source, "just", T0 - lateness_ms))
    fed.feed(source, document(source, "too", T0 - lateness_ms - 1))
    assert fed.ledger(source) == {"counted": 2, "late": 1}


def test_lateness_is_judged_by_what_came_before_in_the_log_not_behind() -> None:
    old, new = impression("old"), impression("new", T0 + HOUR)
    assert Fed().feed(SOURCE, old, new).ledger(SOURCE) == {"counted": 2}
    assert Fed().feed(SOURCE, new, old).ledger(SOURCE) == {"counted": 1, "late": 1}


def test_lateness_is_judged_by_the_events_own_input() -> None:
    fed = Fed().feed(Input.CLICKS, document(Input.CLICKS, "c", T0 + DAY)).feed(SOURCE, impression("e"))
    assert fed.ledger(SOURCE) == {"counted": 1}


def test_a_late_event_is_counted_as_late_in_its_own_pane() -> None:
    fed = Fed().feed(SOURCE, impression("now", T0 + HOUR), impression("late", T0))
    fed.tick()
    late = [row for row in fed.rows["pane_rows"].values() if row["late"]]
    assert [(row["origin_pane"], row["effect_pane"], row["impressions"]) for row in late] == [
        (T0 // 1000, T0 // 1000 + 3_600, 0)
    ]


def test_a_repetition_that_comes_too_late_is_late() -> None:
    fed = Fed().feed(SOURCE, impression("e"), impression("now", T0 + HOUR), impression("e"))
    assert fed.ledger(SOURCE) == {"counted": 2, "late": 1}


def test_a_rejected_event_does_not_move_event_time() -> None:
    ahead = record(0, impression("ahead", T0 + DAY), T0)
    fed = Fed().feed(SOURCE, impression("e"), ahead, document(SOURCE, "x", T0 + HOUR, campaign_id=None))
    assert fed.state.inputs[SOURCE].newest_ms == T0


def test_the_outcomes_have_the_places_that_the_ledger_gives_them() -> None:
    assert (dedupe.COUNTED, dedupe.DUPLICATE, dedupe.LATE) == (0, 1, 2)
