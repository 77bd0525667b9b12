"""`python -m tests.sim --seeds 5000`: many seeds of the simulation; `--seed N`: one of them again, with its trace."""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.sim.plan import one_worker
from tests.sim.simulation import Failed, run
from tests.sim.watch import REACHED

ENOUGH = 200
"""So many seeds reach together all that they should."""


Tried = tuple[str, set[str]]
"""What went wrong (empty: nothing), and what was reached."""


def _try(seed: int) -> Tried:
    try:
        return "", run(seed).reached
    except Failed as failure:
        return str(failure), set()


def _try_crash(seed: int, step: int) -> Tried:
    try:
        return "", run(seed, plan=one_worker(seed), crash_at=step).reached
    except Failed as failure:
        return str(failure), set()


def main() -> int:
    """Exit code 1 if a seed fails, or if many seeds do not reach together what they should."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds (default 200)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--every-step", action="store_true", help="crash one worker at every step of --seed instead")
    parser.add_argument("--reached", action="store_true", help="tell how many seeds reached what")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    asked = parser.parse_args()
    if asked.every_step:
        seed = asked.seed or 0
        work, todo = partial(_try_crash, seed), range(1, run(seed, plan=one_worker(seed)).nature.step)
    elif asked.seed is not None:
        work, todo = partial(_try), range(asked.seed, asked.seed + 1)
    else:
        work, todo = partial(_try), range(asked.first, asked.first + asked.seeds)
    failures, reached = _run(work, todo, asked.jobs)
    missing = [] if asked.every_step or len(todo) < ENOUGH else sorted(REACHED - reached.keys())
    for name in sorted(reached) if asked.reached else ():
        print(f"{reached[name]:6d} {name}")
    for name in missing:
        print(f"no seed has reached: {name}")
    return 1 if failures or missing else 0


def _run(work: "partial[Tried]", todo: range, jobs: int) -> tuple[int, Counter[str]]:
    """How many failed, and by how many what was reached."""
    began, failures, reached = time.monotonic(), 0, Counter[str]()
    with ProcessPoolExecutor(jobs) as pool:
        for number, (failure, names) in zip(todo, pool.map(work, todo, chunksize=4), strict=True):
            reached.update(names)
            if failure:
                failures += 1
                print(f"\nFAILED {number}\n{failure}", flush=True)
            elif number % 100 == 99:
                print(f"{number + 1 - todo.start} of {len(todo)}, {failures} failed", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    print(f"{len(todo)} runs, {failures} failed, {len(todo) / seconds:.1f} a second")
    return failures, reached


if __name__ == "__main__":
    sys.exit(main())
