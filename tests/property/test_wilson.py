"""Properties of the Wilson interval."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.stages.rates import wilson
from tests.property.histories import BOUNDED

trials = st.integers(1, 10**12)
COMMON = st.tuples(trials, st.floats(0, 1)).map(lambda drawn: (int(drawn[0] * drawn[1]), drawn[0]))


@given(COMMON)
@BOUNDED
def test_the_interval_holds_the_value_and_stays_within_0_and_1(counts: tuple[int, int]) -> None:
    rate = wilson(*counts)
    assert rate is not None
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert rate.value == counts[0] / counts[1]
    assert rate.low < rate.high


@given(COMMON)
@BOUNDED
def test_failures_have_the_mirrored_interval(counts: tuple[int, int]) -> None:
    successes, tries = counts
    rate, mirrored = wilson(successes, tries), wilson(tries - successes, tries)
    assert rate is not None
    assert mirrored is not None
    assert mirrored.low == pytest.approx(1 - rate.high, abs=1e-9)
    assert mirrored.high == pytest.approx(1 - rate.low, abs=1e-9)


@given(COMMON, st.integers(2, 1000))
@BOUNDED
def test_more_trials_at_the_same_share_narrow_the_interval(counts: tuple[int, int], times: int) -> None:
    few, many = wilson(*counts), wilson(counts[0] * times, counts[1] * times)
    assert few is not None
    assert many is not None
    assert many.high - many.low < few.high - few.low


@given(st.integers(1, 10**6).flatmap(lambda tries: st.tuples(st.integers(0, tries - 1), st.just(tries))))
@BOUNDED
def test_one_success_more_moves_both_ends_up(counts: tuple[int, int]) -> None:
    less, more = wilson(*counts), wilson(counts[0] + 1, counts[1])
    assert less is not None
    assert more is not None
    assert less.low < more.low
    assert less.high < more.high


@given(st.integers(-(10**6), 0), st.integers(0, 10**6))
@BOUNDED
def test_a_rate_over_no_trials_is_absent(none: int, successes: int) -> None:
    assert wilson(successes, none) is None


@given(trials, st.integers(1, 10**6))
@BOUNDED
def test_more_successes_than_trials_are_told_as_they_are(tries: int, more: int) -> None:
    rate = wilson(tries + more, tries)
    assert rate is not None
    assert rate.value > 1
    assert (rate.low, rate.high) == (wilson(tries, tries).low, 1.0)  # type: ignore[union-attr]
