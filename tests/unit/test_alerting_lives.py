"""The life of an alert by itself: pending, firing, resolved, cool-down, ids."""

import msgspec
import pytest

from streams.rules import HOUR_MS, MINUTE_MS
from streams.signals import AlertState
from streams.stages.alerting.facts import BETWEEN, CLEAR, UNKNOWN, Condition, Signal
from streams.stages.alerting.life import TIMINGS, Change, Life, alert_id_of
from streams.terms import AlertKind

MET = Signal(Condition.MET, 1.0, 2.0, "ratio", (("spend", 5),))
KIND = AlertKind.UNDER_DELIVERY
TIMING = TIMINGS[KIND]


def seen(life: Life, signals: list[Signal], from_ms: int = 0, step_ms: int = MINUTE_MS) -> list[tuple[int, Change]]:
    """One signal a minute; when and what was told."""
    told = []
    for at, signal in enumerate(signals):
        now = from_ms + at * step_ms
        told += [(now, change) for change in life.look(signal, now)]
    return told


def minutes(signal: Signal, ms: int) -> list[Signal]:
    return [signal] * (ms // MINUTE_MS + 1)


def test_an_alert_fires_when_it_has_been_pending_for_its_time_and_not_before() -> None:
    life = Life(KIND, "campaign:c1")
    assert seen(life, minutes(MET, TIMING.pending_ms)[:-1]) == []
    ((at, change),) = seen(life, [MET], TIMING.pending_ms)
    assert (at, change.state, change.began_ms) == (TIMING.pending_ms, AlertState.FIRING, 0)


@pytest.mark.parametrize("break_", [CLEAR, BETWEEN])
def test_what_is_not_met_for_one_look_starts_pending_anew(break_: Signal) -> None:
    life = Life(KIND, "campaign:c1")
    half = minutes(MET, TIMING.pending_ms)[:-1]
    assert seen(life, [*half, break_, *half]) == []


def test_what_is_unknown_for_a_while_keeps_a_pending_life_as_it_is() -> None:
    life = Life(KIND, "campaign:c1")
    signals = [MET, *minutes(UNKNOWN, TIMING.pending_ms), MET]
    ((_, change),) = seen(life, signals)
    assert change.state is AlertState.FIRING


@pytest.mark.parametrize("signal", [MET, BETWEEN, UNKNOWN])
def test_only_what_is_clear_resolves(signal: Signal) -> None:
    life = Life(KIND, "campaign:c1")
    seen(life, minutes(MET, TIMING.pending_ms))
    assert seen(life, [signal] * 600, HOUR_MS) == []
    assert life.is_firing


def test_one_look_above_the_lower_threshold_starts_clearing_anew() -> None:
    life = Life(KIND, "campaign:c1")
    seen(life, minutes(MET, TIMING.pending_ms))
    almost = minutes(CLEAR, TIMING.clear_ms)[:-1]
    assert seen(life, [*almost, BETWEEN, *almost], HOUR_MS) == []
    ((_, change),) = seen(life, [CLEAR], 10 * HOUR_MS)
    assert change.state is AlertState.RESOLVED


def test_within_the_cool_down_nothing_fires_and_at_its_end_it_does() -> None:
    life = Life(KIND, "campaign:c1")
    seen(life, minutes(MET, TIMING.pending_ms))
    ((resolved, _),) = seen(life, minutes(CLEAR, TIMING.clear_ms), HOUR_MS)
    ((again, change),) = seen(life, minutes(MET, TIMING.cool_down_ms), resolved + MINUTE_MS)
    assert again == resolved + TIMING.cool_down_ms
    assert change.began_ms == resolved + MINUTE_MS


def test_two_lives_of_one_event_time_have_two_ids() -> None:
    """The rule says that both began at once: the later one is taken to have begun later."""
    life = Life(AlertKind.STALLED, "campaign:c1")
    since = MET._replace(began_ms=5)
    ((_, first),) = seen(life, [since])
    seen(life, minutes(CLEAR, TIMINGS[AlertKind.STALLED].clear_ms), MINUTE_MS)
    ((_, second),) = seen(life, [since], 100 * HOUR_MS)
    assert first.began_ms == 5
    assert second.began_ms > 5
    assert first.alert_id != second.alert_id


def test_a_step_is_told_once_and_another_step_ends_the_former() -> None:
    life = Life(AlertKind.BUDGET_LADDER, "campaign:c1")
    half, most = MET._replace(step="day:0:50"), MET._replace(step="day:0:90")
    told = seen(life, [half, half, most, most, CLEAR, most, half])
    assert [(c.state, c.signal.step or c.fired.step) for _, c in told] == [
        (AlertState.FIRING, "day:0:50"),
        (AlertState.RESOLVED, "day:0:90"),
        (AlertState.FIRING, "day:0:90"),
        (AlertState.RESOLVED, "day:0:90"),
        (AlertState.FIRING, "day:0:50"),
    ]
    assert told[1][1].fired.step == "day:0:50"


def test_an_id_depends_on_everything_that_makes_an_occurrence() -> None:
    ids = {
        alert_id_of(KIND, "campaign:c1", "", 1),
        alert_id_of(AlertKind.OVER_DELIVERY, "campaign:c1", "", 1),
        alert_id_of(KIND, "campaign:c2", "", 1),
        alert_id_of(KIND, "campaign:c1", "a", 1),
        alert_id_of(KIND, "campaign:c1", "", 2),
        alert_id_of(KIND, "campaign:c", "1", 1),
    }
    assert len(ids) == 6
    assert all(len(alert_id) == 32 for alert_id in ids)
    assert alert_id_of(KIND, "campaign:c1", "", 1) == alert_id_of(KIND, "campaign:c1", "", 1)


def test_the_id_of_an_occurrence_is_the_same_in_every_version() -> None:
    """Ids are keys of receivers and of history: a change here changes what they have."""
    assert alert_id_of(AlertKind.STALLED, "campaign:c1", "", 1_700_000_000_000) == PINNED


PINNED = "64f20ef8b7cc5040069a3c250ebf01c8"


@pytest.mark.parametrize("after", range(0, 80, 7))
def test_a_restored_life_goes_on_as_the_one_that_was_kept(after: int) -> None:
    signals = [*minutes(MET, 35 * MINUTE_MS), *minutes(CLEAR, 35 * MINUTE_MS), *minutes(MET, 500 * MINUTE_MS)]
    life = Life(KIND, "campaign:c1")
    seen(life, signals[:after])
    held = Life.restored(msgspec.msgpack.decode(msgspec.msgpack.encode(life.snapshot())))
    rest = signals[after:]
    told = seen(life, rest, after * MINUTE_MS)
    assert told
    assert seen(held, rest, after * MINUTE_MS) == told


@pytest.mark.parametrize("kind", list(AlertKind))
def test_every_kind_has_its_timing(kind: AlertKind) -> None:
    assert kind in TIMINGS
