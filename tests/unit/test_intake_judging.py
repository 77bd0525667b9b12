"""What the types cannot say: times in the future, paid traffic without its campaign, money without its currency."""

from typing import Any

import pytest

from streams.events import Input, Reason
from streams.records import Entry
from streams.state.inputs import Batch
from tests.unit.given import MINUTE, T0, Document, Fed, batch, document, quick_rules, record

SKEW = 5 * MINUTE


def impression(event_id: str, at_ms: int = T0, **fields: Any) -> Document:
    return document(Input.IMPRESSIONS, event_id, at_ms, **fields)


@pytest.mark.parametrize(("ahead_ms", "entry"), [(SKEW, "counted"), (SKEW + 1, "rejected/future")])
def test_an_event_may_be_ahead_of_its_record_by_the_skew_and_no_more(ahead_ms: int, entry: str) -> None:
    fed = Fed().feed(Input.IMPRESSIONS, record(0, impression("e", T0 + ahead_ms), T0))
    assert fed.ledger(Input.IMPRESSIONS) == {entry: 1}


def test_the_skew_is_a_rule() -> None:
    fed = Fed(quick_rules(future_skew_ms=10)).feed(Input.IMPRESSIONS, record(0, impression("e", T0 + 11), T0))
    assert fed.ledger(Input.IMPRESSIONS) == {"rejected/future": 1}


def test_a_future_event_does_not_make_the_present_late() -> None:
    fed = Fed().feed(Input.IMPRESSIONS, record(0, impression("far", T0 + 400 * MINUTE), T0), impression("now"))
    assert fed.ledger(Input.IMPRESSIONS) == {"rejected/future": 1, "counted": 1}
    assert fed.state.inputs[Input.IMPRESSIONS].newest_ms == T0


def test_a_future_event_does_not_use_up_its_id() -> None:
    ahead = record(0, impression("e", T0 + SKEW + 1), T0)
    fed = Fed().feed(Input.IMPRESSIONS, ahead, impression("e"))
    assert fed.ledger(Input.IMPRESSIONS) == {"rejected/future": 1, "counted": 1}


def test_future_is_judged_by_each_records_own_timestamp() -> None:
    later = T0 + 60 * MINUTE
    fed = Fed().feed(Input.IMPRESSIONS, record(0, impression("a", later), later), record(0, impression("b", later), T0))
    assert fed.ledger(Input.IMPRESSIONS) == {"counted": 1, "rejected/future": 1}


@pytest.mark.parametrize("source", list(Input))
def test_paid_traffic_needs_a_campaign(source: Input) -> None:
    fed = Fed().feed(source, document(source, "e", campaign_id=None), document(source, "f"))
    fed.tick()
    assert fed.ledger(source) == {"rejected/paid_without_campaign": 1, "counted": 1}
    assert [(letter.reason, letter.path) for letter in fed.letters] == [("paid_without_campaign", "$.campaign_id")]


@pytest.mark.parametrize("source", list(Input))
def test_organic_traffic_needs_none(source: Input) -> None:
    fed = Fed().feed(source, document(source, "e", campaign_id=None, traffic="organic"))
    fed.tick()
    assert fed.ledger(source) == {"counted": 1}
    assert fed.one()["campaign_id"] == ""


def test_organic_traffic_may_name_a_campaign() -> None:
    fed = Fed().feed(Input.IMPRESSIONS, impression("e", traffic="organic"))
    fed.tick()
    assert fed.one()["campaign_id"] == "c1"


MONEY: list[tuple[Input, Document]] = [
    (Input.IMPRESSIONS, {"clearing_price_millimicros": 1}),
    (Input.PLAYS, {"clearing_price_millimicros": 1}),
    (Input.CLICKS, {"clearing_price_millimicros": 1}),
    (Input.CONVERSIONS, {"value_micros": 1}),
    (Input.CONVERSIONS, {"cost_of_goods_micros": 1}),
    (Input.CONVERSIONS, {"discount_micros": 1}),
    (Input.ADJUSTMENTS, {"amount_micros": -1}),
    (Input.ADJUSTMENTS, {"amount_micros": 1}),
]


@pytest.mark.parametrize(("source", "amount"), MONEY)
def test_money_needs_a_currency(source: Input, amount: Document) -> None:
    fed = Fed().feed(source, document(source, "e", **amount), document(source, "f", **amount, currency="USD"))
    fed.tick()
    assert fed.ledger(source) == {"rejected/money_without_currency": 1, "counted": 1}
    assert [(letter.reason, letter.path) for letter in fed.letters] == [("money_without_currency", "$.currency")]


@pytest.mark.parametrize(("source", "amount"), MONEY)
def test_an_amount_of_zero_is_no_money(source: Input, amount: Document) -> None:
    fed = Fed().feed(source, document(source, "e", **dict.fromkeys(amount, 0)))
    assert fed.ledger(source) == {"counted": 1}


def test_of_several_faults_the_future_is_told_before_the_campaign_and_that_before_the_currency() -> None:
    poor = {"campaign_id": None, "clearing_price_millimicros": 5}
    ahead = record(0, impression("a", T0 + SKEW + 1, **poor), T0)
    fed = Fed().feed(Input.IMPRESSIONS, ahead, impression("b", **poor))
    assert fed.ledger(Input.IMPRESSIONS) == {"rejected/future": 1, "rejected/paid_without_campaign": 1}


