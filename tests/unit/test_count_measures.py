"""What each event adds, by hand: one row, the measures that are not zero."""

from typing import Any

import pytest

from streams.events import ClickType, ConversionType, Input
from streams.records import Table
from streams.stages.count import AGE_BUCKETS_MS, age_bucket_ms
from tests.unit.given import DAY, HOUR, MINUTE, T0, Document, Fed, document, nonzero, quick_rules


def counted(source: Input, *bodies: Document, fed: Fed | None = None) -> Document:
    """The measures of the one row that these events make."""
    fed = (fed or Fed()).feed(source, *(document(source, f"e{n}", **body) for n, body in enumerate(bodies)))
    fed.tick()
    return nonzero(fed.one())


def test_impressions_are_measured_viewable_or_unmeasured() -> None:
    assert counted(Input.IMPRESSIONS, {}, {"viewable": True}, {"viewable": True}, {"viewable": False}) == {
        "impressions": 4,
        "measured_impressions": 3,
        "viewable_impressions": 2,
    }


def test_each_milestone_of_a_play_has_its_measure() -> None:
    milestones = ["start", "start", "start", "3s", "3s", "5s", "complete"]
    assert counted(Input.PLAYS, *({"milestone": m, "watched_ms": 100} for m in milestones)) == {
        "plays_started": 3,
        "plays_3s": 2,
        "plays_5s": 1,
        "plays_completed": 1,
        "watched_ms": 700,
    }


def test_only_the_first_loop_counts_towards_rates() -> None:
    assert counted(
        Input.PLAYS,
        {"milestone": "start", "watched_ms": 1},
        {"milestone": "start", "loop": 2, "watched_ms": 10},
        {"milestone": "start", "loop": 3, "watched_ms": 100},
        {"milestone": "3s", "loop": 2, "watched_ms": 1_000},
        {"milestone": "complete", "loop": 2, "watched_ms": 10_000},
    ) == {"plays_started": 1, "loop_plays": 2, "watched_ms": 111}


def test_a_play_is_viewable_once_in_its_first_loop() -> None:
    assert counted(
        Input.PLAYS,
        {"milestone": "3s", "viewable": True},
        {"milestone": "5s", "viewable": False},
        {"milestone": "start", "loop": 2, "viewable": True},
    ) == {"plays_3s": 1, "plays_5s": 1, "viewable_plays": 1, "loop_plays": 1}


def test_every_type_of_click_is_counted_apart_and_together() -> None:
    types = [kind.value for kind in ClickType]
    assert counted(Input.CLICKS, *({"click_type": kind} for kind in [*types, "card"])) == {
        "clicks": 7,
        "clicks_card": 2,
        "clicks_button": 1,
        "clicks_cover": 1,
        "clicks_live_room_entry": 1,
        "clicks_profile": 1,
        "clicks_other": 1,
    }


def test_a_click_without_a_type_is_of_another_type() -> None:
    assert counted(Input.CLICKS, {"click_type": None}) == {"clicks": 1, "clicks_other": 1}


def test_which_clicks_count_towards_ctr_is_a_rule() -> None:
    fed = Fed(quick_rules(ctr_click_types=(ClickType.CARD, ClickType.BUTTON)))
    bodies = [{"click_type": kind} for kind in ("card", "button", "cover", "profile")]
    assert counted(Input.CLICKS, *bodies, fed=fed) == {
        "clicks": 2,
        "clicks_card": 1,
        "clicks_button": 1,
        "clicks_cover": 1,
        "clicks_profile": 1,
    }


def touched(touch_type: str, **more: Any) -> Document:
    return {"attribution": {"touch_type": touch_type, **more}}


def test_conversions_are_told_apart_by_their_touch() -> None:
    order = {"conversion_type": "order"}
    assert counted(
        Input.CONVERSIONS,
        order | touched("click"),
        order | touched("click", weight_ppm=400_000),
        order | touched("view"),
        order | touched("play"),
        order | touched("none"),
        order,
    ) == {
        "conversions": 2,
        "view_through_conversions": 1,
        "play_through_conversions": 1,
        "unattributed_conversions": 2,
        "orders": 6,
        "quantity": 6,
        "attributed_weight_ppm": 1_400_000,
    }


