"""The pacing desk of a partition: looks in turn, unknown inputs, what it tells, its bounds, and what survives."""

from itertools import pairwise

import msgspec
import pytest

from streams.events import Input
from streams.records import Table
from streams.signals import AlertState, Audience, Control, RateReason
from streams.stages.pacing.facts import Added
from streams.state import pacing
from streams.state.journal import Tick
from streams.state.outgoing import outgoing
from streams.state.silence import UsualRates
from streams.terms import AlertKind
from streams.topics import ALERTS, ALLOWANCES, EVIDENCE, PACING, SESSIONS, SPENDS
from tests.unit.evening import BUDGET, STEP, Evening
from tests.unit.given import DAY, HOUR, MINUTE, SECOND, T0, Document


def test_the_death_of_the_impressions_producer_opens_no_campaign_and_alerts_no_advertiser() -> None:
    evening = Evening()
    for _ in range(180):
        evening.step()
    before = evening.controls[-1].rate
    assert 0.0 < before <= 1.0
    told, at = len(evening.alerts), len(evening.controls)
    for _ in range(270):  # 45 minutes: longer than any campaign may stall
        evening.step(impressions=0)
    rates = [before, *(control.rate for control in evening.controls[at:])]
    assert all(after <= earlier for earlier, after in pairwise(rates))
    assert evening.controls[-1].reason is RateReason.UNKNOWN_INPUT
    alerts = evening.alerts[told:]
    assert [(a.kind, a.state) for a in alerts] == [(AlertKind.INPUT_SILENT, AlertState.FIRING)]
    assert alerts[0].audience is Audience.OPERATIONS
    assert evening.state.desk.firing.keys() == {alerts[0].alert_id}
    for _ in range(30):
        evening.step()
    later = evening.alerts[told + 1 :]
    assert [a.state for a in later if a.kind is AlertKind.INPUT_SILENT] == [AlertState.RESOLVED]
    assert not [a for a in later if a.audience is Audience.ADVERTISER]
    assert not evening.state.desk.firing


def test_a_silent_partition_holds_or_lowers_every_rate() -> None:
    evening = Evening()
    for _ in range(60):
        evening.step()
    last = evening.controls[-1].rate
    for _ in range(60):
        evening.step(impressions=0, clicks=0)
        assert evening.controls[-1].rate <= last
        last = evening.controls[-1].rate


def test_clicks_that_die_at_a_low_volume_raise_no_rate() -> None:
    """About 0.4 clicks a second; impressions go on, as many as the rate lets through."""
    evening = Evening(budget={"daily_micros": 30_000_000})
    evening.step()
    for _ in range(720):
        shown = int(200 * evening.controls[-1].rate)
        evening.step(shown, clicks=shown // 10)
    before, at = evening.controls[-1].rate, len(evening.controls)
    assert 0.1 < before < 0.3
    for _ in range(360):
        evening.step(int(200 * evening.controls[-1].rate), clicks=0)
    silent = evening.controls[at:]
    assert all(after <= earlier for earlier, after in pairwise([before, *(control.rate for control in silent)]))
    assert all(control.reason is RateReason.UNKNOWN_INPUT for control in silent[6:])


def test_clicks_that_come_in_bursts_hold_rates_in_their_first_pauses_and_alarm_nobody() -> None:
    evening = Evening()
    for _ in range(4):
        for step in range(36):
            evening.step(clicks=8 if step < 3 else 0)
    assert RateReason.UNKNOWN_INPUT in {control.reason for control in evening.controls}
    assert AlertKind.INPUT_SILENT not in {alert.kind for alert in evening.alerts}


def test_a_spent_budget_does_not_make_clicks_unknown_and_the_next_day_begins() -> None:
    """The only campaign with clicks stops; a few impressions of others go on."""
    evening = Evening(budget={"daily_micros": 1_000_000}, pacing={"mode": "as_soon_as_possible"})
    evening.step()
    for _ in range(350):  # midnight is an hour away
        shown = int(200 * evening.controls[-1].rate)
        evening.step(max(1, shown), clicks=shown // 10)
    assert evening.controls[-1].rate == 0.0
    assert evening.controls[-1].reason in (RateReason.CLOSING, RateReason.EXHAUSTED)
    for _ in range(20):
        evening.step(1, clicks=0)
    assert evening.controls[-1].rate > 0.0


def test_conversions_that_are_rare_are_not_unknown_when_none_comes() -> None:
    rates = UsualRates()
    consumed = dict.fromkeys(Input, 0)
    for step in range(60):
        consumed[Input.IMPRESSIONS] += 50
        consumed[Input.CLICKS] += 50
        consumed[Input.CONVERSIONS] += step % 30 == 0
        rates.unknown(step * STEP + STEP, consumed, [] if step % 30 == 0 else [Input.CONVERSIONS], False)
    silent = [Input.CLICKS, Input.CONVERSIONS, Input.PLAYS, Input.IMPRESSIONS]
    assert rates.unknown(61 * STEP, consumed, silent, False) == {Input.CLICKS, Input.IMPRESSIONS}


def test_usual_rates_survive_a_snapshot() -> None:
    rates, restored = UsualRates(), UsualRates()
    for step in range(1, 20):
        rates.unknown(step * STEP, dict.fromkeys(Input, step * 50), [], False)
    restored.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(rates.snapshot()), strict=False))
    for each in (rates, restored):
        assert each.unknown(21 * STEP, dict.fromkeys(Input, 950), list(Input), False) == frozenset(Input)
    assert rates.snapshot() == restored.snapshot()


