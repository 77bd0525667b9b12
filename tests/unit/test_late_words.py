"""Words that come late: what an event had added moves between validities, once, and back; its cost is given back."""

from typing import Any
from unittest import mock

import pytest
import xxhash

from streams.events import Input
from streams.invalid import InvalidRules, Mode, Rule
from streams.records import MEASURES, Table
from streams.state import flags, traces
from streams.state.checkpoint import capture, restore
from streams.state.inputs import Batch
from streams.state.partition import PartitionState
from streams.state.windows import WINDOW_MEASURES
from streams.topics import VERDICTS
from tests.unit.given import HOUR, MINUTE, SECOND, T0, Document, Fed, document, quick_rules, record

ALL_ON = InvalidRules(modes=dict.fromkeys(Rule, Mode.ON))
CPC = {"model": "cpc", "price_micros": 7}
CPA = {"model": "cpa", "price_micros": 9, "conversion_type": "lead"}
PRICE = 7_000
Sums = dict[str, dict[str, int]]


def fed(billing: Document | None = None, rules: InvalidRules = ALL_ON) -> Fed:
    """A partition with a campaign."""
    found = Fed(quick_rules(invalid=rules)).settle(billing=billing or CPC)
    found.tick()
    return found


def hear(one: Fed, **word: Any) -> None:
    """A word is read, and a tick passes."""
    found = record(one.state.position(VERDICTS), word, T0)
    one.state.apply(Batch(VERDICTS, 0, found.offset, found.offset + 1, [found]))
    one.tick()


def digest(event_id: str) -> str:
    return xxhash.xxh3_128_hexdigest(event_id.encode())


def accuse(one: Fed, *ids: str, rule: str = "user_velocity") -> None:
    """A source's verdict."""
    clicks = [digest(event_id) for event_id in ids]
    hear(one, type="verdict", rule=rule, source_kind="user", source="s", clicks=clicks)


def review(one: Fed, event_id: str, decision: str, source: str = "clicks", campaign: str = "c1") -> None:
    """A reviewer's."""
    fields = {"campaign_id": campaign, "input": source, "event_id": event_id, "decision": decision}
    hear(one, type="review", reviewer="r", reason="seen", at_ms=T0, **fields)


def sums(one: Fed, table: Table = Table.PANES) -> Sums:
    """By validity: what is not zero, over all rows that stand; how many were judged is left out."""
    names = ("conversions", "conversion_value_micros") if table is Table.COHORTS else MEASURES
    found: Sums = {}
    for row in one.rows[table].values():
        into = found.setdefault(row["validity"], {})
        for name in names:
            into[name] = into.get(name, 0) + row[name]
    left = {v: {name: n for name, n in of.items() if n and name != "undecided"} for v, of in found.items()}
    return {validity: of for validity, of in left.items() if of}


def gross(one: Fed, table: Table = Table.PANES) -> dict[str, int]:
    """Over all validities."""
    found: dict[str, int] = {}
    for of in sums(one, table).values():
        for name, amount in of.items():
            found[name] = found.get(name, 0) + amount
    return {name: amount for name, amount in found.items() if amount}


def window(one: Fed) -> dict[str, int]:
    """The last hour's."""
    totals = one.state.windows.totals("c1", "1h")
    return {name: amount for name, amount in zip(WINDOW_MEASURES, totals, strict=True) if amount}


def click(event_id: str = "k1", at_ms: int = T0, **fields: Any) -> Document:
    return document(Input.CLICKS, event_id, at_ms, **fields)


def lead(event_id: str, **fields: Any) -> Document:
    touch = {"touch_type": "click", "touch_id": "k1", "touch_time_ms": T0}
    return document(Input.CONVERSIONS, event_id, T0 + MINUTE, conversion_type="lead", attribution=touch, **fields)


def rejection(event_id: str, of: str) -> Document:
    fields = {"adjustment_type": "rejected_lead", "adjusted_event_id": of, "adjusted_event_time_ms": T0}
    return document(Input.ADJUSTMENTS, event_id, T0 + 2 * MINUTE, **fields)


def reload(one: Fed) -> None:
    """A checkpoint, and a worker that takes over from it."""
    whole = capture(one.state, (), {})
    one.state = PartitionState(0, 1, 0, quick_rules())
    restore(one.state, whole.changed)


