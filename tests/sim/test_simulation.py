"""Two hundred seeds of the simulation; `make sim SEEDS=5000` runs more. A failure prints its seed and a trace.

`python -m tests.sim --seed N` runs one again.
"""

import pytest

from tests.sim.simulation import one_worker, run

SEEDS = 200
EVERY_STEP_SEED = 3
STRIDE = 11


@pytest.mark.parametrize("seed", range(SEEDS))
def test_final_rows_equal_the_oracle_and_an_undisturbed_run(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize("begin", range(STRIDE))
def test_a_crash_at_any_step_changes_nothing(begin: int) -> None:
    """Every eleventh step of one run from a begin of its own; all begins together are all steps (--every-step)."""
    plan = one_worker(EVERY_STEP_SEED)
    steps = run(EVERY_STEP_SEED, plan=plan).nature.step
    for step in range(begin + 1, steps, STRIDE * STRIDE):
        run(EVERY_STEP_SEED, plan=one_worker(EVERY_STEP_SEED), crash_at=step)


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = run(1), run(1)
    assert list(first.nature.trace) == list(second.nature.trace)
    assert first.world.sink.seen == second.world.sink.seen
