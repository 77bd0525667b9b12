"""Sliding windows per campaign: sums of panes by origin, up to the newest event time of the partition."""

import pytest

from streams.events import Input
from streams.rules import LIMIT
from streams.state import windows as module
from streams.state.windows import DAY, WINDOW_INDEX, WINDOW_MEASURES, WINDOWS_MS, Windows
from tests.unit.given import HOUR, MINUTE, SECOND, T0, Fed, document, quick_rules

SHOWN = WINDOW_INDEX["impressions"]
PANE = 10 * SECOND


def windows(newest_ms: int = T0) -> Windows:
    found = Windows(PANE)
    found.advance(newest_ms)
    return found


def shown(found: Windows, window: str, campaign: str = "c1") -> int:
    return found.totals(campaign, window)[SHOWN]


@pytest.mark.parametrize("window", list(WINDOWS_MS))
def test_a_window_holds_its_last_panes_and_no_more(window: str) -> None:
    length = WINDOWS_MS[window]
    found = windows(T0)
    found.add("c1", T0, [(SHOWN, 1)])
    found.advance(T0 + length - 1)
    assert shown(found, window) == 1
    found.advance(T0 + length)
    assert shown(found, window) == 0


def test_an_event_stands_in_every_window_that_reaches_it() -> None:
    found = windows(T0)
    found.add("c1", T0, [(SHOWN, 1)])
    found.advance(T0 + 7 * MINUTE)
    found.add("c1", T0 + 7 * MINUTE, [(SHOWN, 10)])
    assert {window: shown(found, window) for window in WINDOWS_MS} == {"1m": 10, "5m": 10, "15m": 11, "1h": 11}


def test_windows_slide_by_panes() -> None:
    found = windows(T0)
    for pane in range(12):
        found.advance(T0 + pane * PANE)
        found.add("c1", T0 + pane * PANE, [(SHOWN, 1 << pane)])
    assert shown(found, "1m") == sum(1 << pane for pane in range(6, 12))
    assert shown(found, "5m") == (1 << 12) - 1


def test_a_late_event_goes_into_the_pane_in_which_it_happened() -> None:
    found = windows(T0 + 4 * MINUTE)
    found.add("c1", T0, [(SHOWN, 1)])
    assert (shown(found, "1m"), shown(found, "5m")) == (0, 1)
    found.advance(T0 + 5 * MINUTE)
    assert (shown(found, "5m"), shown(found, "15m")) == (0, 1)


@pytest.mark.parametrize(("age_ms", "expected"), [(HOUR - PANE, 1), (HOUR, 0), (HOUR + 5 * MINUTE, 0), (50 * HOUR, 0)])
def test_what_happened_before_the_ring_is_in_no_window(age_ms: int, expected: int) -> None:
    found = windows(T0)
    found.add("c1", T0 - age_ms, [(SHOWN, 1)])
    assert shown(found, "1h") == expected


def test_the_ring_does_not_go_back() -> None:
    found = windows(T0)
    found.add("c1", T0, [(SHOWN, 1)])
    found.advance(T0 - HOUR)
    assert shown(found, "1m") == 1


@pytest.mark.parametrize("leap_ms", [HOUR, HOUR + PANE, 3 * HOUR + 17 * MINUTE, 400 * 24 * HOUR])
def test_a_leap_beyond_the_ring_leaves_nothing_behind(leap_ms: int) -> None:
    found = windows(T0)
    for pane in range(0, HOUR, PANE):
        found.advance(T0 + pane)
        found.add("c1", T0 + pane, [(SHOWN, 1)])
    assert shown(found, "1h") == 360
    found.advance(T0 + HOUR - PANE + leap_ms)
    assert {window: shown(found, window) for window in WINDOWS_MS} == {"1m": 0, "5m": 0, "15m": 0, "1h": 0}


