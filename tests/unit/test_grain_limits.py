"""Panes: origin and effect, what changes a row, and what happens beyond the limit of keys."""

import numpy as np
import pytest

from streams.events import Input
from streams.records import MEASURES, Table
from streams.rules import LIMIT
from streams.state import grain
from streams.state.grain import codes_of, group
from streams.state.keys import other_of
from tests.unit.given import HOUR, MINUTE, T0, Document, Fed, document, nonzero, quick_rules

SOURCE = Input.IMPRESSIONS


def impression(event_id: str, at_ms: int = T0, **fields: object) -> Document:
    return document(SOURCE, event_id, at_ms, **fields)


def panes(fed: Fed, table: Table = Table.PANES, measure: str = "impressions") -> dict[tuple[int, int], int]:
    """(origin, effect) in seconds after T0 to a measure."""
    at = T0 // 1000
    return {(row["origin_pane"] - at, row["effect_pane"] - at): row[measure] for row in fed.rows[table].values()}


# Origin and effect


def test_an_event_on_time_has_one_pane_of_both_kinds() -> None:
    fed = Fed().feed(SOURCE, impression("a", T0), impression("b", T0 + 9_999), impression("c", T0 + 10_000))
    fed.tick()
    assert panes(fed) == {(0, 0): 2, (10, 10): 1}


def test_a_late_event_makes_a_row_of_todays_effect_pane() -> None:
    fed = Fed().feed(SOURCE, impression("a", T0), impression("now", T0 + 5 * MINUTE))
    fed.tick()
    fed.feed(SOURCE, impression("late", T0 + 15_000))
    fed.tick()
    assert panes(fed) == {(0, 0): 1, (300, 300): 1, (10, 300): 1}