def test_every_type_of_conversion_has_its_measure_and_only_some_count_towards_cvr() -> None:
    bodies = [{"conversion_type": kind.value} | touched("click") for kind in ConversionType]
    assert counted(Input.CONVERSIONS, *bodies) == {
        "conversions": 3,  # lead, order, install
        "leads": 1,
        "add_to_carts": 1,
        "orders": 1,
        "paid_orders": 1,
        "installs": 1,
        "other_conversions": 1,
        "quantity": 6,
        "attributed_weight_ppm": 3_000_000,
    }


def test_which_conversions_count_towards_cvr_is_a_rule() -> None:
    fed = Fed(quick_rules(cvr_conversion_types=(ConversionType.PAID,)))
    bodies = [{"conversion_type": "paid"} | touched("click"), {"conversion_type": "order"} | touched("view")]
    assert counted(Input.CONVERSIONS, *bodies, fed=fed) == {
        "conversions": 1,
        "paid_orders": 1,
        "orders": 1,
        "quantity": 2,
        "attributed_weight_ppm": 1_000_000,
    }


def test_quantities_are_summed() -> None:
    assert counted(Input.CONVERSIONS, {"quantity": 3}, {"quantity": 0}, {"quantity": 4}) == {
        "orders": 3,
        "unattributed_conversions": 3,
        "quantity": 7,
    }


def test_each_type_of_adjustment_has_its_measure() -> None:
    kinds = ["cancel", "refund", "refund", "chargeback", "rejected_lead"]
    assert counted(Input.ADJUSTMENTS, *({"adjustment_type": kind} for kind in kinds)) == {
        "cancels": 1,
        "refunds": 2,
        "chargebacks": 1,
        "rejected_leads": 1,
    }


def test_each_type_of_engagement_has_its_measure() -> None:
    kinds = ["like", "comment", "share", "follow", "unfollow", "negative_feedback", "like"]
    assert counted(Input.ENGAGEMENTS, *({"engagement_type": kind} for kind in kinds)) == {
        "likes": 2,
        "comments": 1,
        "shares": 1,
        "follows": 1,
        "unfollows": 1,
        "negative_feedbacks": 1,
    }


def test_a_duplicate_adds_nothing_but_itself() -> None:
    fed = Fed().feed(Input.PLAYS, *[document(Input.PLAYS, "e", watched_ms=9, viewable=True)] * 3)
    fed.tick()
    assert nonzero(fed.one()) == {"plays_started": 1, "watched_ms": 9, "viewable_plays": 1, "duplicates": 2}


# Keys: what a decision row is about


def test_the_variant_is_the_first_experiments_arm() -> None:
    experiments = [{"id": "price", "arm": "b"}, {"id": "colour", "arm": "red"}]
    fed = Fed().feed(
        Input.IMPRESSIONS,
        document(Input.IMPRESSIONS, "a", experiments=experiments),
        document(Input.IMPRESSIONS, "b", experiments=experiments[1:]),
        document(Input.IMPRESSIONS, "c"),
        document(Input.IMPRESSIONS, "d", experiments=experiments[:1]),
    )
    fed.tick()
    found = {row["variant"]: row["impressions"] for row in fed.rows[Table.PANES].values()}
    assert found == {"price=b": 2, "colour=red": 1, "": 1}


def test_a_row_is_of_one_campaign_ad_unit_creative_variant_and_currency() -> None:
    bodies: list[Document] = [
        {},
        {"campaign_id": "c2"},
        {"ad_unit_id": "u"},
        {"creative_id": "v"},
        {"experiments": [{"id": "x", "arm": "a"}]},
        {"currency": "USD"},
        {"currency": "EUR"},
        {"region": "GB-LND"},  # not in the decision key
    ]
    documents = (document(Input.IMPRESSIONS, f"e{n}", **body) for n, body in enumerate(bodies))
    fed = Fed().feed(Input.IMPRESSIONS, *documents)
    fed.tick()
    assert sorted(row["impressions"] for row in fed.rows[Table.PANES].values()) == [1, 1, 1, 1, 1, 1, 2]
    assert len(fed.rows[Table.REPORTS]) == 8


def test_report_rows_carry_the_configured_dimensions_and_leave_the_others_empty() -> None:
    fed = Fed(quick_rules(dimensions=("shop_id", "region")))
    fed.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "a", shop_id="s", region="r", channel="feed"))
    fed.tick()
    row = fed.one(Table.REPORTS)
    assert (row["shop_id"], row["region"], row["channel"], row["product_id"]) == ("s", "r", "", "")


