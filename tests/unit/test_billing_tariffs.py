"""What an event costs: by the tariff of its pane, in whatever order it arrives; a credit gives it back once."""

from typing import Any

import pytest

from streams.events import Input
from streams.records import Table
from streams.state import credits
from streams.state.prices import MAX_TARIFFS
from tests.unit.given import DAY, HOUR, MINUTE, SECOND, T0, Document, Fed, document

CPA_LEAD = {"model": "cpa", "price_micros": 7, "conversion_type": "lead"}
TOUCH = {"touch_type": "click", "touch_time_ms": T0}


def spend(fed: Fed, **where: Any) -> int:
    """Of all rows of panes whose columns have these values."""
    rows = fed.rows[Table.PANES].values()
    return sum(row["spend_millimicros"] for row in rows if all(row[name] == value for name, value in where.items()))


def priced(source: Input, event_id: str, at_ms: int = T0, **fields: Any) -> Document:
    """An event that carries a price of its own, which a tariff overrules."""
    return document(source, event_id, at_ms, clearing_price_millimicros=5, currency="USD", **fields)


def billed(billing: dict[str, Any], **fields: Any) -> Fed:
    fed = Fed().settle(billing=billing, **fields)
    fed.tick()
    return fed


@pytest.mark.parametrize(
    ("billing", "expected"),
    [
        ({}, 15),
        ({"model": "clearing_price"}, 15),
        ({"model": "cpm", "price_micros": 9_000}, 9_000),
        ({"model": "cpc", "price_micros": 9}, 9_000),
        ({"model": "paid_play", "price_micros": 9, "play_milestone": "start"}, 9_000),
        ({"model": "paid_play", "price_micros": 9, "play_milestone": "3s"}, 0),
        ({"model": "ocpm", "price_micros": 9_000, "target_cost_micros": 1}, 9_000),
        ({"model": "ocpc", "price_micros": 9, "target_cost_micros": 1}, 9_000),
        ({"model": "ocpm", "target_cost_micros": 1}, 15),
        ({"model": "cpa", "price_micros": 9, "conversion_type": "order"}, 9_000),
        ({"model": "cpa", "price_micros": 9, "conversion_type": "install"}, 0),
        ({"model": "cpa", "price_micros": 9}, 9_000),
    ],
)
def test_each_model_bills_its_own_events(billing: dict[str, Any], expected: int) -> None:
    fed = billed(billing, goal="order")
    for source in (Input.IMPRESSIONS, Input.PLAYS, Input.CLICKS):
        fed.feed(source, priced(source, "a"))
    fed.feed(Input.CONVERSIONS, document(Input.CONVERSIONS, "o", attribution=TOUCH))
    fed.tick()
    assert spend(fed) == expected


def test_what_is_not_counted_costs_nothing() -> None:
    fed = billed({"model": "cpc", "price_micros": 9})
    fed.feed(Input.CLICKS, document(Input.CLICKS, "a"), document(Input.CLICKS, "a"))
    fed.feed(Input.CLICKS, document(Input.CLICKS, "late", T0 - 2 * DAY))
    fed.tick()
    assert spend(fed) == 9_000


def test_only_first_loops_and_credited_conversions_are_billed() -> None:
    fed = billed({"model": "paid_play", "price_micros": 9, "play_milestone": "start"})
    fed.feed(Input.PLAYS, document(Input.PLAYS, "again", loop=2))
    fed.tick()
    assert spend(fed) == 0
    fed = billed(CPA_LEAD)
    fed.feed(Input.CONVERSIONS, document(Input.CONVERSIONS, "a", conversion_type="lead"))
    fed.feed(
        Input.CONVERSIONS,
        document(Input.CONVERSIONS, "b", conversion_type="lead", attribution={"touch_type": "none"}),
    )
    fed.tick()
    assert spend(fed) == 0


def test_a_tariff_is_in_the_campaigns_currency_whatever_the_event_says() -> None:
    fed = billed({"model": "cpm", "price_micros": 9_000})
    fed.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "a", currency="EUR", clearing_price_millimicros=5))
    fed.tick()
    assert spend(fed, currency="USD") == spend(fed) == 9_000