def test_an_older_row_is_never_opened_again() -> None:
    fed = Fed().feed(SOURCE, impression("a", T0))
    fed.tick()
    fed.feed(SOURCE, impression("now", T0 + MINUTE), impression("late", T0))
    rows = fed.tick()[Table.PANES]
    assert {row["effect_pane"] for row in rows} == {T0 // 1000 + 60}
    assert panes(fed) == {(0, 0): 1, (60, 60): 1, (0, 60): 1}


def test_the_effect_pane_is_where_the_inputs_own_newest_event_stands() -> None:
    fed = Fed().feed(Input.CLICKS, document(Input.CLICKS, "c", T0 + HOUR)).feed(SOURCE, impression("a", T0))
    fed.tick()
    effects = {row["input"]: row["effect_pane"] - T0 // 1000 for row in fed.rows[Table.PANES].values()}
    assert effects == {"clicks": 3_600, "impressions": 0}


def test_the_effect_pane_moves_with_the_event_that_moves_it() -> None:
    fed = Fed().feed(SOURCE, impression("a", T0), impression("b", T0 + MINUTE), impression("c", T0 + 1))
    fed.tick()
    assert panes(fed) == {(0, 0): 1, (60, 60): 1, (0, 60): 1}


def test_rows_state_totals_so_far() -> None:
    fed = Fed().feed(SOURCE, impression("a"))
    assert [row["impressions"] for row in fed.tick()[Table.PANES]] == [1]
    fed.feed(SOURCE, impression("b"), impression("c"))
    assert [row["impressions"] for row in fed.tick()[Table.PANES]] == [3]
    assert fed.tick()[Table.PANES] == []


def test_a_row_holds_the_measures_of_its_own_input_in_their_places() -> None:
    fed = Fed().feed(Input.ENGAGEMENTS, document(Input.ENGAGEMENTS, "a", engagement_type="negative_feedback"))
    fed.tick()
    assert nonzero(fed.one()) == {MEASURES[-1]: 1} == {"negative_feedbacks": 1}


def test_report_panes_are_wider() -> None:
    fed = Fed().feed(SOURCE, impression("a", T0 + 5_000), impression("b", T0 + 55_000), impression("c", T0 + 65_000))
    fed.tick()
    assert panes(fed, Table.REPORTS) == {(0, 0): 2, (60, 60): 1}
    assert {row["pane_ms"] for row in fed.rows[Table.REPORTS].values()} == {60_000}


def test_pane_sizes_are_rules() -> None:
    fed = Fed(quick_rules(pane_ms=30_000, report_pane_ms=300_000))
    fed.feed(SOURCE, impression("a", T0 + 29_999), impression("b", T0 + 30_000))
    fed.tick()
    assert panes(fed) == {(0, 0): 1, (30, 30): 1}
    assert panes(fed, Table.REPORTS) == {(0, 0): 2}


def test_an_open_report_waits_for_its_time_and_a_closed_one_goes_at_the_next_tick() -> None:
    fed = Fed(quick_rules(report_every_ms=10_000))
    fed.tick()  # publishes, and so sets the time
    fed.feed(SOURCE, impression("a"))
    assert fed.tick()[Table.REPORTS] == []
    fed.feed(SOURCE, impression("b", T0 + MINUTE))
    assert {row["origin_pane"] - T0 // 1000: row["impressions"] for row in fed.tick()[Table.REPORTS]} == {0: 1, 60: 1}
    fed.feed(SOURCE, impression("c", T0 + MINUTE))
    assert fed.tick()[Table.REPORTS] == []
    fed.wall_ms += 10_000
    assert [row["impressions"] for row in fed.tick()[Table.REPORTS]] == [2]


# The limit of keys


def test_beyond_the_limit_a_key_folds_into_its_campaigns_other() -> None:
    fed = Fed(quick_rules(max_pane_keys=2))
    fed.feed(SOURCE, *(impression(f"e{n}", ad_unit_id=f"u{n}", creative_id="v", currency="USD") for n in range(5)))
    fed.tick()
    found = {
        (row["campaign_id"], row["ad_unit_id"], row["creative_id"], row["variant"], row["currency"]): row["impressions"]
        for row in fed.rows[Table.PANES].values()
    }
    assert found == {
        ("c1", "u0", "v", "", "USD"): 1,
        ("c1", "u1", "v", "", "USD"): 1,
        ("c1", "other", "other", "other", "USD"): 3,
    }


def test_folded_keys_keep_their_currency() -> None:
    fed = Fed(quick_rules(max_pane_keys=1))
    prices = {"clearing_price_millimicros": 10}
    events = [
        impression(f"e{n}", ad_unit_id=f"u{n}", currency=c, **prices) for n, c in enumerate(["USD", "EUR", "USD"])
    ]
    fed.feed(SOURCE, *events)
    fed.tick()
    found = {(row["ad_unit_id"], row["currency"]): row["spend_millimicros"] for row in fed.rows[Table.PANES].values()}
    assert found == {("u0", "USD"): 10, ("other", "EUR"): 10, ("other", "USD"): 10}


def test_beyond_twice_the_limit_campaigns_fold_too() -> None:
    fed = Fed(quick_rules(max_pane_keys=2))
    fed.feed(SOURCE, *(impression(f"e{n}", campaign_id=f"c{n}") for n in range(7)))
    fed.tick()
    found = {(row["campaign_id"], row["ad_unit_id"]): row["impressions"] for row in fed.rows[Table.PANES].values()}
    assert found == {("c0", ""): 1, ("c1", ""): 1, ("c2", "other"): 1, ("c3", "other"): 1, ("other", "other"): 3}


def test_no_event_is_lost_beyond_the_limit() -> None:
    fed = Fed(quick_rules(max_pane_keys=3, max_report_keys=2))
    fed.feed(SOURCE, *(impression(f"e{n}", campaign_id=f"c{n % 20}", region=f"r{n % 7}") for n in range(200)))
    fed.tick()
    assert fed.total("impressions") == fed.total("impressions", Table.REPORTS) == 200
    assert len(fed.rows[Table.PANES]) <= 2 * 3 + 1
    assert len(fed.rows[Table.REPORTS]) <= 2 * 2 + 1


def test_what_was_folded_is_counted() -> None:
    fed = Fed(quick_rules(max_pane_keys=2))
    fed.feed(SOURCE, *(impression(f"e{n}", ad_unit_id=f"u{n}") for n in range(5)))
    fed.tick()
    assert fed.state.inputs[SOURCE].panes.folded_rows == 3


def test_admission_is_by_first_appearance_and_holds_for_the_pane() -> None:
    fed = Fed(quick_rules(max_pane_keys=1))
    fed.feed(SOURCE, impression("a", ad_unit_id="first"), impression("b", ad_unit_id="second"))
    fed.tick()
    fed.feed(SOURCE, impression("c", ad_unit_id="second"), impression("d", ad_unit_id="first"))
    fed.tick()
    found = {row["ad_unit_id"]: row["impressions"] for row in fed.rows[Table.PANES].values()}
    assert found == {"first": 2, "other": 2}


def test_a_new_effect_pane_admits_anew() -> None:
    fed = Fed(quick_rules(max_pane_keys=1))
    fed.feed(SOURCE, impression("a", ad_unit_id="first"), impression("b", ad_unit_id="second"))
    fed.feed(SOURCE, impression("c", T0 + 10_000, ad_unit_id="second"))
    fed.tick()
    found = {(row["effect_pane"] - T0 // 1000, row["ad_unit_id"]) for row in fed.rows[Table.PANES].values()}
    assert found == {(0, "first"), (0, "other"), (10, "second")}


def test_report_keys_fold_their_dimensions_too() -> None:
    fed = Fed(quick_rules(max_report_keys=1))
    fed.feed(SOURCE, *(impression(f"e{n}", region=f"r{n}", channel="feed", currency="USD") for n in range(3)))
    fed.tick()
    found = {
        (row["ad_unit_id"], row["region"], row["channel"], row["currency"]): row["impressions"]
        for row in fed.rows[Table.REPORTS].values()
    }
    assert found == {("", "r0", "feed", "USD"): 1, ("other", "other", "other", "USD"): 2}


def test_each_origin_pane_has_an_other_of_its_own() -> None:
    fed = Fed(quick_rules(max_pane_keys=1))
    fed.feed(SOURCE, impression("a", T0 + 20_000), impression("b", T0), impression("c", T0 + 10_000))
    fed.tick()
    at = T0 // 1000
    found = {(row["origin_pane"] - at, row["ad_unit_id"]): row["impressions"] for row in fed.rows[Table.PANES].values()}
    assert found == {(20, ""): 1, (0, "other"): 1, (10, "other"): 1}


def test_other_keeps_campaign_currency_validity_and_numbers() -> None:
    key = ("c", "u", "v", "x=a", "USD", "givt", "region", 300_000)
    assert other_of(key) == ("c", "other", "other", "other", "USD", "givt", "other", 300_000)


# The grain by itself


def test_waiting_rows_are_grouped_in_place_without_changing_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [impression(f"e{n}", T0 + n % 3 * 10_000, campaign_id=f"c{n % 7}") for n in range(2_000)]
    plain = Fed()
    plain.feed(SOURCE, *events).tick()
    monkeypatch.setattr(grain, "CONSOLIDATE_AT", 100)
    grouped = Fed()
    for start in range(0, 2_000, 50):
        grouped.feed(SOURCE, *events[start : start + 50])
    assert len(grouped.state.inputs[SOURCE].panes.snapshot()["names"]) <= 100
    grouped.tick()
    assert grouped.rows == plain.rows


@pytest.mark.parametrize("far", [0, 1 << 61])
def test_group_brings_equal_rows_together_and_finds_the_first_of_each(far: int) -> None:
    columns = ([1000, 1000, 1000, 1000], [5000, 4000, 5000, 5000], [2, 2, 2, 1 + far])
    order, starts, first = group(codes_of(*(np.array(column, dtype=np.int64) for column in columns)))
    members = [sorted(part.tolist()) for part in np.split(order, starts[1:])]
    assert sorted(members) == [[0, 2], [1], [3]]
    assert [min(part) for part in members] == first.tolist()


@pytest.mark.parametrize("ticks", [1, 4])
def test_amounts_beyond_64_bits_are_clamped_and_never_turn_negative(ticks: int) -> None:
    fed = Fed()
    events = [impression(f"e{n}", currency="USD", clearing_price_millimicros=10**15) for n in range(9_600)]
    for start in range(ticks):
        fed.feed(SOURCE, *events[start::ticks])
        fed.tick()
    assert fed.one()["spend_millimicros"] == LIMIT < 2**63
    assert fed.one()["impressions"] == 9_600


def test_large_amounts_that_fit_are_exact() -> None:
    fed = Fed()
    events = [impression(f"e{n}", currency="USD", clearing_price_millimicros=10**15 - n) for n in range(4_000)]
    fed.feed(SOURCE, *events[:2_500], *events[2_500:])
    fed.tick()
    assert fed.one()["spend_millimicros"] == 4_000 * 10**15 - 7_998_000


def test_a_clamp_ends_with_its_pane() -> None:
    fed = Fed()
    fed.feed(SOURCE, *(impression(f"e{n}", currency="USD", clearing_price_millimicros=10**15) for n in range(9_600)))
    fed.tick()
    fed.feed(SOURCE, impression("later", T0 + 10_000, currency="USD", clearing_price_millimicros=7))
    fed.tick()
    assert sorted(row["spend_millimicros"] for row in fed.rows[Table.PANES].values()) == [7, LIMIT]
