"""`python -m tests.sim --seeds 5000`: many seeds of the simulation; `--seed N`: one of them again, with its trace."""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.sim.simulation import Failed, one_worker, run


def _try(seed: int) -> str | None:
    try:
        run(seed)
    except Failed as failure:
        return str(failure)
    return None


def _try_crash(seed: int, step: int) -> str | None:
    try:
        run(seed, plan=one_worker(seed), crash_at=step)
    except Failed as failure:
        return str(failure)
    return None


def main() -> int:
    """Exit code 1 if a seed fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds (default 200)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--every-step", action="store_true", help="crash one worker at every step of --seed instead")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    asked = parser.parse_args()
    if asked.every_step:
        seed = asked.seed or 0
        work, todo = partial(_try_crash, seed), range(1, run(seed, plan=one_worker(seed)).nature.step)
    elif asked.seed is not None:
        work, todo = partial(_try), range(asked.seed, asked.seed + 1)
    else:
        work, todo = partial(_try), range(asked.first, asked.first + asked.seeds)
    return _report(work, todo, asked.jobs)


def _report(work: "partial[str | None]", todo: range, jobs: int) -> int:
    began, failures = time.monotonic(), 0
    with ProcessPoolExecutor(jobs) as pool:
        for number, failure in zip(todo, pool.map(work, todo, chunksize=4), strict=True):
            if failure is not None:
                failures += 1
                print(f"\nFAILED {number}\n{failure}", flush=True)
            elif number % 100 == 99:
                print(f"{number + 1 - todo.start} of {len(todo)}, {failures} failed", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    print(f"{len(todo)} runs, {failures} failed, {len(todo) / seconds:.1f} a second")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
