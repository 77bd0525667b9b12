"""Money: spend of clearing prices, values, adjustments by both their dates, and what another currency does."""

from typing import Any

import pytest

from streams.events import Input
from streams.records import Table
from tests.unit.given import DAY, HOUR, MINUTE, T0, Document, Fed, document, nonzero

PRICED = [Input.IMPRESSIONS, Input.PLAYS, Input.CLICKS]


def priced(source: Input, event_id: str, millimicros: int | None, **fields: Any) -> Document:
    return document(source, event_id, **{"currency": "USD", "clearing_price_millimicros": millimicros, **fields})


@pytest.mark.parametrize("source", PRICED)
def test_spend_is_the_sum_of_clearing_prices(source: Input) -> None:
    prices = [1_500, None, 0, 2, 10**15]
    fed = Fed().feed(source, *(priced(source, f"e{n}", price) for n, price in enumerate(prices)))
    fed.tick()
    assert fed.one()["spend_millimicros"] == 1_000_000_000_001_502
    assert fed.one()["money_rejected"] == 0


def test_a_thousand_impressions_cost_their_cpm_exactly() -> None:
    cpm_micros = 1_234_567  # a price per mille in micros is the price of one in thousandths of a micro
    fed = Fed().feed(Input.IMPRESSIONS, *(priced(Input.IMPRESSIONS, f"e{n}", cpm_micros) for n in range(1_000)))
    fed.tick()
    assert fed.one()["spend_millimicros"] / 1_000 == cpm_micros


@pytest.mark.parametrize("source", PRICED)
def test_duplicates_and_late_events_cost_nothing(source: Input) -> None:
    late = priced(source, "late", 100, event_time_ms=T0 - 2 * DAY)
    fed = Fed().feed(source, priced(source, "a", 7), priced(source, "a", 7), late)
    fed.tick()
    assert fed.total("spend_millimicros") == 7
    assert (fed.total("duplicates"), fed.total("late")) == (1, 1)


# A campaign has one currency


def in_euros() -> Fed:
    fed = Fed().settle(currency="EUR")
    fed.tick()
    return fed


@pytest.mark.parametrize("source", PRICED)
def test_money_that_is_not_the_campaigns_is_counted_and_refused(source: Input) -> None:
    fed = in_euros().feed(
        source,
        priced(source, "a", 100, currency="EUR"),
        priced(source, "b", 30, currency="USD"),
        priced(source, "c", 0, currency="USD"),
        priced(source, "d", None, currency="USD"),
        priced(source, "e", None, currency=None),
    )
    fed.tick()
    row = fed.one()
    assert (row["currency"], row["spend_millimicros"], row["money_rejected"]) == ("EUR", 100, 1)
    assert fed.ledger(source) == {"counted": 5}


def test_refused_money_leaves_the_other_measures_alone() -> None:
    fed = in_euros().feed(
        Input.CONVERSIONS,
        document(Input.CONVERSIONS, "a", currency="USD", value_micros=10, quantity=3, discount_micros=1),
        document(Input.CONVERSIONS, "b", currency="EUR", value_micros=20, quantity=4),
    )
    fed.tick()
    assert nonzero(fed.one()) == {
        "money_rejected": 1,
        "orders": 2,
        "unattributed_conversions": 2,
        "quantity": 7,
        "ordered_value_micros": 20,
    }


def test_a_refused_adjustment_is_counted_and_takes_nothing_back() -> None:
    fed = in_euros().feed(Input.ADJUSTMENTS, document(Input.ADJUSTMENTS, "a", currency="USD", amount_micros=-10))
    fed.tick()
    assert nonzero(fed.one()) == {"money_rejected": 1, "refunds": 1}


def test_currencies_of_a_campaign_without_settings_are_kept_apart() -> None:
    events = [priced(Input.CLICKS, c, n, currency=c) for n, c in enumerate(["USD", "EUR", "JPY"], start=1)]
    fed = Fed().feed(Input.CLICKS, *events)
    fed.tick()
    rows = fed.rows[Table.PANES].values()
    assert {row["currency"]: row["spend_millimicros"] for row in rows} == {"USD": 1, "EUR": 2, "JPY": 3}


def test_settings_hold_for_what_is_applied_after_their_tick() -> None:
    fed = Fed().settle(currency="EUR")
    fed.feed(Input.CLICKS, priced(Input.CLICKS, "before", 5))
    fed.tick()
    fed.feed(Input.CLICKS, priced(Input.CLICKS, "after", 7))
    fed.tick()
    rows = {row["currency"]: row for row in fed.rows[Table.PANES].values()}
    assert (rows["USD"]["spend_millimicros"], rows["USD"]["money_rejected"]) == (5, 0)
    assert (rows["EUR"]["spend_millimicros"], rows["EUR"]["money_rejected"]) == (0, 1)


def test_one_campaigns_currency_is_no_other_campaigns() -> None:
    fed = in_euros().feed(Input.CLICKS, priced(Input.CLICKS, "a", 5, campaign_id="c2"))
    fed.tick()
    assert (fed.one()["currency"], fed.one()["spend_millimicros"]) == ("USD", 5)


