"""When a silent input is missed: by its own rate and its own silences, however few its records are."""

import random
from collections.abc import Iterable, Sequence

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from streams.events import Input
from streams.state.silence import UsualRates

TICK = 2_000
SILENT = 10_000
MINUTE = 60_000
HOUR = 3_600_000
START = 1_000_000


class Listener:
    """Ticks every two seconds of wall time; an input that brought nothing for ten is silent."""

    def __init__(self) -> None:
        self.rates = UsualRates()
        self.wall_ms = START
        self.count = 0
        self.shown = 0
        self.last_ms = START
        self.missed: list[int] = []
        """When silences were missed, ms since the start,"""
        self.alarmed: list[int] = []
        """and when they were alarming."""
        self._was_missed = self._was_alarming = False

    def hear(self, arrivals: Iterable[float], until_ms: int, shown: int = 0) -> None:
        """Arrivals, ms since the start, in order; impressions at each tick."""
        coming = [START + at for at in arrivals]
        place = 0
        while self.wall_ms < START + until_ms:
            self.wall_ms += TICK
            self.shown += shown
            before = self.count
            while place < len(coming) and coming[place] <= self.wall_ms:
                place, self.count = place + 1, self.count + 1
            self.tick(self.count > before)

    def tick(self, has_come: bool) -> None:
        self.last_ms = self.wall_ms if has_come else self.last_ms
        silent = [Input.CLICKS] if self.wall_ms - self.last_ms >= SILENT else []
        consumed = {**NONE, Input.IMPRESSIONS: self.shown, Input.CLICKS: self.count}
        unknown = self.rates.unknown(self.wall_ms, consumed, silent, False)
        if unknown and not self._was_missed:
            self.missed.append(self.wall_ms - START)
        alarming = self.rates.alarming(unknown)
        assert alarming <= unknown
        if alarming and not self._was_alarming:
            self.alarmed.append(self.wall_ms - START)
        self._was_missed, self._was_alarming = bool(unknown), bool(alarming)

    def twin(self) -> "Listener":
        other = Listener()
        other.rates.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(self.rates.snapshot())))
        other.wall_ms, other.count, other.last_ms, other.shown = self.wall_ms, self.count, self.last_ms, self.shown
        other._was_missed = self._was_missed
        return other


NONE = dict.fromkeys(Input, 0)


def poisson(per_s: float, until_ms: int, seed: int) -> list[float]:
    rng, at, found = random.Random(seed), 0.0, []
    while (at := at + rng.expovariate(per_s) * 1000) < until_ms:
        found.append(at)
    return found


def bursts(every_ms: int, records: int, until_ms: int, seed: int) -> list[float]:
    """So many records within twenty seconds, then nothing."""
    rng = random.Random(seed)
    begins: Sequence[int] = range(0, until_ms, every_ms)
    return sorted(begin + rng.random() * 20_000 for begin in begins for _ in range(records))


@pytest.mark.parametrize(("per_s", "within_s"), [(0.05, 600), (0.2, 150), (0.4, 80), (2.0, 20)])
def test_an_input_that_dies_is_missed_within_a_time_by_its_rate(per_s: float, within_s: int) -> None:
    listener = Listener()
    listener.hear(poisson(per_s, 3 * HOUR, seed=1), 4 * HOUR)
    assert 3 * HOUR < listener.missed[-1] <= 3 * HOUR + within_s * 1000


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("per_s", [0.005, 0.05, 0.2])
def test_a_rare_input_that_lives_is_not_missed_for_hours(per_s: float, seed: int) -> None:
    listener = Listener()
    listener.hear(poisson(per_s, 8 * HOUR, seed), 8 * HOUR)
    assert [at for at in listener.missed if at > HOUR] == []


def test_an_input_that_comes_in_bursts_is_not_missed_once_its_pauses_are_known() -> None:
    listener = Listener()
    listener.hear(bursts(600_000, 30, 10 * HOUR, seed=1), 11 * HOUR)
    assert [at for at in listener.missed if 2 * HOUR < at < 10 * HOUR] == []
    assert 10 * HOUR < listener.missed[-1] <= 10 * HOUR + 1_500_000


def test_what_is_not_shown_brings_nothing_that_could_be_missed() -> None:
    """Clicks end with their impressions: the campaigns are stopped. Where they are shown again, clicks are missed."""
    listener = Listener()
    listener.hear(poisson(0.4, 2 * HOUR, seed=4), 2 * HOUR, shown=40)
    listener.hear([], 6 * HOUR, shown=0)
    assert listener.missed == []
    listener.hear([], 7 * HOUR, shown=20)
    (missed,) = listener.missed
    assert 20_000 < missed - 6 * HOUR < 100_000


def test_a_few_impressions_without_clicks_do_not_add_up() -> None:
    """They are of others than those that are stopped."""
    listener = Listener()
    listener.hear(poisson(0.4, 2 * HOUR, seed=4), 2 * HOUR, shown=40)
    listener.hear([], 20 * HOUR, shown=5)
    assert listener.missed == []


