"""Unknown is never zero: while an input is silent rates hold or fall, and there is no catching up right after it."""

from itertools import pairwise

import msgspec
import pytest

from streams.events import Input
from streams.signals import RateReason
from streams.stages.pacing.silence import Silence
from streams.terms import Billing, BillingModel, Pacing, PacingMode, PacingPeriod
from tests.unit.pacing_world import DAY, HOUR, MINUTE, MONDAY, UNIT, Loop, campaign, live, spent

EVEN = Pacing(mode=PacingMode.EVEN)
CPC = Billing(model=BillingModel.CPC, price_micros=100_000)


def warm(settings=None, until: int = 6 * HOUR) -> Loop:
    """A loop that is on its plan, at a rate of about a third."""
    loop = Loop(settings or campaign(pacing=EVEN), supply=18)
    loop.run(until)
    assert 0.2 < loop.rates[-1] < 0.5
    return loop


def never_rises(rates: list[float]) -> bool:
    return all(after <= before for before, after in pairwise(rates))


@pytest.mark.parametrize("silent", [Input.IMPRESSIONS, Input.CLICKS])
def test_rates_never_rise_while_what_is_billed_is_silent(silent: Input) -> None:
    settings = campaign(pacing=EVEN, billing=CPC)
    loop = Loop(campaign(pacing=EVEN), supply=18)
    loop.run(6 * HOUR)
    if silent is Input.CLICKS:
        loop.change(settings)
    loop.is_mute, loop.unknown = True, (silent,)
    begin = len(loop.rates) - 1
    loop.run(2 * HOUR)
    assert never_rises(loop.rates[begin:])
    assert loop.decisions[-1].reason in (RateReason.UNKNOWN_INPUT, RateReason.CLOSING, RateReason.EXHAUSTED)


def test_an_input_that_does_not_matter_for_spend_does_not_hold_the_rate() -> None:
    loop = warm()
    loop.unknown = (Input.CONVERSIONS, Input.ENGAGEMENTS)
    loop.supply = lambda _at: 9
    before = loop.rates[-1]
    loop.run(30 * MINUTE)
    assert loop.rates[-1] > 1.5 * before
    assert all(decision.reason is not RateReason.UNKNOWN_INPUT for decision in loop.decisions)


def test_what_may_have_been_spent_unseen_is_held_against_the_budget() -> None:
    loop = warm(until=20 * HOUR)
    loop.is_mute, loop.unknown = True, (Input.IMPRESSIONS,)
    loop.run(10 * HOUR)
    known = loop.decisions[20 * 360 - 1].spend.valid
    unseen = sum(rate * 18 * 2_000_000 for rate in loop.rates[20 * 360 - 1 : 24 * 360 - 1])
    assert unseen > 0
    assert known + unseen <= 1.005 * 100_000 * UNIT


def test_rates_never_rise_when_a_new_day_begins_in_silence() -> None:
    loop = warm(until=23 * HOUR)
    loop.is_mute, loop.unknown = True, (Input.IMPRESSIONS,)
    begin = len(loop.rates) - 1
    decision = loop.run(3 * HOUR)
    assert decision.period_start_ms == MONDAY + DAY
    assert never_rises(loop.rates[begin:])


def test_an_exhausted_campaign_stays_at_rest_when_a_new_day_begins_in_silence() -> None:
    loop = Loop(campaign(daily=5, pacing=Pacing(mode=PacingMode.AS_SOON_AS_POSSIBLE)), supply=18)
    loop.run(23 * HOUR)
    assert loop.rates[-1] == 0.0
    loop.unknown = (Input.IMPRESSIONS,)
    loop.run(3 * HOUR)
    assert loop.rates[-1] == 0.0
    loop.unknown = ()
    loop.run(10 * MINUTE)
    assert loop.rates[-1] > 0.0


@pytest.mark.parametrize("after", [{"daily": 1000}, {"pacing": Pacing(mode=PacingMode.AS_SOON_AS_POSSIBLE)}])
def test_rates_never_rise_when_settings_change_in_silence(after: dict) -> None:
    loop = warm()
    loop.is_mute, loop.unknown = True, (Input.IMPRESSIONS,)
    loop.run(5 * MINUTE)
    begin = len(loop.rates) - 1
    loop.change(campaign(**{"pacing": EVEN, **after}))
    loop.run(HOUR)
    assert never_rises(loop.rates[begin:])


def test_a_campaign_that_begins_in_silence_waits() -> None:
    loop = Loop(campaign())
    loop.unknown = (Input.IMPRESSIONS,)
    loop.run(10 * MINUTE)
    assert set(loop.rates) == {0.0}


def test_a_live_session_that_begins_in_silence_waits() -> None:
    settings = campaign(daily=None, session=50, pacing=Pacing(period=PacingPeriod.LIVE_SESSION))
    loop = Loop(settings)
    loop.run(HOUR)
    loop.unknown, loop.more = (Input.IMPRESSIONS,), {"session": live(MONDAY + HOUR, MONDAY + 3 * HOUR)}
    loop.run(10 * MINUTE)
    assert set(loop.rates) == {0.0}
    loop.unknown = ()
    loop.run(2 * MINUTE)
    assert loop.rates[-1] > 0.0


