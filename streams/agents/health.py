"""What probes ask: does this worker still turn, and does it do its part. Told with the reasons, for people.

*Live* asks for as little as it can, since its failure costs a restart: an outage of Kafka or ClickHouse is no reason
for one. *Ready* asks for everything that a rollout must wait for before it goes on to the next worker.
"""

from collections.abc import Collection
from typing import Any, Final, NamedTuple

from streams.agents.keeper import Keeper

STUCK_S: Final = 300.0
"""A clockwork that has not turned for so long never will. A tick that waits for Kafka gives up much earlier."""
TICK_BOUND_S: Final = 60.0
"""Kafka may stay away for so long before a worker says that it is not ready: idle partitions tick every 10 s."""
STARTING: Final = "the worker is starting"


class Verdict(NamedTuple):
    """A probe's answer: well without reasons against it."""

    reasons: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons

    @property
    def status(self) -> int:
        """As HTTP has it."""
        return 200 if self.is_well else 503


def liveness(turned_s_ago: float | None) -> Verdict:
    """That this is asked at all shows that the loop turns; the clockwork in it must too. None: it has not begun."""
    if turned_s_ago is None or turned_s_ago <= STUCK_S:
        return Verdict(())
    return Verdict((f"the clockwork has stood still for {turned_s_ago:.0f} s",))


def readiness(keeper: Keeper, assigned: Collection[int] | None) -> Verdict:
    """Partitions assigned (None: not told yet), their state loaded, ticks confirmed, and ClickHouse within bounds.

    A worker that Kafka has given no partition is a spare one, and ready to take over. ClickHouse may be away for as
    long as the rows that wait for it are within `worker.max_dirty_rows`.
    """
    if assigned is None:
        return Verdict(("Kafka has not assigned partitions yet",))
    now_ms, reasons = keeper.clock.now_ms(), []
    for partition in sorted(assigned):
        owner = keeper.owners.get(partition)
        if owner is None:
            reasons.append(f"partition {partition} is not open")
        elif owner.is_recovering:
            reasons.append(f"partition {partition} replays its journal")
        elif now_ms - owner.confirmed_wall_ms > TICK_BOUND_S * 1000:
            reasons.append(f"partition {partition} has not ticked for more than {TICK_BOUND_S:.0f} s")
    if keeper.is_saturated:
        reasons.append(f"{keeper.dirty_rows:,} rows wait for ClickHouse: intake is paused")
    return Verdict(tuple(reasons))


def document(name: str, verdict: Verdict, **more: Any) -> dict[str, Any]:
    """The answer's body."""
    return {name: verdict.is_well, "reasons": list(verdict.reasons), **more}