def test_what_was_missed_does_not_become_usual_at_once() -> None:
    """Neither an outage of hours nor a single record in the midst of it."""
    listener = Listener()
    lively = poisson(0.4, 9 * HOUR, seed=2)
    heard = [at for at in lively if at < HOUR or at > 7 * HOUR]
    listener.hear(sorted([*heard, 4 * HOUR]), 11 * HOUR)
    missed = [at for at in listener.missed if at > 59 * HOUR // 60]
    assert [at // HOUR for at in missed] == [1, 4, 9]
    for begin, at in zip((HOUR, 4 * HOUR, 9 * HOUR), missed, strict=True):
        assert at - begin <= 400_000


def test_what_comes_late_after_an_outage_is_taken_for_the_time_that_it_took() -> None:
    listener = Listener()
    lively = poisson(0.4, 6 * HOUR, seed=3)
    held_back = [4 * HOUR + at / HOUR for at in lively if 2 * HOUR < at < 4 * HOUR]
    rest = [at for at in lively if not 2 * HOUR < at < 4 * HOUR]
    listener.hear(sorted(rest + held_back), 6 * HOUR)
    assert [at for at in listener.missed if at > 4 * HOUR] == []


def test_nothing_is_expected_of_an_input_that_brought_few_records() -> None:
    listener = Listener()
    listener.hear([SILENT, SILENT + 1_000, SILENT + 2_000], HOUR)
    assert listener.missed == []


def test_what_is_caught_up_on_teaches_no_rate() -> None:
    rates = UsualRates()
    for step in range(1, 50):
        rates.unknown(START + step * TICK, {**NONE, Input.CLICKS: step * 1_000}, [], True)
    later = START + 50 * TICK + HOUR
    assert rates.unknown(later, {**NONE, Input.CLICKS: 49_000}, [Input.CLICKS], False) == frozenset()


def test_habits_survive_a_restart_in_the_midst_of_a_silence() -> None:
    listener = Listener()
    listener.hear(poisson(0.2, 2 * HOUR, seed=5), 2 * HOUR + 30_000)
    twin = listener.twin()
    for each in (listener, twin):
        each.missed.clear()
        each.hear([], 3 * HOUR)
    assert listener.missed == twin.missed
    assert len(listener.missed) == 1
    assert listener.rates.snapshot() == twin.rates.snapshot()


# Alarms


@settings(max_examples=25, deadline=None)
@given(
    every_ms=st.integers(2 * MINUTE, 50 * MINUTE),
    lasts_ms=st.integers(5_000, 3 * MINUTE),
    records=st.integers(8, 120),
    jitter=st.floats(0.0, 0.5),
    seed=st.integers(0, 10**6),
)
@example(every_ms=30 * MINUTE, lasts_ms=150_000, records=600, jitter=0.0, seed=0)
def test_an_input_that_comes_in_bursts_alarms_nobody_from_its_first_hour_on(
    every_ms: int, lasts_ms: int, records: int, jitter: float, seed: int
) -> None:
    """However little is known of its pauses yet; that it is missed then holds rates, and is safe."""
    rng, listener, at, arrivals = random.Random(seed), Listener(), 0.0, list[float]()
    while at < 6 * HOUR:
        arrivals += sorted(at + rng.random() * lasts_ms for _ in range(records))
        at += every_ms * rng.uniform(1 - jitter, 1)
    listener.hear(arrivals, int(arrivals[-1]))
    assert listener.alarmed == []


@settings(max_examples=25, deadline=None)
@given(per_s=st.floats(0.1, 3.0), hours=st.integers(3, 5), seed=st.integers(0, 10**6))
def test_an_input_of_known_habits_that_dies_alarms_as_soon_as_it_is_missed(per_s: float, hours: int, seed: int) -> None:
    listener = Listener()
    listener.hear(poisson(per_s, hours * HOUR, seed), (hours + 2) * HOUR)
    assert listener.missed[-1] == listener.alarmed[-1] >= hours * HOUR


@settings(max_examples=25, deadline=None)
@given(lives_ms=st.integers(MINUTE, 3 * HOUR), per_s=st.floats(0.2, 3.0), seed=st.integers(0, 10**6))
def test_whatever_is_known_of_an_input_its_death_alarms_within_an_hour(lives_ms: int, per_s: float, seed: int) -> None:
    listener = Listener()
    arrivals = poisson(per_s, lives_ms, seed)
    assume(len(arrivals) >= 3 * 8)
    listener.hear(arrivals, lives_ms + 2 * HOUR)
    assert listener.missed[-1] <= listener.alarmed[-1] <= arrivals[-1] + HOUR + 2 * TICK


def test_an_alarm_stays_while_its_silence_lasts() -> None:
    listener = Listener()
    listener.hear(poisson(0.4, 2 * HOUR, seed=6), 9 * HOUR)
    assert len(listener.alarmed) == 1