def test_a_control_tells_its_spend_how_long_it_holds_and_what_to_assume_then() -> None:
    evening = Evening()
    evening.step(clicks=0)  # the settings hold from the first tick on
    evening.step(clicks=3)
    control = evening.controls[-1]
    assert control.spend_micros == 3_000
    assert control.decided_ms == evening.at_ms
    assert control.valid_until_ms == evening.at_ms + pacing.CONTROL_VALID_MS
    assert 0.0 <= control.rate_when_stale <= control.rate <= 1.0


def test_what_goes_out_carries_the_place_of_its_tick_and_its_key() -> None:
    evening = Evening(account_id="a1")
    output = evening.step()
    messages = [message for key, message in outgoing(output, 77) if key[0] != EVIDENCE]
    assert {message.topic for message in messages} == {PACING, SPENDS}
    assert {message.key for message in messages} == {b"c1", b"a1"}
    assert all(msgspec.json.decode(message.value or b"")["sequence"] == 77 for message in messages)


def test_of_two_controls_of_a_campaign_only_the_later_need_be_sent_but_every_alert() -> None:
    evening = Evening(budget={"daily_micros": 2_000})
    about = []
    for _ in range(40):
        about += [key for key, _ in outgoing(evening.step(), 1)]
    controls = [key for key in about if key[0] == PACING]
    alerts = [key for key in about if key[0] == ALERTS]
    assert len(set(controls)) == 1 < len(controls)
    assert len(set(alerts)) == len(alerts) >= 1


def test_an_exhausted_budget_stops_the_campaign_and_is_told_once() -> None:
    evening = Evening(budget={"daily_micros": 20_000})
    for _ in range(30):
        evening.step()
    assert (evening.controls[-1].rate, evening.controls[-1].reason) == (0.0, RateReason.EXHAUSTED)
    exhausted = [a for a in evening.alerts if a.kind in (AlertKind.EXHAUSTED, AlertKind.EXHAUSTED_EARLY)]
    assert len(exhausted) == 1
    assert exhausted[0].text.en
    assert exhausted[0].text.zh


def test_an_allowance_caps_a_campaign_and_a_report_echoes_its_baseline() -> None:
    evening = Evening(budget={"daily_micros": 10_000_000, "shared_budget_id": "s1"})
    evening.step()
    document = {
        "campaign_id": "c1",
        "pool": "shared_budget",
        "pool_id": "s1",
        "currency": "USD",
        "limit_micros": 1_000,
        "left_micros": 0,
        "baseline_micros": 44,
        "as_of_ms": 55,
        "sequence": 9,
    }
    evening.notice(ALLOWANCES, document, {**document, "limit_micros": 10**9, "sequence": 8})
    evening.step()
    assert evening.controls[-1].rate == 0.0
    report = evening.reports[-1]
    assert (report.pool_id, report.baseline_micros, report.baseline_as_of_ms) == ("s1", 44, 55)
    assert report.spend_micros >= report.day_spend_micros >= 2_000


def test_an_account_without_a_budget_is_limited_by_its_balance_alone() -> None:
    evening = Evening(budget={}, account_id="a1", alerts={"ladder_percent": [50, 100]})
    evening.step()
    evening.notice(ALLOWANCES, balance(1_000_000_000_000))
    rows = [row for _ in range(90) for row in evening.step(clicks=4).rows.get(Table.PACING, [])]
    assert (evening.controls[-1].rate, evening.controls[-1].reason) == (1.0, RateReason.AS_SOON_AS_POSSIBLE)
    assert {row[8:10] for row in rows} == {(0, 0)}  # budget and target: there is none
    forecast, low, high, exhausts = rows[-1][16:20]
    assert rows[-1][12] < low <= forecast <= high
    assert exhausts is None
    assert evening.alerts == []
    evening.notice(ALLOWANCES, balance(100_000, sequence=2))
    evening.step()
    assert (evening.controls[-1].rate, evening.controls[-1].reason) == (0.0, RateReason.ALLOWANCE)