@pytest.mark.parametrize("pane_ms", [1_000, 5_000, 30_000, 60_000])
def test_a_window_is_as_long_as_its_name_whatever_the_panes(pane_ms: int) -> None:
    found = Windows(pane_ms)
    for at_ms in range(T0, T0 + HOUR + MINUTE, pane_ms):
        found.advance(at_ms)
        found.add("c1", at_ms, [(SHOWN, pane_ms)])
    assert {window: shown(found, window) for window in WINDOWS_MS} == WINDOWS_MS


def test_campaigns_and_measures_do_not_mix() -> None:
    found = windows()
    for at in range(len(WINDOW_MEASURES)):
        found.add("c1", T0, [(at, at + 1)])
        found.add("c2", T0, [(at, 100)])
    assert found.totals("c1", "1m") == tuple(range(1, len(WINDOW_MEASURES) + 1))
    assert found.totals("c2", "1m") == (100,) * len(WINDOW_MEASURES)


@pytest.mark.parametrize("window", [*WINDOWS_MS, DAY])
def test_an_unknown_campaign_has_zeros(window: str) -> None:
    assert windows().totals("nobody", window) == (0,) * len(WINDOW_MEASURES)


@pytest.mark.parametrize("window", [*WINDOWS_MS, DAY])
def test_the_sums_of_all_campaigns_are_those_of_each(window: str) -> None:
    found = windows()
    for number in range(40):
        found.add(f"c{number}", T0 - number * 5 * MINUTE, [(SHOWN, number)])
    assert found.all_totals(window) == {f"c{n}": found.totals(f"c{n}", window) for n in range(40)}


# Bounds


def test_an_idle_campaign_gives_its_place_back() -> None:
    found = windows(T0)
    found.add("idle", T0, [(SHOWN, 1)])
    found.advance(T0 + 2 * HOUR)  # its day ended an hour after T0
    found.add("busy", T0 + 2 * HOUR, [(SHOWN, 2)])
    assert list(found.campaigns()) == ["busy"]
    assert (shown(found, "1h", "idle"), shown(found, "1h", "busy")) == (0, 2)


def test_a_campaign_with_something_in_its_day_keeps_its_place() -> None:
    found = windows(T0 - 12 * HOUR)
    found.add("c1", T0 - 12 * HOUR, [(SHOWN, 1)])
    found.advance(T0)
    assert list(found.campaigns()) == ["c1"]
    assert (shown(found, "1h"), shown(found, DAY)) == (0, 1)


def test_a_place_that_was_given_back_is_empty_for_the_next() -> None:
    found = windows(T0)
    for number in range(30):
        found.add(f"old{number}", T0, [(SHOWN, 5)])
    found.advance(T0 + 2 * HOUR)
    for number in range(30):
        found.add(f"new{number}", T0 + 2 * HOUR, [(SHOWN, 1)])
    assert len(found) == 30
    assert {shown(found, "1h", f"new{n}") for n in range(30)} == {1}


def test_beyond_their_number_campaigns_have_no_windows_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CAMPAIGNS", 3)
    found = windows()
    for number in range(5):
        found.add(f"c{number}", T0, [(SHOWN, 1)])
    found.add("c0", T0, [(SHOWN, 1)])
    assert list(found.campaigns()) == ["c0", "c1", "c2"]
    assert found.untracked == 2
    assert (shown(found, "1m", "c0"), shown(found, "1m", "c4")) == (2, 0)


@pytest.mark.parametrize("window", [*WINDOWS_MS, DAY])
def test_no_sum_turns_negative(window: str) -> None:
    found = windows()
    for pane in range(3):
        for _ in range(3):
            found.add("c1", T0 - pane * PANE, [(WINDOW_INDEX["spend_millimicros"], LIMIT)])
    assert 0 < found.totals("c1", window)[WINDOW_INDEX["spend_millimicros"]] < 2**63


# As ticks move them