# Values of conversions


def test_values_are_of_orders_placed_and_orders_paid() -> None:
    bodies: list[Document] = [
        {"conversion_type": "order", "value_micros": 100, "cost_of_goods_micros": 60, "discount_micros": 5},
        {"conversion_type": "order", "value_micros": 11},
        {"conversion_type": "paid", "value_micros": 90, "cost_of_goods_micros": 3},
    ]
    documents = (document(Input.CONVERSIONS, f"e{n}", currency="USD", **body) for n, body in enumerate(bodies))
    fed = Fed().feed(Input.CONVERSIONS, *documents)
    fed.tick()
    row = fed.one()
    assert (row["ordered_value_micros"], row["paid_value_micros"]) == (111, 90)
    assert (row["cost_of_goods_micros"], row["discount_micros"]) == (63, 5)


# Adjustments, by their own date and by the date of what they adjust


def refund(event_id: str, at_ms: int, ordered_ms: int, amount_micros: int, **fields: Any) -> Document:
    times = {"adjusted_event_time_ms": ordered_ms, "amount_micros": amount_micros, "currency": "USD"}
    return document(Input.ADJUSTMENTS, event_id, at_ms, **{**times, **fields})


def by_pane(fed: Fed, table: Table = Table.PANES) -> dict[tuple[int, int], Document]:
    """(origin, effect) in seconds after T0 to the measures that are not zero."""
    at = T0 // 1000
    return {(row["origin_pane"] - at, row["effect_pane"] - at): nonzero(row) for row in fed.rows[table].values()}


def test_an_adjustment_stands_in_its_own_pane_and_its_amount_again_in_the_orders() -> None:
    fed = Fed().feed(Input.ADJUSTMENTS, refund("a", T0 + 3 * HOUR + 5_000, T0 + 125_000, -40))
    fed.tick()
    assert by_pane(fed) == {
        (3 * 3_600, 3 * 3_600): {"refunds": 1, "adjusted_micros": -40},
        (120, 3 * 3_600): {"adjusted_by_order_micros": -40},
    }
    assert by_pane(fed, Table.REPORTS) == {
        (3 * 3_600, 3 * 3_600): {"refunds": 1, "adjusted_micros": -40},
        (120, 3 * 3_600): {"adjusted_by_order_micros": -40},
    }


def test_an_adjustment_of_its_own_pane_has_both_in_one_row() -> None:
    fed = Fed().feed(Input.ADJUSTMENTS, refund("a", T0 + 5_000, T0 + 1_000, -40))
    fed.tick()
    assert by_pane(fed) == {(0, 0): {"refunds": 1, "adjusted_micros": -40, "adjusted_by_order_micros": -40}}


def test_amounts_are_signed_and_summed_by_order() -> None:
    fed = Fed().feed(
        Input.ADJUSTMENTS,
        refund("a", T0 + HOUR, T0, -40),
        refund("b", T0 + HOUR, T0, 15, adjustment_type="cancel"),
        refund("c", T0 + HOUR, T0 + 10_000, -7, adjustment_type="chargeback"),
        refund("d", T0 + HOUR, T0, 0, adjustment_type="rejected_lead"),
    )
    fed.tick()
    assert by_pane(fed) == {
        (3_600, 3_600): {"refunds": 1, "cancels": 1, "chargebacks": 1, "rejected_leads": 1, "adjusted_micros": -32},
        (0, 3_600): {"adjusted_by_order_micros": -25},
        (10, 3_600): {"adjusted_by_order_micros": -7},
    }


def test_both_dates_give_the_same_sum() -> None:
    fed = Fed().feed(
        Input.ADJUSTMENTS, *(refund(f"e{n}", T0 + n * MINUTE, T0 - n * HOUR, -n * 1_000) for n in range(1, 50))
    )
    fed.tick()
    for table in (Table.PANES, Table.REPORTS):
        assert fed.total("adjusted_micros", table) == fed.total("adjusted_by_order_micros", table) == -1_225_000


def test_an_adjustment_that_is_repeated_takes_back_once() -> None:
    fed = Fed().feed(Input.ADJUSTMENTS, *[refund("a", T0 + HOUR, T0, -40)] * 2)
    fed.tick()
    assert by_pane(fed) == {
        (3_600, 3_600): {"refunds": 1, "duplicates": 1, "adjusted_micros": -40},
        (0, 3_600): {"adjusted_by_order_micros": -40},
    }


def test_a_late_adjustment_takes_nothing_back() -> None:
    fed = Fed().feed(
        Input.ADJUSTMENTS,
        refund("now", T0, T0, 0),
        refund("late", T0 - 31 * DAY, T0 - 32 * DAY, -40),
    )
    fed.tick()
    assert fed.total("adjusted_micros") == fed.total("adjusted_by_order_micros") == 0
    assert fed.total("late") == 1