def test_an_account_that_says_nothing_opens_no_campaign() -> None:
    """It may be unknown to all, or of another currency: then it never does."""
    evening = Evening(budget={}, account_id="a1")
    for _ in range(60):
        evening.step()
    assert {control.rate for control in evening.controls} == {0.1}
    assert evening.controls[-1].reason is RateReason.NO_ALLOWANCE
    evening.notice(ALLOWANCES, {**balance(10**12), "pool_id": "another"})
    evening.step()
    assert (evening.controls[-1].rate, evening.controls[-1].reason) == (0.1, RateReason.NO_ALLOWANCE)
    evening.notice(ALLOWANCES, balance(10**12))
    for _ in range(30):
        evening.step()
    assert (evening.controls[-1].rate, evening.controls[-1].reason) == (1.0, RateReason.AS_SOON_AS_POSSIBLE)


def test_a_report_of_spend_takes_no_credit_of_a_closed_day_off() -> None:
    evening = Evening(account_id="a1")
    for _ in range(400):  # midnight is an hour away
        evening.step()
    before = evening.reports[-1]
    assert before.day_start_ms > T0
    current = evening.state.campaigns.current
    evening.state.desk.add("c1", Added(T0 + MINUTE, 0, 0, 0, 0, 0, credited_millimicros=50_000_000), current)
    evening.step(impressions=0, clicks=0)
    assert evening.reports[-1].spend_micros == before.spend_micros
    evening.state.desk.add("c1", Added(evening.at_ms, 0, 0, 0, 0, 0, credited_millimicros=5_000_000), current)
    evening.step(impressions=0, clicks=0)
    assert evening.reports[-1].spend_micros == before.spend_micros - 5_000


def balance(limit_micros: int, sequence: int = 1) -> Document:
    """An allowance of the account a1."""
    return {
        "campaign_id": "c1",
        "pool": "balance",
        "pool_id": "a1",
        "currency": "USD",
        "limit_micros": limit_micros,
        "left_micros": limit_micros,
        "sequence": sequence,
    }


def test_a_live_session_opens_its_campaign_and_its_end_closes_it() -> None:
    evening = Evening(budget={"session_micros": 10_000_000}, pacing={"period": "live_session"})
    evening.step()
    assert evening.controls[-1].rate == 0.0
    session = {"campaign_id": "c1", "live_session_id": "l1", "creator_id": "h1", "state": "started"}
    evening.notice(SESSIONS, {**session, "event_time_ms": evening.at_ms})
    evening.step()
    evening.step()
    assert evening.controls[-1].rate > 0.0
    evening.notice(SESSIONS, {**session, "state": "ended", "event_time_ms": evening.at_ms})
    evening.step()
    evening.step()
    assert evening.controls[-1].rate == 0.0


def test_campaigns_are_looked_at_in_turn_a_bounded_number_at_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "MAX_LOOKS", 3)
    evening = Evening()
    for n in range(2, 9):
        evening.settle(f"c{n}", **BUDGET)
    seen = []
    for _ in range(3):
        output = evening.step()
        found = [signal.campaign_id for signal in output.signals if isinstance(signal, Control)]
        assert len(found) <= 3
        seen += found
    assert set(seen) == {f"c{n}" for n in range(1, 9)}
    assert evening.state.desk.overdue_ms > 0