@pytest.mark.parametrize("table", [Table.PANES, Table.REPORTS])
def test_a_verdict_on_a_billed_click_moves_it_once_however_often_it_is_told(table: Table) -> None:
    one = fed()
    one.feed(Input.CLICKS, click("k1"), click("k2", T0 + SECOND)).tick()
    before = gross(one, table)
    assert sums(one, table)["valid"]["spend_millimicros"] == 2 * PRICE
    for time in range(5):
        accuse(one, "k1", "k1")
        if time in (0, 2):
            reload(one)
    found = sums(one, table)
    assert (found["valid"]["clicks"], found["sivt"]["clicks"]) == (1, 1)
    assert (found["valid"]["spend_millimicros"], found["sivt"]["spend_millimicros"]) == (PRICE, PRICE)
    assert gross(one, table) == before


def test_windows_and_pacing_follow() -> None:
    one = fed()
    one.feed(Input.CLICKS, click("k1"), click("k2", T0 + SECOND)).tick()
    accuse(one, "k1")
    assert window(one)["clicks"] == 1
    assert window(one)["gross_clicks"] == 2
    assert window(one)["spend_millimicros"] == PRICE
    assert window(one)["gross_spend_millimicros"] == 2 * PRICE
    review(one, "k1", "overturn")
    assert window(one)["clicks"] == window(one)["gross_clicks"] == 2
    assert window(one)["spend_millimicros"] == 2 * PRICE


