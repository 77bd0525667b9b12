"""Ratios and their intervals."""

import pytest

from streams.stages.rates import Z_95, wilson


@pytest.mark.parametrize("trials", [0, -3])
def test_a_ratio_over_zero_is_absent(trials: int) -> None:
    assert wilson(0, trials) is None
    assert wilson(5, trials) is None


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # from the closed form, by hand
        (0, 10, 0.0, 0.2775328),
        (10, 10, 0.7224672, 1.0),
        (10, 100, 0.0552291, 0.1743657),
        (1, 2, 0.0945312, 0.9054688),
        (50, 1_000_000, 0.0000379, 0.0000659),
    ],
)
def test_the_interval_is_wilsons(successes: int, trials: int, low: float, high: float) -> None:
    rate = wilson(successes, trials)
    assert rate is not None
    assert (rate.successes, rate.trials, rate.value) == (successes, trials, successes / trials)
    assert rate.low == pytest.approx(low, abs=5e-8)
    assert rate.high == pytest.approx(high, abs=5e-8)


@pytest.mark.parametrize("successes", [0, 1, 7, 50, 99, 100])
def test_the_ends_of_the_interval_solve_its_equation(successes: int) -> None:
    """At each end p: |p̂ - p| = z · sqrt(p (1 - p) / n) (Wilson 1927)."""
    rate = wilson(successes, 100)
    assert rate is not None
    assert 0 <= rate.low <= rate.high <= 1
    assert rate.low - 1e-12 <= rate.value <= rate.high + 1e-12
    for end in (rate.low, rate.high):
        if 1e-12 < end < 1 - 1e-12:
            assert abs(rate.value - end) == pytest.approx(Z_95 * (end * (1 - end) / 100) ** 0.5, abs=1e-12)


def test_more_trials_narrow_the_interval() -> None:
    widths = [rate.high - rate.low for n in (10, 100, 1_000) if (rate := wilson(n // 10, n)) is not None]
    assert widths == sorted(widths, reverse=True)


def test_more_conversions_than_clicks_are_told_as_they_are() -> None:
    rate, whole = wilson(30, 10), wilson(10, 10)
    assert rate is not None
    assert whole is not None
    assert rate.value == 3.0
    assert (rate.low, rate.high) == (whole.low, whole.high)


def test_a_negative_count_is_told_as_it_is() -> None:
    rate = wilson(-2, 10)
    assert rate is not None
    assert (rate.value, rate.low) == (-0.2, 0.0)