def test_the_shape_of_traffic_is_learned_as_it_would_be_unthrottled() -> None:
    """The ad server obeys: 200 impressions a step come at rate 1, whatever the desk lets through."""
    evening = Evening(budget={"daily_micros": 30_000_000})
    evening.step()
    for _ in range(3 * 360):
        shown = int(200 * evening.controls[-1].rate)
        evening.step(shown, clicks=shown // 10)
    assert evening.controls[-1].rate < 0.3
    hours = [milli / 1_000 for _, milli in evening.state.desk.shape.snapshot()["hours"]]
    assert hours[1:3] == pytest.approx([200 * 360] * 2, rel=0.1)


@pytest.mark.parametrize("budget", [{}, None])
def test_traffic_that_nothing_throttles_is_learned_as_it_is(budget: Document | None) -> None:
    """Of a campaign without a budget, and of one without settings."""
    evening = Evening(budget={})
    if budget is not None:
        evening.settle("c2", **{**BUDGET, "budget": budget})
    for _ in range(10):
        evening.step(campaign="c2")
    assert evening.state.desk.shape.snapshot()["hours"] == [(T0 // HOUR, 200_000)]


def test_many_campaigns_take_turns_and_none_waits_longer_than_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "SLOT_CAMPAIGNS", 5)
    evening, count = Evening(), 120
    for n in range(2, count + 1):
        evening.settle(f"c{n}", **BUDGET)
    evening.step()
    evening.take(evening.state.tick(Tick("claim", evening.state.seq + 1, evening.at_ms, evening.state.positions())))
    seen = dict.fromkeys((f"c{n}" for n in range(1, count + 1)), evening.at_ms)
    for _ in range(24):
        evening.at_ms += 500
        output = evening.state.tick(Tick("claim", evening.state.seq + 1, evening.at_ms, evening.state.positions()))
        told = [signal.campaign_id for signal in output.signals if isinstance(signal, Control)]
        assert len(told) < count / 3
        for campaign in told:
            assert evening.at_ms - seen[campaign] <= pacing.LOOK_MS
            seen[campaign] = evening.at_ms
    assert min(seen.values()) > evening.at_ms - pacing.LOOK_MS


def test_beyond_their_number_campaigns_are_measured_only_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "MAX_CAMPAIGNS", 1)
    evening = Evening()
    evening.step()
    evening.settle("c2", **BUDGET)
    evening.step(campaign="c2")
    assert evening.state.desk.held.keys() == {"c1"}
    assert evening.state.desk.untracked == 1
    assert evening.fed.state.windows.totals("c2", "1h")[0] == 20


def test_campaigns_that_ended_long_ago_give_way_to_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "MAX_CAMPAIGNS", 3)
    days = [{"flight_start_ms": T0 - 90 * DAY, "flight_end_ms": T0 - ago * DAY} for ago in (31, 29)]
    evening = Evening(account_id="a1", **days[0])
    evening.settle("c2", **BUDGET, **days[1])
    evening.settle("c3", **BUDGET)
    evening.notice(ALLOWANCES, balance(10**9))
    evening.step()
    desk = evening.state.desk
    assert desk.held.keys() == {"c1", "c2", "c3"}
    evening.settle("c4", **BUDGET)
    evening.step()
    assert (desk.held.keys(), desk.untracked) == ({"c2", "c3", "c4"}, 0)
    assert desk.snapshot()["allowances"] == []
    evening.settle("c5", **BUDGET)
    evening.step(campaign="c4")
    assert (desk.held.keys(), desk.untracked) == ({"c2", "c3", "c4"}, 1)
    assert {control.campaign_id for control in evening.controls[-3:]} == {"c2", "c3", "c4"}
    assert desk.snapshot()["turns"] == sorted(desk.snapshot()["turns"])
    assert {campaign for _, campaign in desk.snapshot()["turns"]} == {"c2", "c3", "c4"}


@pytest.mark.parametrize("is_restored", [False, True])
def test_who_gives_way_follows_from_settings_and_event_time(monkeypatch: pytest.MonkeyPatch, is_restored: bool) -> None:
    """A flight that is cut short, and one that is prolonged; whether or not the desk was restored in between."""
    monkeypatch.setattr(pacing, "MAX_CAMPAIGNS", 2)
    flight = {"flight_start_ms": T0 - 90 * DAY}
    evening = Evening(**flight, flight_end_ms=T0 + DAY)
    evening.settle("c2", **BUDGET, **flight, flight_end_ms=T0 - 40 * DAY)
    evening.step()
    evening.settle("c1", **BUDGET, **flight, flight_end_ms=T0 - 35 * DAY)
    evening.settle("c2", **BUDGET, **flight, flight_end_ms=T0 + DAY)
    evening.step()
    if is_restored:
        desk = evening.state.desk
        desk.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(desk.snapshot())))
    evening.settle("c3", **BUDGET)
    evening.step()
    assert evening.state.desk.held.keys() == {"c2", "c3"}


def test_a_campaign_without_a_budget_has_no_control() -> None:
    evening = Evening(budget={})
    evening.step()
    assert evening.controls == []


def test_rows_stand_by_the_minute_and_explain_the_control() -> None:
    evening = Evening()
    rows = [row for _ in range(12) for row in evening.step().rows.get(Table.PACING, [])]
    minutes = {row[3] for row in rows}
    assert len(minutes) == 3
    gross, credited, valid = rows[-1][10:13]
    assert gross - credited == valid
    assert all(row[3] % (MINUTE // SECOND) == 0 for row in rows)
