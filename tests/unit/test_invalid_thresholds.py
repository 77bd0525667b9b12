"""Thresholds are those of conversion and click types; honest habits of a short-video platform pass them, all rules on.

And a flag is told as it was decided, whatever its rule does by then.
"""

import json
from typing import Any

import pytest

from streams.events import ClickType, ConversionType, Input
from streams.invalid import MAX_REPEATS, InvalidRules, Mode, Rule
from streams.records import Table
from streams.state.checkpoint import capture, restore
from streams.state.partition import PartitionState
from tests.unit.given import MINUTE, SECOND, T0, Fed, document, quick_rules
from tests.unit.test_late_words import ALL_ON, accuse, click, fed, review

IMPRESSION = {"impression_id": "i1"}


def flags_of(one: Fed) -> dict[tuple[str, str], dict[str, Any]]:
    """By event id and rule: the row that stands."""
    return {(row["event_id"], row["rule"]): row for row in one.rows[Table.FLAGS].values()}


def converted(conversion_type: str, after_ms: int) -> dict[tuple[str, str], dict[str, Any]]:
    one = fed()
    touch = {"touch_type": "click", "touch_id": "k1", "touch_time_ms": T0}
    fields = {"conversion_type": conversion_type, "attribution": touch}
    one.feed(Input.CLICKS, click("k1")).feed(
        Input.CONVERSIONS, document(Input.CONVERSIONS, "o1", T0 + after_ms, **fields)
    )
    one.tick()
    return flags_of(one)


@pytest.mark.parametrize("conversion_type", ["order", "paid", "add_to_cart"])
def test_an_order_at_one_tap_may_take_seconds_or_none(conversion_type: str) -> None:
    assert converted(conversion_type, 3 * SECOND) == converted(conversion_type, 0) == {}


def test_an_install_needs_longer_than_a_form() -> None:
    assert set(converted("install", 1_500)) == set(converted("lead", 900)) == {("o1", "conversion_too_soon")}
    assert converted("lead", 1_500) == converted("install", 2_000) == {}
    assert set(InvalidRules().conversion_after_ms) == {
        ConversionType.INSTALL,
        ConversionType.LEAD,
        ConversionType.OTHER,
    }


def test_a_flash_sales_user_who_taps_twenty_cards_in_a_minute_is_not_flagged() -> None:
    one = fed()
    person = {"user_id": "p1", "device_id": "d1", "address_id": "a1"}
    cards = [click(f"k{n}", T0 + n * 3 * SECOND, creative_id=f"v{n}", product_id=f"g{n}", **person) for n in range(20)]
    one.feed(Input.CLICKS, *cards)
    one.tick()
    assert flags_of(one) == {}


def too_soon(click_type: str, after_ms: int) -> bool:
    rules = InvalidRules(modes=ALL_ON.modes, click_after_by_type_ms={ClickType.LIVE_ROOM_ENTRY: 0})
    one = fed(rules=rules)
    one.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "i1", T0))
    one.feed(Input.CLICKS, click("k1", T0 + after_ms, click_type=click_type, **IMPRESSION))
    one.tick()
    return ("k1", "click_too_soon") in flags_of(one)


def test_how_soon_a_click_may_come_depends_on_its_type() -> None:
    assert too_soon("card", 100)
    assert not too_soon("card", 300)
    assert not too_soon("live_room_entry", 100)


def taps(
    rules: InvalidRules, *kinds: str, every_ms: int = 10 * SECOND, impression_id: str | None = None
) -> set[tuple[str, str]]:
    """Clicks of one person, of these types: k0, k1, …; which of them are flagged, and by which rule."""
    one = fed(rules=rules)
    person = {"user_id": "p1", "device_id": "d1", "impression_id": impression_id}
    clicks = [click(f"k{n}", T0 + n * every_ms, click_type=kind, **person) for n, kind in enumerate(kinds)]
    one.feed(Input.CLICKS, *clicks).tick()
    return set(flags_of(one))


def test_the_second_half_of_a_double_click_has_a_time_by_type() -> None:
    rules = InvalidRules(modes=ALL_ON.modes, double_click_by_type_ms={ClickType.CARD: 300})
    assert taps(rules, "card", "card", every_ms=301) == set()
    assert taps(rules, "card", "card", every_ms=300) == {("k1", "double_click")}
    assert taps(rules, "live_room_entry", "live_room_entry", every_ms=1_000) == {("k1", "double_click")}
    assert taps(rules, "live_room_entry", "live_room_entry", every_ms=1_001) == set()


