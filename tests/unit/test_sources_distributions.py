"""Beta-binomial and chi-square against values of scipy 1.16, and the fit against drawn samples."""

import numpy as np
import pytest

from streams.stages.invalid.distributions import BetaBinomial, chi_square_tail, fit_beta_binomial


@pytest.mark.parametrize(
    ("value", "freedom", "expected"),
    [
        (3.84, 1, 0.05004352124870519),
        (5.99, 2, 0.05003662708658629),
        (2.0, 11, 0.9984958817174162),
        (50.0, 7, 1.4444852779215397e-08),
        (120.0, 8, 3.3153025398645396e-22),
    ],
)
def test_the_chi_square_tail_is_that_of_scipy(value: float, freedom: int, expected: float) -> None:
    assert chi_square_tail(value, freedom) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("value", "expected"), [(0.0, 1.0), (-1.0, 1.0), (1e9, 0.0), (float("inf"), 0.0)])
def test_the_ends_of_the_chi_square_tail_are_exact(value: float, expected: float) -> None:
    assert chi_square_tail(value, 3) == expected


def test_without_freedom_nothing_is_unlikely() -> None:
    assert chi_square_tail(100.0, 0) == 1.0


@pytest.mark.parametrize(
    ("successes", "trials", "mean", "spread", "expected"),
    [
        (0, 500, 0.02, 0.01, 0.027614880313748428),
        (3, 2_000, 0.02, 0.002, 1.5052648383589038e-05),
        (120, 1_000_000, 0.001, 0.0003, 0.003940681584114877),
        (40, 60, 0.5, 0.1, 0.8363302015445798),
    ],
)
def test_the_beta_binomial_tail_is_that_of_scipy(
    successes: int, trials: int, mean: float, spread: float, expected: float
) -> None:
    assert BetaBinomial(mean, spread).lower_tail(successes, trials) == pytest.approx(expected, rel=1e-6)


def test_as_many_successes_as_trials_are_certain() -> None:
    assert BetaBinomial(0.3, 0.1).lower_tail(7, 7) == 1.0


def test_the_fit_finds_mean_and_spread_of_drawn_sources() -> None:
    rng = np.random.default_rng(5)
    mean, spread, precision = 0.03, 0.004, 1 / 0.004 - 1
    trials = rng.integers(50, 20_000, 2_000).astype(float)
    successes = rng.binomial(trials.astype(int), rng.beta(mean * precision, (1 - mean) * precision, 2_000))
    fitted = fit_beta_binomial(successes.astype(float), trials, 0.0)
    assert fitted is not None
    assert fitted.mean == pytest.approx(mean, rel=0.03)
    assert fitted.spread == pytest.approx(spread, rel=0.15)


def test_sources_that_are_alike_are_taken_to_vary_all_the_same() -> None:
    trials = np.full(20, 1_000.0)
    fitted = fit_beta_binomial(np.full(20, 30.0), trials, 0.25)
    assert fitted is not None
    variation = (fitted.spread * (1 - fitted.mean) / fitted.mean) ** 0.5
    assert variation == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize(("successes", "trials"), [([3.0], [10.0]), ([0.0, 0.0], [10.0, 20.0]), ([], [])])
def test_where_there_is_nothing_to_fit_there_is_no_fit(successes: list[float], trials: list[float]) -> None:
    assert fit_beta_binomial(np.array(successes), np.array(trials), 0.25) is None