def test_a_change_holds_from_its_pane_on_and_never_rewrites_the_past() -> None:
    fed = billed({"model": "cpc", "price_micros": 1})
    fed.feed(Input.CLICKS, document(Input.CLICKS, "a", T0 + 5 * SECOND))
    fed.settle(billing={"model": "cpc", "price_micros": 2}, appended_ms=T0)
    fed.tick()  # the newest event is in the pane of T0: the new price holds from the next pane
    fed.feed(Input.CLICKS, document(Input.CLICKS, "b", T0 + 9 * SECOND))
    fed.feed(Input.CLICKS, document(Input.CLICKS, "c", T0 + 10 * SECOND))
    fed.feed(Input.CLICKS, document(Input.CLICKS, "d", T0 + 6 * SECOND))
    fed.tick()
    assert spend(fed, origin_pane=T0 // 1000) == 3_000
    assert spend(fed, origin_pane=T0 // 1000 + 10) == 2_000


def test_a_version_that_waits_for_its_time_bills_from_that_pane_on() -> None:
    fed = billed({"model": "cpc", "price_micros": 1})
    fed.feed(Input.CLICKS, document(Input.CLICKS, "a"))
    fed.settle(billing={"model": "cpc", "price_micros": 5}, valid_from_ms=T0 + MINUTE)
    fed.settle(billing={"model": "cpc", "price_micros": 3}, appended_ms=T0)
    fed.tick()
    events = [document(Input.CLICKS, f"e{s}", T0 + s * SECOND) for s in (70, 60, 59, 20, 5)]
    fed.feed(Input.CLICKS, *events)
    fed.tick()
    assert spend(fed) == 1_000 + 5_000 * 2 + 3_000 * 2 + 1_000


def test_the_first_version_bills_what_comes_before_it() -> None:
    fed = Fed().settle(billing={"model": "cpc", "price_micros": 1}, appended_ms=T0 + HOUR)
    fed.tick()
    fed.feed(Input.CLICKS, document(Input.CLICKS, "a", T0))
    fed.tick()
    assert spend(fed) == 1_000


def test_many_changes_are_bounded() -> None:
    fed = Fed()
    for n in range(MAX_TARIFFS + 20):
        fed.settle(billing={"model": "cpc", "price_micros": n + 1}, appended_ms=T0 + n * MINUTE)
    fed.tick()
    (_, dated) = fed.state.campaigns.prices.snapshot()[0]
    assert len(dated) == MAX_TARIFFS
    fed.feed(Input.CLICKS, document(Input.CLICKS, "a", T0 + DAY))
    fed.tick()
    assert spend(fed) == (MAX_TARIFFS + 20) * 1_000


def lead(event_id: str, at_ms: int = T0) -> Document:
    return document(Input.CONVERSIONS, event_id, at_ms, conversion_type="lead", attribution=TOUCH)


def rejection(event_id: str, of: str, at_ms: int = T0 + HOUR) -> Document:
    fields = {"adjustment_type": "rejected_lead", "adjusted_event_id": of, "adjusted_event_time_ms": T0}
    return document(Input.ADJUSTMENTS, event_id, at_ms, **fields)


def credited(fed: Fed, table: Table = Table.PANES) -> dict[tuple[str, int, int], int]:
    """By input, origin and effect pane."""
    found: dict[tuple[str, int, int], int] = {}
    for row in fed.rows[table].values():
        if row["credited_millimicros"]:
            found[row["input"], row["origin_pane"], row["effect_pane"]] = row["credited_millimicros"]
    return found


@pytest.mark.parametrize("is_rejected_first", [True, False])
def test_a_rejected_lead_is_credited_once_at_its_own_pane_with_effect_today(is_rejected_first: bool) -> None:
    fed = billed(CPA_LEAD)
    steps = [(Input.CONVERSIONS, lead("a")), (Input.ADJUSTMENTS, rejection("r1", "a"))]
    for source, event in reversed(steps) if is_rejected_first else steps:
        fed.feed(source, event)
        fed.tick()
    fed.feed(Input.ADJUSTMENTS, rejection("r2", "a", T0 + 2 * HOUR))
    fed.tick()
    effect = (T0 + HOUR) // 1000
    assert credited(fed) == {("journal", T0 // 1000, effect): 7_000}
    assert credited(fed, Table.REPORTS) == {("journal", T0 // 1000, effect): 7_000}
    assert spend(fed) == 7_000  # gross stays


def test_credits_of_one_key_add_up_in_one_row() -> None:
    fed = billed(CPA_LEAD)
    fed.feed(Input.CONVERSIONS, lead("a"), lead("b"), lead("c"))
    fed.feed(Input.ADJUSTMENTS, rejection("r1", "a"))
    fed.tick()
    fed.feed(Input.ADJUSTMENTS, rejection("r2", "b"))
    fed.tick()
    assert list(credited(fed).values()) == [14_000]


def test_what_was_not_billed_is_not_given_back() -> None:
    fed = billed({"model": "cpc", "price_micros": 9})
    fed.feed(Input.CONVERSIONS, lead("a"))
    fed.feed(Input.ADJUSTMENTS, rejection("r1", "a"), rejection("r2", "unknown"))
    fed.tick()
    assert credited(fed) == {}


def test_billed_conversions_and_waiting_rejections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credits, "MAX_BILLED", 2)
    monkeypatch.setattr(credits, "MAX_WAITING", 1)
    fed = billed(CPA_LEAD)
    fed.feed(Input.CONVERSIONS, lead("a"), lead("b"), lead("c"))
    fed.tick()
    fed.feed(Input.ADJUSTMENTS, rejection("r1", "a"), rejection("r2", "b"), rejection("r3", "x"))
    fed.tick()
    assert list(credited(fed).values()) == [7_000]  # of b: a was forgotten
    assert fed.state.credits.unmatched == 1