def test_the_activity_cap_counts_types_with_a_cap_of_their_own_by_themselves() -> None:
    """A flash sale's twenty cards do not use up what live rooms and buttons may have together."""
    rules = InvalidRules(modes=ALL_ON.modes, activity_clicks=3, activity_clicks_by_type={ClickType.CARD: 20})
    others = ("live_room_entry", "button", "live_room_entry")
    assert taps(rules, *["card"] * 20, *others) == set()
    assert taps(rules, *["card"] * 21, *others) == {("k20", "activity_cap")}
    assert taps(rules, *["card"] * 20, *others, "button") == {("k23", "activity_cap")}


def test_an_impression_may_be_clicked_on_more_often_by_one_type_than_by_another() -> None:
    """A shelf of cards is one impression."""
    rules = InvalidRules(modes=ALL_ON.modes, max_clicks_per_impression_by_type={ClickType.CARD: 5})
    shelf = ("card", "cover", "card", "card", "button", "card", "cover", "card")
    assert taps(rules, *shelf, **IMPRESSION) == set()
    assert taps(rules, *shelf, "card", **IMPRESSION) == {("k8", "repeated_click")}
    assert taps(rules, *shelf, "button", **IMPRESSION) == {("k8", "repeated_click")}
    most = InvalidRules(modes=ALL_ON.modes, max_clicks_per_impression_by_type={ClickType.CARD: MAX_REPEATS})
    assert taps(most, *["card"] * (MAX_REPEATS + 1), **IMPRESSION) == {(f"k{MAX_REPEATS}", "repeated_click")}


def test_a_flag_says_by_which_threshold_of_its_type_it_was_raised() -> None:
    rules = InvalidRules(
        modes=ALL_ON.modes,
        activity_clicks_by_type={ClickType.CARD: 1},
        max_clicks_per_impression_by_type={ClickType.CARD: 1},
        double_click_by_type_ms={ClickType.CARD: 5_000},
    )
    one = fed(rules=rules)
    same = {"user_id": "p1", "click_type": "card", **IMPRESSION}
    one.feed(Input.CLICKS, click("k1", T0, **same), click("k2", T0 + 4 * SECOND, **same)).tick()
    seen = {rule: json.loads(row["evidence"]) for (_, rule), row in flags_of(one).items()}
    assert seen == {
        "double_click": {"since_previous_ms": 4_000, "double_click_ms": 5_000},
        "activity_cap": {"clicks_in_hour": 2, "activity_clicks": 1, "click_type": "card"},
        "repeated_click": {"impression_id": "i1", "clicks_above": 1},
    }


@pytest.mark.parametrize(("then", "now"), [(Mode.OBSERVE, Mode.ON), (Mode.ON, Mode.OBSERVE)])
@pytest.mark.parametrize("decision", ["overturn", "confirm"])
def test_a_review_leaves_how_a_flag_was_decided(then: Mode, now: Mode, decision: str) -> None:
    """A rule that only observed has not excluded the event, though it be switched on before somebody looks."""
    one = fed(rules=InvalidRules(modes={Rule.USER_VELOCITY: then}))
    one.feed(Input.CLICKS, click("k1")).tick()
    accuse(one, "k1")
    one.tick(quick_rules(invalid=InvalidRules(modes={Rule.USER_VELOCITY: now})))
    review(one, "k1", decision)
    found = {rule: (row["mode"], row["state"]) for (_, rule), row in flags_of(one).items()}
    said = {"overturn": "overturned", "confirm": "confirmed"}[decision]
    assert found == {"user_velocity": (then.value, "raised"), "review": ("on", said)}


def test_a_withdrawn_flag_leaves_how_it_was_decided() -> None:
    one = fed(rules=InvalidRules(modes={Rule.CLICK_WITHOUT_IMPRESSION: Mode.OBSERVE}))
    one.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "i0", T0 - MINUTE))
    one.feed(Input.CLICKS, click("k1", T0, **IMPRESSION))
    one.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "i2", T0 + 5 * MINUTE)).tick()
    one.tick(quick_rules(invalid=InvalidRules(modes={Rule.CLICK_WITHOUT_IMPRESSION: Mode.ON})))
    one.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "i1", T0 - SECOND)).tick()
    row = flags_of(one)["k1", "click_without_impression"]
    assert (row["mode"], row["state"]) == ("observe", "withdrawn")


def test_sources_are_judged_by_the_rules_in_force_after_a_recovery() -> None:
    """Those of the worker that takes over hold from the tick that brings them."""
    one = fed()
    taken = PartitionState(0, 1, 0, quick_rules())
    restore(taken, capture(one.state, (), {}).changed)
    assert taken.judging.sources.rules == taken.rules.invalid == ALL_ON