def test_bad_records_between_good_ones_change_no_number() -> None:
    good = [impression(f"e{n}", T0 + n) for n in range(4)]
    bad = [b"{", None, record(0, impression("x", T0 + SKEW + 9), T0), impression("y", campaign_id=None), b"\xff"]
    mixed, clean = Fed(), Fed()
    mixed.feed(Input.IMPRESSIONS, bad[0], good[0], bad[1], bad[2], good[1], good[2], bad[3], good[3], bad[4])
    clean.feed(Input.IMPRESSIONS, *good)
    mixed.tick()
    clean.tick()
    assert mixed.one() == clean.one()
    assert mixed.ledger(Input.IMPRESSIONS) == {
        "counted": 4,
        "rejected/malformed_json": 2,  # bare \xff is no JSON before it is no UTF-8
        "rejected/empty": 1,
        "rejected/future": 1,
        "rejected/paid_without_campaign": 1,
    }


# The ledger


def test_offsets_without_records_have_their_entry() -> None:
    fed = Fed()
    found = [record(12, impression("a")), record(15, impression("b"))]
    fed.state.inputs[Input.IMPRESSIONS].begin_at(10)
    fed.state.apply(Batch("ads.impressions", 0, 10, 20, found))
    assert fed.ledger(Input.IMPRESSIONS) == {"no_record": 8, "counted": 2}
    assert fed.state.inputs[Input.IMPRESSIONS].consumed() == 10


def test_what_retention_took_is_lost_and_told() -> None:
    fed = Fed()
    fed.state.apply(Batch("ads.clicks", 0, 0, 7, [], is_lost=True))
    rows = fed.tick()
    assert fed.ledger(Input.CLICKS) == {"lost_retention": 7}
    assert {(r["entry"], r["reason"], r["records"]) for r in rows["ledger_rows"] if r["input"] == "clicks"} == {
        ("lost_retention", "", 7),
        ("consumed", "", 7),
    }


def test_the_ledger_sums_to_what_was_consumed() -> None:
    fed = Fed()
    late = impression("late", T0 - 60 * MINUTE)
    ahead = record(0, impression("ahead", T0 + SKEW + 1), T0)
    fed.feed(Input.IMPRESSIONS, impression("a"), impression("a"), late, ahead, b"{", None, impression("b"))
    fed.state.apply(Batch("ads.impressions", 0, 7, 9, []))
    fed.state.apply(Batch("ads.impressions", 0, 9, 14, [], is_lost=True))
    state = fed.state.inputs[Input.IMPRESSIONS]
    assert fed.ledger(Input.IMPRESSIONS) == {
        "counted": 2,
        "duplicate": 1,
        "late": 1,
        "rejected/future": 1,
        "rejected/malformed_json": 1,
        "rejected/empty": 1,
        "no_record": 2,
        "lost_retention": 5,
    }
    assert sum(state.ledger.values()) == state.consumed() == 14


def test_ledger_rows_are_totals_and_only_what_changed_is_published() -> None:
    fed = Fed().feed(Input.IMPRESSIONS, impression("a"), b"{")
    first = {(r["entry"], r["reason"]): r["records"] for r in fed.tick()["ledger_rows"] if r["input"] == "impressions"}
    assert first == {("counted", ""): 1, ("rejected", "malformed_json"): 1, ("consumed", ""): 2}
    fed.feed(Input.IMPRESSIONS, impression("b"))
    second = {(r["entry"], r["reason"]): r["records"] for r in fed.tick()["ledger_rows"]}
    assert second == {("counted", ""): 2, ("consumed", ""): 3}
    assert fed.tick()["ledger_rows"] == []


def test_a_range_that_does_not_continue_the_position_is_a_broken_invariant() -> None:
    fed = Fed().feed(Input.IMPRESSIONS, impression("a"))
    with pytest.raises(AssertionError, match="continue"):
        fed.state.apply(batch("ads.impressions", 3, [impression("b")]))


# Poison


def test_a_poisoned_offset_is_rejected_whatever_it_holds() -> None:
    fed = Fed()
    fed.state.poisoned = {"ads.impressions": {1}}
    fed.feed(Input.IMPRESSIONS, impression("a"), impression("b"), impression("c"))
    fed.tick()
    assert fed.ledger(Input.IMPRESSIONS) == {"counted": 2, "rejected/internal_error": 1}
    (letter,) = fed.letters
    assert (letter.offset, letter.entry, letter.reason, letter.path) == (1, Entry.REJECTED, Reason.INTERNAL_ERROR, "$")


def test_a_poisoned_offset_is_that_of_one_topic_only() -> None:
    fed = Fed()
    fed.state.poisoned = {"ads.impressions": {0}}
    fed.feed(Input.CLICKS, document(Input.CLICKS, "a"))
    assert fed.ledger(Input.CLICKS) == {"counted": 1}


def test_poison_is_forgotten_once_a_tick_stands_behind_it() -> None:
    fed = Fed()
    fed.state.poisoned = {"ads.impressions": {0, 5}}
    fed.feed(Input.IMPRESSIONS, impression("a"))
    fed.tick()
    assert fed.state.poisoned == {"ads.impressions": {5}}
