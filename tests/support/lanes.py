"""How files are handed to the processes of a run: those with whole systems in a lane of their own.

A system under test works by the clock (ticks, polls, heartbeats), so it costs processor time for as long as it lives.
Side by side, two such tests take twice as long each, and together half as much again of processor time; beside tests
that only compute, and step aside for it, one takes hardly more than alone. One lane in three is theirs.
"""

import os
import re
from typing import Final

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

WHOLE_SYSTEMS: Final = "tests/e2e/"
ONE_IN: Final = 3
ASIDE: Final = 5
"""Niceness of the processes of the other lanes."""


class Lanes(LoadFileScheduling):
    """Files in their order; but whole systems first in their lanes, and last in the others."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        wanted = is_for_systems(node.gateway.id)
        first = next((scope for scope in self.workqueue if scope.startswith(WHOLE_SYSTEMS) == wanted), None)
        if first is not None:
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)


def is_for_systems(worker: str) -> bool:
    """Whether this process (gw0, gw1, …) has the whole systems first."""
    return int(re.sub(r"\D", "", worker) or 0) % ONE_IN == 0


def step_aside() -> None:
    """In a process of another lane: whole systems go first, where there is not processor enough for both."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None and not is_for_systems(worker):
        os.nice(ASIDE)
