"""The simulation can fail: code that is wrong on purpose is caught by some seed."""

import pytest

from tests.sim.sabotage import ALL, Case, caught_by

SEEDS = range(30)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_a_sabotage_is_caught(case: Case) -> None:
    assert caught_by(case, SEEDS) is not None, f"no seed of {SEEDS} notices: {case.sabotage.__doc__}"