def test_a_tick_moves_the_windows_to_the_newest_event_of_any_input() -> None:
    fed = Fed().feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "a", T0))
    fed.tick()
    assert shown(fed.state.windows, "1m") == 1
    fed.feed(Input.CLICKS, document(Input.CLICKS, "c", T0 + 2 * MINUTE))
    fed.tick()
    assert fed.state.windows.totals("c1", "1m")[WINDOW_INDEX["clicks"]] == 1
    assert (shown(fed.state.windows, "1m"), shown(fed.state.windows, "5m")) == (0, 1)


def test_every_measure_of_the_windows_comes_from_its_input() -> None:
    fed = Fed()
    fed.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "a", viewable=True))
    fed.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "b", currency="USD", clearing_price_millimicros=1_500))
    for milestone in ("start", "3s", "5s", "complete"):
        fed.feed(Input.PLAYS, document(Input.PLAYS, milestone, milestone=milestone))
    fed.feed(Input.CLICKS, document(Input.CLICKS, "c", currency="USD", clearing_price_millimicros=500))
    fed.feed(Input.CONVERSIONS, document(Input.CONVERSIONS, "d", attribution={"touch_type": "click"}))
    fed.feed(Input.CONVERSIONS, document(Input.CONVERSIONS, "e", attribution={"touch_type": "view"}))
    fed.tick()
    totals = dict(zip(WINDOW_MEASURES, fed.state.windows.totals("c1", "1m"), strict=True))
    assert totals == {
        "impressions": 2,
        "viewable_impressions": 1,
        "plays_started": 1,
        "plays_3s": 1,
        "plays_completed": 1,
        "clicks": 1,
        "conversions": 1,
        "spend_millimicros": 2_000,
        "gross_impressions": 2,
        "gross_clicks": 1,
        "gross_conversions": 1,
        "gross_spend_millimicros": 2_000,
    }


def test_organic_traffic_without_a_campaign_has_no_windows() -> None:
    fed = Fed().feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "a", campaign_id=None, traffic="organic"))
    fed.tick()
    assert len(fed.state.windows) == 0


def test_spend_of_another_currency_is_never_added() -> None:
    fed = Fed()
    for number, currency in enumerate(["USD", "EUR", "USD"], start=1):
        price = {"currency": currency, "clearing_price_millimicros": number * 100}
        fed.feed(Input.CLICKS, document(Input.CLICKS, f"e{number}", **price))
    fed.tick()
    totals = fed.state.windows.totals("c1", "1m")
    assert (totals[WINDOW_INDEX["clicks"]], totals[WINDOW_INDEX["spend_millimicros"]]) == (3, 400)


def test_once_the_currency_is_known_its_spend_is_shown() -> None:
    fed = Fed()
    fed.feed(Input.CLICKS, document(Input.CLICKS, "a", currency="USD", clearing_price_millimicros=5))
    fed.tick()
    fed.settle(currency="EUR").tick()
    fed.feed(Input.CLICKS, document(Input.CLICKS, "b", T0 + 30 * MINUTE, currency="EUR", clearing_price_millimicros=7))
    fed.tick()
    assert fed.state.windows.totals("c1", "1m")[WINDOW_INDEX["spend_millimicros"]] == 7


def test_campaigns_without_windows_leave_nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CAMPAIGNS", 3)
    price = {"currency": "USD", "clearing_price_millimicros": 1}
    clicks = (document(Input.CLICKS, f"e{n}", campaign_id=f"c{n}", **price) for n in range(50))
    fed = Fed().feed(Input.CLICKS, *clicks)
    fed.tick()
    assert len(fed.state.windows.currencies) <= 3


def test_new_pane_sizes_begin_with_empty_windows() -> None:
    fed = Fed()
    fed.tick()
    fed.settle(time_zone="Asia/Shanghai").tick()
    fed.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "a"))
    fed.tick(quick_rules(pane_ms=20_000))
    assert (fed.state.windows.pane_ms, len(fed.state.windows)) == (20_000, 0)
    assert fed.state.windows.zones == {"c1": "Asia/Shanghai"}
    fed.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "b"))
    fed.tick()
    assert shown(fed.state.windows, "1m") == 1