def test_rates_never_rise_while_event_time_stands() -> None:
    loop = warm()
    loop.change(campaign(daily=1000, pacing=EVEN))
    begin = len(loop.rates) - 1
    for _ in range(50):
        loop.look()
    assert never_rises(loop.rates[begin:])
    loop.run(10 * MINUTE)
    assert loop.rates[-1] > loop.rates[begin]


def test_a_campaign_at_rest_does_not_start_while_event_time_stands() -> None:
    """From 0 a rate is not clamped, so it is this that holds it."""
    loop = Loop(campaign(daily=5, pacing=Pacing(mode=PacingMode.AS_SOON_AS_POSSIBLE)), supply=18)
    loop.run(12 * HOUR)
    loop.change(campaign(daily=1000, pacing=EVEN))
    assert loop.look().rate == 0.0
    assert loop.step().rate > 0.0


def test_rates_never_rise_while_the_partition_catches_up() -> None:
    loop = warm()
    loop.change(campaign(daily=1000, pacing=EVEN))
    loop.more = {"is_catching_up": True}
    begin = len(loop.rates) - 1
    loop.run(HOUR)
    assert never_rises(loop.rates[begin:])


@pytest.mark.parametrize("comes_late", [True, False])
def test_there_is_no_burst_when_a_silence_ends(comes_late: bool) -> None:
    """Whether the missing spend comes late (10 minutes later) or never."""
    loop = warm()
    steady = loop.rates[-1]
    loop.is_mute, loop.unknown = True, (Input.IMPRESSIONS,)
    missed = []
    for _ in range(30 * 6):
        missed.append((loop.now, loop.rates[-1]))
        loop.step()
    loop.is_mute, loop.unknown = False, ()
    loop.run(10 * MINUTE)
    assert max(loop.rates[-60:]) <= 1.15 * steady
    if comes_late:
        for origin, rate in missed:
            impressions = round(rate * 18)
            loop.pacer.add(loop.settings, spent(origin, impressions * 2_000, impressions=impressions))
    loop.run(2 * HOUR)
    assert max(loop.rates[-12 * 60 :]) <= 1.5 * steady
    decision = loop.run(DAY - (loop.now - MONDAY) - 20_000)
    assert 0.97 <= decision.spend.valid / (100_000 * UNIT) <= 1.002


def test_what_comes_late_is_no_longer_missing_and_the_rest_is_let_go_slowly() -> None:
    silence = Silence()
    silence.hear(MINUTE, MINUTE, True, 100.0, 10, 0)
    assert silence.missing == 90.0
    silence.hear(2 * MINUTE, 5_000, False, 50.0, 70, 60)
    assert silence.missing == 30.0
    assert silence.is_held(MINUTE + 59_000)
    assert not silence.is_held(3 * MINUTE)
    silence.hear(20 * MINUTE, 5_000, False, 50.0, 50, 0)
    assert 29.0 < silence.missing < 30.0
    for minute in range(21, 80):
        silence.hear(minute * MINUTE, MINUTE, False, 50.0, 50, 0)
    assert silence.missing == 0.0


def test_scarce_traffic_survives_a_restart_between_two_thoughts() -> None:
    loop = Loop(campaign(pacing=EVEN), supply=lambda at_ms: 3 + at_ms // HOUR % 3)
    loop.run(3 * HOUR + 2 * MINUTE + 10_000)
    twin = loop.twin()
    assert [loop.step() for _ in range(9)] == [twin.step() for _ in range(9)]


def test_a_silence_survives_a_restart() -> None:
    loop = warm()
    loop.is_mute, loop.unknown = True, (Input.IMPRESSIONS,)
    loop.run(20 * MINUTE)
    twin = loop.twin()
    for each in (loop, twin):
        each.is_mute, each.unknown = False, ()
    assert [loop.step() for _ in range(200)] == [twin.step() for _ in range(200)]
    packed = msgspec.msgpack.encode(loop.pacer.snapshot())
    assert packed == msgspec.msgpack.encode(twin.pacer.snapshot())


def test_a_quiet_partition_is_not_a_silence() -> None:
    """Two looks may be a minute apart where little happens: nothing is missing, and rates may rise."""
    loop = Loop(campaign(pacing=EVEN), supply=0)
    for _ in range(600):
        loop.pacer.add(loop.settings, spent(loop.now, 2_000, impressions=1))
        loop.now += MINUTE
        loop.look()
    assert loop.rates[-1] == 1.0


def test_an_hour_in_silence_teaches_nothing() -> None:
    loop = warm(until=26 * HOUR)
    usual = list(loop.pacer._traffic.cells)
    loop.is_mute, loop.unknown = True, (Input.IMPRESSIONS,)
    loop.run(2 * HOUR)
    loop.is_mute, loop.unknown = False, ()
    loop.run(HOUR)
    assert loop.pacer._traffic.cells[3] == usual[3]
    assert loop.pacer._traffic.cells[2] == usual[2]
