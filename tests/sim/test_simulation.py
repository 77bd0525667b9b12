"""Two hundred seeds of the simulation; `make sim SEEDS=5000` runs more. A failure prints its seed and a trace.

`python -m tests.sim --seed N` runs one again.
"""

import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.sim.plan import Plan, one_worker, rules_of, with_story
from tests.sim.simulation import run
from tests.sim.stories import STORIES
from tests.sim.watch import REACHED
from tests.sim.world import Faults

SEEDS = 200
EVERY_STEP_SEED = 3
STRIDE = 11
GOALS = {
    "budget": {"alert exhausted firing", "alert exhausted_early resolved", "control unpaced"},
    "balance": {"alert balance_low firing", "alert balance_low resolved"},
    "pool": {"alert exhausted firing", "alert exhausted resolved"},
    "stall": {"alert stalled firing", "alert stalled resolved"},
    "session": {"alert budget_ladder firing", "alert exhausted_early firing", "control ended"},
    "night": {"lull", "a day begun in a lull"},
    "silence": {"alert input_silent firing", "alert input_silent resolved", "control unknown_input"},
    "behind": {"alert under_delivery firing", "alert expected_under_delivery firing", "control behind"},
    "ahead": {"alert over_delivery firing", "alert over_delivery resolved", "control ahead"},
    "invalid": {"alert invalid_traffic firing"},
}


@pytest.fixture(scope="session")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes of this test run: what each seed has reached."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "reached"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("seed", range(SEEDS))
def test_final_rows_equal_the_oracle_and_an_undisturbed_run(seed: int, noted: Path) -> None:
    """And whoever comes last sees that all of them together have reached what they should."""
    part = noted / f"{seed}.part"
    part.write_text("\n".join(run(seed).reached))
    part.rename(noted / f"{seed}.txt")
    done = list(noted.glob("*.txt"))
    if len(done) == SEEDS:
        assert REACHED - {name for each in done for name in each.read_text().splitlines()} == set()


@pytest.mark.parametrize("story", STORIES)
def test_a_story_that_nothing_disturbs_reaches_what_it_is_told_for(story: str) -> None:
    """Some of a few tellings: what each is about is drawn."""
    reached: set[str] = set()
    for seed in range(8):
        calm = Plan(crash=0.0, faults=Faults(0.0, 0.0, 0), rules=rules_of(Random(seed)))
        plan = replace(with_story(calm, story, Random(seed)), records=0)
        reached |= run(seed, plan).reached
        if reached >= GOALS[story]:
            return
    raise AssertionError(f"missing: {GOALS[story] - reached}")


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