@pytest.mark.parametrize("dimensions", [(), ("channel",), ("channel", "region", "audience_id")])
def test_any_number_of_dimensions_will_do(dimensions: tuple[str, ...]) -> None:
    fed = Fed(quick_rules(dimensions=dimensions))
    body = {"channel": "feed", "region": "r", "audience_id": "x"}
    fed.feed(Input.CLICKS, document(Input.CLICKS, "a", **body))
    fed.tick()
    row = fed.one(Table.REPORTS)
    assert {name: row[name] for name in body} == {name: body[name] if name in dimensions else "" for name in body}


# Cohorts: CVR by click time


def converted(event_id: str, age_ms: int | None, at_ms: int = T0, **fields: Any) -> Document:
    touch = {"touch_type": "click", "touch_time_ms": None if age_ms is None else at_ms - age_ms}
    return document(Input.CONVERSIONS, event_id, at_ms, **{"attribution": touch, **fields})


def cohorts(fed: Fed) -> dict[tuple[int, int], tuple[int, int]]:
    """(click hour after T0, age bucket) to (conversions, value)."""
    return {
        ((row["click_hour"] * 1000 - T0) // HOUR, row["age_bucket_ms"]): (
            row["conversions"],
            row["conversion_value_micros"],
        )
        for row in fed.rows[Table.COHORTS].values()
    }


def test_a_conversion_is_counted_again_by_the_hour_of_its_click_and_its_age() -> None:
    fed = Fed().feed(
        Input.CONVERSIONS,
        converted("a", MINUTE, currency="USD", value_micros=10),
        converted("b", 2 * MINUTE, currency="USD", value_micros=5),
        converted("c", 61 * MINUTE, currency="USD", value_micros=7),
        converted("d", 5 * HOUR, currency="USD"),
        converted("e", 40 * DAY, currency="USD", value_micros=1),
    )
    fed.tick()
    assert cohorts(fed) == {
        (-1, 0): (2, 15),
        (-2, HOUR): (1, 7),
        (-5, 3 * HOUR): (1, 0),
        (-960, 30 * DAY): (1, 1),
    }


def test_only_what_counts_towards_cvr_is_in_a_cohort() -> None:
    fed = Fed().feed(
        Input.CONVERSIONS,
        converted("paid", MINUTE, conversion_type="paid"),
        converted("view", MINUTE, attribution={"touch_type": "view", "touch_time_ms": T0}),
        converted("timeless", None),
        document(Input.CONVERSIONS, "unattributed"),
        converted("twice", MINUTE),
        converted("twice", MINUTE),
        converted("late", MINUTE, T0 - 31 * DAY),
    )
    fed.tick()
    assert cohorts(fed) == {(-1, 0): (1, 0)}


def test_money_that_is_refused_is_in_no_cohort_but_its_conversion_is() -> None:
    fed = Fed()
    fed.settle(currency="EUR").tick()
    fed.feed(Input.CONVERSIONS, converted("a", MINUTE, currency="USD", value_micros=10))
    fed.tick()
    assert cohorts(fed) == {(-1, 0): (1, 0)}
    assert fed.one(Table.COHORTS)["currency"] == "EUR"


@pytest.mark.parametrize(
    ("age_ms", "bucket_ms"),
    [
        (-1, 0),
        (-10 * DAY, 0),
        (0, 0),
        (5 * MINUTE - 1, 0),
        (5 * MINUTE, 5 * MINUTE),
        (HOUR - 1, 5 * MINUTE),
        (HOUR, HOUR),
        (3 * HOUR, 3 * HOUR),
        (12 * HOUR - 1, 6 * HOUR),
        (DAY, DAY),
        (3 * DAY - 1, 2 * DAY),
        (7 * DAY, 7 * DAY),
        (30 * DAY - 1, 14 * DAY),
        (30 * DAY, 30 * DAY),
        (400 * DAY, 30 * DAY),
    ],
)
def test_an_age_falls_into_the_bucket_that_begins_at_or_before_it(age_ms: int, bucket_ms: int) -> None:
    assert age_bucket_ms(age_ms) == bucket_ms


def test_age_buckets_rise_from_zero() -> None:
    assert AGE_BUCKETS_MS[0] == 0
    assert list(AGE_BUCKETS_MS) == sorted(set(AGE_BUCKETS_MS))
