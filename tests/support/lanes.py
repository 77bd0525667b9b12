"""How files are handed to the processes of a run: whole systems in a lane of their own, and so what shares a Kafka.

A system under test works by the clock (ticks, polls, heartbeats), so it costs processor time for as long as it lives.
Side by side, two such tests take twice as long each, and together half as much again of processor time; beside tests
that only compute, and step aside for it, one takes hardly more than alone. A Kafka for its tests costs a quarter of a
minute, so one process has them all.
"""

import os
import re
from typing import Final

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

SYSTEMS: Final = 0
LANES: Final = (
    ("tests/e2e/",),
    ("tests/contract/", "tests/integration/test_kafka_", "tests/integration/test_archive_kafka.py"),
)
"""Beginnings of files, by lane."""
PROCESSES: Final = 3
"""One of them for each lane, the third without; of more the fourth begins anew."""
ASIDE: Final = 5
"""Niceness of the processes of other lanes than the systems'."""


class Lanes(LoadFileScheduling):
    """Files in their order; but a lane's own first, and those of other lanes last."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        own = lane_of_process(node.gateway.id)
        first = min(self.workqueue, key=lambda file: _rank(lane_of(file), own), default=None)
        if first is not None:
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)


def lane_of(file: str) -> int | None:
    """In which lane a file is; None: in none."""
    return next((lane for lane, begins in enumerate(LANES) if file.startswith(begins)), None)


def lane_of_process(worker: str) -> int | None:
    """Whose files a process (gw0, gw1, …) has first; None: those of no lane."""
    place = int(re.sub(r"\D", "", worker) or 0) % PROCESSES
    return place if place < len(LANES) else None


def _rank(lane: int | None, own: int | None) -> int:
    """The least comes first, and of equals the first."""
    return 0 if lane == own else 1 if lane is None else 2


def step_aside() -> None:
    """In a process of another lane: whole systems go first, where there is not processor enough for both."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None and lane_of_process(worker) != SYSTEMS:
        os.nice(ASIDE)
