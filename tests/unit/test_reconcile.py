"""Somebody else's totals against ours: every difference is explained, or named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import ConfigurationError
from streams.events import Input
from streams.jobs.log_totals import totals_of_events
from streams.jobs.ordering import LoadedEvent
from streams.jobs.reconcile import Lost, Place, Tolerance, Totals, companions, read_totals, reconcile
from streams.rules import Rules

KNOWN = frozenset(
    ("impressions", "gross_impressions", "clicks", "watched_ms", "conversions", "spend_micros", "gross_spend_micros")
)
DAY = "2026-11-30"
HOUR_MS = 3_600_000


def totals(**measures: int) -> Totals:
    return Totals(tuple(measures), {Place("c1", DAY): dict(measures)})


def lost(source: Input, **counts: int) -> dict[tuple[str, str], dict[Input, Lost]]:
    return {("c1", DAY): {source: Lost(**counts)}}


def test_figures_that_agree_make_no_difference() -> None:
    found = reconcile(totals(impressions=5, clicks=1), totals(impressions=5, clicks=1, gross_impressions=5), {})
    assert (found.figures, found.differences, found.open) == (2, [], [])


def test_a_higher_figure_is_explained_by_duplicates_then_by_late_events() -> None:
    ledger = lost(Input.IMPRESSIONS, duplicates=4, late=10)
    (difference,) = reconcile(totals(impressions=17), totals(impressions=10), ledger).differences
    assert difference.explained == {"duplicates": 4, "late": 3}
    assert (difference.unexplained, difference.is_open) == (0, False)


def test_what_the_ledger_does_not_cover_is_unexplained() -> None:
    found = reconcile(totals(impressions=20), totals(impressions=10), lost(Input.IMPRESSIONS, duplicates=4))
    (difference,) = found.open
    assert (difference.explained, difference.unexplained) == ({"duplicates": 4}, 6)


def test_another_inputs_duplicates_explain_nothing() -> None:
    found = reconcile(totals(clicks=12), totals(clicks=10), lost(Input.IMPRESSIONS, duplicates=50))
    assert [difference.unexplained for difference in found.open] == [2]


def test_a_figure_of_ours_that_is_higher_is_never_explained() -> None:
    found = reconcile(totals(impressions=8), totals(impressions=10), lost(Input.IMPRESSIONS, duplicates=50, late=50))
    assert [difference.unexplained for difference in found.open] == [-2]


def test_invalid_traffic_explains_what_gross_figures_add() -> None:
    found = reconcile(totals(impressions=13), totals(impressions=10, gross_impressions=13), {})
    assert [(d.explained, d.is_open) for d in found.differences] == [({"invalid traffic": 3}, False)]


def test_money_is_never_explained_by_events_whose_amounts_were_not_kept() -> None:
    ledger = lost(Input.CLICKS, duplicates=2, late=1, money_rejected=4)
    (difference,) = reconcile(totals(spend_micros=1_500), totals(spend_micros=1_000), ledger).open
    assert (difference.explained, difference.unexplained) == ({}, 500)
    assert difference.remark == "amounts are not kept of 2 duplicates, 1 late, 4 money rejected"


def test_invalid_traffic_explains_money_too() -> None:
    found = reconcile(totals(spend_micros=1_500), totals(spend_micros=1_000, gross_spend_micros=1_500), {})
    assert found.open == []


def test_watched_time_is_not_explained_event_by_event() -> None:
    found = reconcile(totals(watched_ms=900), totals(watched_ms=0), lost(Input.PLAYS, duplicates=1_000))
    assert [difference.unexplained for difference in found.open] == [900]


@pytest.mark.parametrize(
    ("tolerance", "open_figures"),
    [(Tolerance(), 1), (Tolerance(amount=4), 1), (Tolerance(amount=5), 0), (Tolerance(share=0.05), 0)],
)
def test_a_tolerance_closes_a_small_remainder(tolerance: Tolerance, open_figures: int) -> None:
    found = reconcile(totals(impressions=105), totals(impressions=100), {}, tolerance)
    assert (len(found.differences), len(found.open)) == (1, open_figures)


def test_a_day_that_only_we_have_is_compared_with_0() -> None:
    theirs = Totals(("clicks",), {Place("c1", "2026-11-01"): {"clicks": 1}, Place("c1", "2026-11-03"): {"clicks": 1}})
    days = ("2026-10-31", "2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04")
    ours = Totals(("clicks",), {Place(c, day): {"clicks": 1} for c in ("c1", "c2") for day in days})
    found = reconcile(theirs, ours, {})
    assert [(d.place, d.theirs, d.ours) for d in found.differences] == [(Place("c1", "2026-11-02"), 0, 1)]


def test_what_a_campaign_does_not_state_is_not_compared_on_any_of_its_days() -> None:
    stated = {Place(c, f"2026-11-0{day}"): {"clicks": 1, "spend_micros": 7} for c in ("c1", "c2") for day in (1, 3)}
    theirs = Totals(("clicks", "spend_micros"), stated, unstated=frozenset({("c1", "spend_micros")}))
    days = {Place(c, f"2026-11-0{day}"): {"clicks": 1, "spend_micros": 8} for c in ("c1", "c2") for day in (1, 2, 3)}
    found = reconcile(theirs, Totals(theirs.measures, days), {})
    spends = {(d.place.campaign_id, d.place.day) for d in found.differences if d.measure == "spend_micros"}
    assert spends == {("c2", f"2026-11-0{day}") for day in (1, 2, 3)}


def test_a_campaign_that_we_do_not_have_is_unexplained() -> None:
    assert len(reconcile(totals(clicks=1), Totals(("clicks",), {}), {}).open) == 1


def test_currencies_are_added_up_for_counts_and_never_for_money() -> None:
    places = (Place("c1", DAY, "CNY"), Place("c1", DAY, "USD"))
    counts = Totals(("clicks",), {place: {"clicks": 2} for place in places})
    assert reconcile(totals(clicks=4), counts, {}).differences == []
    money = Totals(("spend_micros",), {place: {"spend_micros": 2} for place in places})
    with pytest.raises(ConfigurationError, match="currency"):
        reconcile(totals(spend_micros=4), money, {})
    named = Totals(("spend_micros",), {place: {"spend_micros": 2} for place in places}, names_currency=True)
    assert reconcile(named, money, {}).differences == []


def test_days_cut_in_another_time_zone_are_hinted_at() -> None:
    days = [Place("c1", "2026-11-01"), Place("c1", "2026-11-02")]
    theirs = Totals(("clicks",), {days[0]: {"clicks": 6}, days[1]: {"clicks": 4}})
    ours = Totals(("clicks",), {days[0]: {"clicks": 5}, days[1]: {"clicks": 5}})
    assert "time zone" in reconcile(theirs, ours, {}).hints[0]


@given(
    theirs=st.integers(0, 1_000),
    ours=st.integers(0, 1_000),
    invalid=st.integers(0, 50),
    duplicates=st.integers(0, 50),
    late=st.integers(0, 50),
)
def test_explained_and_unexplained_always_add_up(
    theirs: int, ours: int, invalid: int, duplicates: int, late: int
) -> None:
    ledger = lost(Input.IMPRESSIONS, duplicates=duplicates, late=late)
    mine = totals(impressions=ours, gross_impressions=ours + invalid)
    for difference in reconcile(totals(impressions=theirs), mine, ledger).differences:
        assert sum(difference.explained.values()) + difference.unexplained == theirs - ours
        assert all(part > 0 for part in difference.explained.values())
        assert difference.unexplained == 0 or abs(difference.unexplained) <= abs(theirs - ours)


def test_totals_are_read_from_csv_and_rows_of_one_place_are_summed() -> None:
    lines = ["campaign_id, day,clicks,impressions\n", "c1,2026-11-30,1,\n", " c1 ,20261130,2,7\n", "c2,2026-11-30,,0\n"]
    read = read_totals(lines, KNOWN, "f.csv")
    assert read.rows == {Place("c1", DAY): {"clicks": 3, "impressions": 7}, Place("c2", DAY): {"impressions": 0}}
    assert not read.names_currency


def test_every_fault_of_a_file_is_told_at_once() -> None:
    lines = ["campaign_id,day,clicks\n", "c1,2026-11-31,1\n", "c1,2026-11-30,1.5\n", "c1,,x\n"]
    with pytest.raises(ConfigurationError) as caught:
        read_totals(lines, KNOWN, "f.csv")
    told = str(caught.value)
    wanted = ["f.csv", "line 2: day '2026-11-31'", "line 3: clicks '1.5'", "line 4: day ''", "line 4: clicks 'x'"]
    assert [what for what in wanted if what not in told] == []


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("campaign_id,clicks", "day is missing"),
        ("campaign_id,date,clicks", "did you mean day"),
        ("campaign_id,day,impresions", "did you mean impressions"),
        ("campaign_id,day,spend", "did you mean spend_micros"),
        ("campaign_id,day", "no measure"),
        ("campaign_id,day,clicks,clicks", "twice"),
        ("", "campaign_id is missing"),
    ],
)
def test_a_wrong_header_says_what_is_meant(header: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        read_totals([header + "\n"], KNOWN, "f.csv")


def test_gross_figures_are_asked_for_beside_the_plain_ones() -> None:
    assert companions(("impressions", "clicks"), KNOWN) == ("impressions", "clicks", "gross_impressions")


def loaded(source: Input, event_id: str, at_ms: int, more: str = "") -> LoadedEvent:
    value = f'{{"event_id":"{event_id}","event_time_ms":{at_ms},"campaign_id":"c1"{more}}}'
    return LoadedEvent(source, at_ms, "c1", value.encode())


PRICE = ',"currency":"CNY","clearing_price_millimicros":'


def test_logs_are_counted_once_for_each_id_in_the_campaigns_days() -> None:
    events = [
        loaded(Input.IMPRESSIONS, "a", 15 * HOUR_MS, f"{PRICE}1400"),
        loaded(Input.IMPRESSIONS, "a", 15 * HOUR_MS + 1, f"{PRICE}9000"),
        loaded(Input.IMPRESSIONS, "b", 16 * HOUR_MS, f"{PRICE}1400"),
        loaded(Input.IMPRESSIONS, "c", 17 * HOUR_MS, f"{PRICE}1400"),
        loaded(Input.CLICKS, "a", 17 * HOUR_MS),
    ]
    found = totals_of_events(events, {"c1": "Asia/Shanghai"}, Rules())
    assert found.measures == ("impressions", "clicks", "spend_micros")
    assert found.rows == {
        Place("c1", "1970-01-01"): {"impressions": 1, "clicks": 0, "spend_micros": 1},
        Place("c1", "1970-01-02"): {"impressions": 2, "clicks": 1, "spend_micros": 3},
    }


def test_only_conversions_that_are_credited_to_a_click_are_counted() -> None:
    def conversion(name: str, kind: str, touch: str) -> LoadedEvent:
        more = f',"conversion_type":"{kind}","attribution":{{"touch_type":"{touch}"}}'
        return loaded(Input.CONVERSIONS, name, 0, more)

    events = [
        conversion("1", "order", "click"),
        conversion("2", "order", "view"),
        conversion("3", "paid", "click"),
        loaded(Input.CONVERSIONS, "4", 0, ',"conversion_type":"order"'),
    ]
    assert totals_of_events(events, {}, Rules()).rows == {Place("c1", "1970-01-01"): {"conversions": 1}}