def test_the_row_stands_at_the_clicks_pane_with_effect_today() -> None:
    one = fed()
    one.feed(Input.CLICKS, click("k1"), click("k2", T0 + HOUR)).tick()
    accuse(one, "k1")
    rows = [row for row in one.rows[Table.PANES].values() if row["input"] == "journal"]
    assert {(r["origin_pane"], r["effect_pane"]) for r in rows} == {(T0 // 1000, (T0 + HOUR) // 1000)}
    assert {r["validity"]: r["clicks"] for r in rows} == {"valid": -1, "sivt": 1}
    (flag,) = one.rows[Table.FLAGS].values()
    assert (flag["event_time"], flag["effect_pane"]) == (T0 // 1000, (T0 + HOUR) // 1000)


def test_a_flag_that_an_event_is_counted_under_has_effect_where_its_row_has() -> None:
    """Not where the tick stands, which tells of it: that may be much later."""
    one, late_ms = fed(), T0 + MINUTE
    pane_ms = one.state.rules.pane_ms
    bots = [document(Input.IMPRESSIONS, f"i{at_ms}", at_ms, prefetch=True) for at_ms in (late_ms, T0, T0 + HOUR)]
    one.feed(Input.IMPRESSIONS, *bots).tick()
    rows = {(row["origin_pane"], row["effect_pane"]) for row in one.rows[Table.PANES].values() if row["impressions"]}
    told = {
        (row["event_time"] - row["event_time"] % (pane_ms // 1000), row["effect_pane"])
        for row in one.rows[Table.FLAGS].values()
    }
    assert told == rows
    assert len({effect for _, effect in told}) == 2


@pytest.mark.parametrize("table", [Table.PANES, Table.REPORTS])
def test_an_overturned_flag_restores_everything(table: Table) -> None:
    one = fed()
    one.feed(Input.CLICKS, click("k1"), click("k2", T0 + SECOND)).tick()
    before, shown = sums(one, table), window(one)
    accuse(one, "k1")
    assert sums(one, table) != before
    reload(one)
    review(one, "k1", "overturn")
    assert (sums(one, table), window(one)) == (before, shown)
    accuse(one, "k1", rule="device_velocity")  # the reviewer outranks what comes later, too
    assert sums(one, table) == before
    states = {row["rule"]: row["state"] for row in one.rows[Table.FLAGS].values()}
    assert states == {"user_velocity": "raised", "review": "overturned", "device_velocity": "raised"}


def test_a_reviewer_confirms_what_no_rule_has_flagged() -> None:
    one = fed()
    one.feed(Input.CLICKS, click("k1")).tick()
    review(one, "k1", "confirm")
    assert sums(one)["sivt"]["clicks"] == 1
    assert "valid" not in sums(one)
    (flag,) = one.rows[Table.FLAGS].values()
    assert (flag["rule"], flag["state"], flag["reviewer"]) == ("review", "confirmed", "r")
    review(one, "k1", "overturn")
    assert sums(one)["valid"]["clicks"] == 1
    assert "sivt" not in sums(one)


def test_a_flagged_impression_can_be_reviewed() -> None:
    one = fed()
    one.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "i1", prefetch=True)).tick()
    assert sums(one) == {"givt": {"impressions": 1, "judged": 1}}
    review(one, "i1", "overturn", source="impressions")
    assert sums(one) == {"valid": {"impressions": 1, "judged": 1}}
    assert window(one)["impressions"] == window(one)["gross_impressions"] == 1


def test_a_cohort_moves_with_its_conversion() -> None:
    one = fed(CPA)
    one.feed(Input.CONVERSIONS, lead("l1", value_micros=5, currency="USD"), lead("l2")).tick()
    before = sums(one, Table.COHORTS)
    assert before == {"valid": {"conversions": 2, "conversion_value_micros": 5}}
    for _ in range(3):
        review(one, "l1", "confirm", source="conversions")
    assert sums(one, Table.COHORTS) == {
        "valid": {"conversions": 1},
        "sivt": {"conversions": 1, "conversion_value_micros": 5},
    }
    assert gross(one, Table.COHORTS) == {"conversions": 2, "conversion_value_micros": 5}
    review(one, "l1", "overturn", source="conversions")
    assert sums(one, Table.COHORTS) == before


@pytest.mark.parametrize("order", ["flag, credit", "credit, flag", "together"])
def test_a_rejected_lead_that_is_flagged_gives_its_cost_back_once(order: str) -> None:
    """Net valid spend is nothing, whether the flag or the credit came first; and what comes back comes back once."""
    one = fed(CPA)
    one.feed(Input.CONVERSIONS, lead("l1")).tick()
    assert window(one)["spend_millimicros"] == 9_000
    if order == "credit, flag":
        one.feed(Input.ADJUSTMENTS, rejection("r1", "l1")).tick()
        assert window(one).get("spend_millimicros", 0) == 0
        reload(one)
    if order == "together":
        one.feed(Input.ADJUSTMENTS, rejection("r1", "l1"))
    review(one, "l1", "confirm", source="conversions")
    if order == "flag, credit":
        assert window(one).get("spend_millimicros", 0) == 0
        one.feed(Input.ADJUSTMENTS, rejection("r1", "l1")).tick()
    found = sums(one)
    assert found["sivt"]["spend_millimicros"] == found["sivt"]["credited_millimicros"] == 9_000
    assert "credited_millimicros" not in found["valid"]
    assert window(one).get("spend_millimicros", 0) == 0
    review(one, "l1", "overturn", source="conversions")
    found = sums(one)
    assert found["valid"]["spend_millimicros"] == found["valid"]["credited_millimicros"] == 9_000
    assert "sivt" not in found
    assert window(one).get("spend_millimicros", 0) == 0


# Impressions that are missed


def impression(event_id: str, at_ms: int = T0) -> Document:
    return document(Input.IMPRESSIONS, event_id, at_ms)


def test_a_click_without_its_impression_is_flagged_until_it_comes_after_all() -> None:
    one = fed()
    one.feed(Input.IMPRESSIONS, impression("i0")).feed(
        Input.CLICKS, click("k1", T0 + SECOND, impression_id="i1")
    ).tick()
    assert sums(one)["valid"]["clicks"] == 1
    one.feed(Input.IMPRESSIONS, impression("i9", T0 + 2 * MINUTE)).tick()
    assert sums(one)["sivt"]["clicks"] == 1
    reload(one)
    one.feed(Input.IMPRESSIONS, impression("i1")).tick()
    assert sums(one)["valid"]["clicks"] == 1
    assert "sivt" not in sums(one)
    (flag,) = one.rows[Table.FLAGS].values()
    assert (flag["rule"], flag["state"]) == ("click_without_impression", "withdrawn")


def test_a_word_is_taken_back_though_its_rule_was_switched_off_meanwhile() -> None:
    one = fed()
    one.feed(Input.IMPRESSIONS, impression("i0")).feed(
        Input.CLICKS, click("k1", T0 + SECOND, impression_id="i1")
    ).tick()
    one.feed(Input.IMPRESSIONS, impression("i9", T0 + 2 * MINUTE)).tick()
    off = InvalidRules(modes=dict.fromkeys(Rule, Mode.OFF))
    one.tick(rules=quick_rules(invalid=off))
    one.feed(Input.IMPRESSIONS, impression("i1")).tick()
    assert "sivt" not in sums(one)


def test_a_click_whose_impressions_are_silent_is_not_flagged() -> None:
    one = fed()
    one.feed(Input.CLICKS, click("k1", impression_id="i1"), click("k2", T0 + HOUR)).tick()
    one.feed(Input.CLICKS, click("k3", T0 + 2 * HOUR)).tick()
    assert "sivt" not in sums(one)
    assert not one.rows[Table.FLAGS]


def test_what_was_before_the_first_impression_is_unverifiable() -> None:
    one = fed()
    one.feed(Input.CLICKS, click("k1", T0 - MINUTE, impression_id="i1"))
    one.feed(Input.IMPRESSIONS, impression("i2"), impression("i3", T0 + 5 * MINUTE)).tick()
    assert one.state.judging.touches[Input.CLICKS].unverifiable == 1
    assert not one.rows[Table.FLAGS]


# Words about nothing, and too many


def test_words_on_unknown_events_are_counted() -> None:
    one = fed()
    one.feed(Input.CLICKS, click("k1")).tick()
    accuse(one, "nobody", "nothing")
    review(one, "nobody", "confirm")
    review(one, "k1", "confirm", campaign="another")
    assert one.state.judging.book.unmatched == 4
    assert not one.rows[Table.FLAGS]


def test_organic_traffic_moves_without_windows() -> None:
    one = fed()
    one.feed(Input.CLICKS, click("k1", campaign_id=None, traffic="organic")).tick()
    accuse(one, "k1")
    assert sums(one)["sivt"]["clicks"] == 1
    assert "" not in one.state.windows.campaigns()


def test_of_very_many_flags_only_the_figures_are_told() -> None:
    one = fed()
    with mock.patch.object(traces, "MAX_TOLD", 3):
        events = [document(Input.IMPRESSIONS, f"i{n}", prefetch=True) for n in range(8)]
        one.feed(Input.IMPRESSIONS, *events).tick()
    assert len(one.rows[Table.FLAGS]) == 3
    assert one.state.judging.book.untold == 5
    assert sum(one.state.judging.book.told.values()) == 8
    assert sums(one)["givt"]["impressions"] == 8


def test_events_with_late_words_are_held_up_to_a_bound() -> None:
    one = fed()
    one.feed(Input.CLICKS, *[click(f"k{n}") for n in range(4)]).tick()
    with mock.patch.object(flags, "MAX_HELD", 2):
        accuse(one, *[f"k{n}" for n in range(4)])
    assert sums(one)["sivt"]["clicks"] == 2
    assert one.state.judging.book.beyond == 2


def test_held_clicks_are_forgotten_though_an_older_conversion_is_still_held() -> None:
    """Conversions are remembered for a month, clicks for a day."""
    one = fed(CPA)
    one.feed(Input.CONVERSIONS, lead("l1")).feed(Input.CLICKS, click("k1")).tick()
    review(one, "l1", "confirm", source="conversions")
    review(one, "k1", "confirm")
    assert len(one.state.judging.book) == 2
    one.feed(Input.CLICKS, click("k2", T0 + 26 * HOUR)).tick()
    assert len(one.state.judging.book) == 1


def test_an_impression_older_than_the_first_that_was_read_may_still_come() -> None:
    """Whether a click can be judged must not depend on which input was read first."""
    one = fed()
    one.feed(Input.CLICKS, click("k1", T0 - MINUTE, impression_id="i1"))
    one.feed(Input.IMPRESSIONS, impression("i2"), impression("i3", T0 + 5 * MINUTE)).tick()
    assert not one.rows[Table.FLAGS]
    reload(one)
    one.feed(Input.IMPRESSIONS, impression("i1", T0 - MINUTE - 100)).tick()
    (flag,) = one.rows[Table.FLAGS].values()
    assert (flag["rule"], flag["state"]) == ("click_too_soon", "raised")
