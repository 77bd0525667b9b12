"""What the console asks its own worker: how it is."""

from datetime import UTC, datetime
from typing import Any

from streams import __version__
from streams.agents.health import STARTING, readiness
from streams.agents.status import lag_records
from streams.console.documents import Health


class WorkerBackstage:
    """The engine's state in the console's terms."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def health(self) -> Health:
        """At this moment; of a worker that starts: nothing yet."""
        engine = self._engine
        if not engine.is_ready:
            return _starting()
        keeper, publisher = engine.keeper, engine.publisher
        verdict = readiness(keeper, engine.source.mine)
        owners = list(keeper.owners.values())
        visible = keeper.visible.summary() or {}
        newest_ms = max((s.newest_ms for o in owners for s in o.state.inputs.values()), default=-1)
        return Health(
            is_ready=verdict.is_well,
            reasons=list(verdict.reasons),
            version=__version__,
            partitions=sorted(keeper.owners),
            recovering=sorted(owner.partition for owner in owners if owner.is_recovering),
            lag_records=lag_records(keeper, engine.source.highwater),
            dirty_rows=keeper.dirty_rows,
            is_sink_up=publisher.failures_in_a_row == 0,
            visible_p50_ms=visible.get("p50"),
            visible_p99_ms=visible.get("p99"),
            newest_event=datetime.fromtimestamp(newest_ms / 1000, UTC) if newest_ms >= 0 else None,
        )


def _starting() -> Health:
    return Health(
        is_ready=False,
        reasons=[STARTING],
        version=__version__,
        partitions=[],
        recovering=[],
        lag_records=0,
        dirty_rows=0,
        is_sink_up=False,
        visible_p50_ms=None,
        visible_p99_ms=None,
        newest_event=None,
    )
