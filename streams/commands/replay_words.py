"""What is told of where a replay has begun, and of what it could not read."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from streams.commands.options import length_text, time_text

if TYPE_CHECKING:
    from streams.adapters.clickhouse_runs import RunInfo
    from streams.jobs.replay import Summary
    from streams.jobs.replay_start import Start


def began_at(starts: "Sequence[Start]", from_ms: int) -> Iterator[str]:
    """Where every partition begins, what could not be used, and what has been removed."""
    pinned = [start for start in starts if start.checkpoint]
    if pinned:
        walls = sorted({time_text(start.wall_ms) for start in pinned})
        reached = [start.newest_ms for start in pinned if start.newest_ms >= 0]
        back = f", {length_text(max(0, from_ms - min(reached)))} of event time before the range" if reached else ""
        span = walls[0] if len(walls) == 1 else f"{walls[0]} to {walls[-1]}"
        places = ", ".join(f"{start.journal_offset:,} of partition {start.partition}" for start in pinned)
        yield f"from pinned checkpoints of {span} UTC{back}; behind journal offset {places}"
    if beginning := [str(start.partition) for start in starts if not start.checkpoint]:
        yield f"from the beginning of the journal: partition {', '.join(beginning)}"
    yield from (f"not used: {remark}" for start in starts for remark in start.remarks)
    for start in starts:
        for topic, count in start.missing:
            yield f"removed by retention: {count:,} offsets of {topic}-{start.partition} that had to be read again"


def read_back(summary: "Summary", from_ms: int) -> Iterator[str]:
    """The same of a replay that has ended."""
    yield from began_at(summary.starts, from_ms)
    if summary.read_from_ms:
        yield f"read back to {time_text(summary.read_from_ms)} UTC, event time"
    if summary.lost:
        yield (
            f"{summary.lost:,} records had been removed by retention before they could be read: what a worker has "
            "counted of them is in the live rows, and not in these"
        )


def told_of(info: "RunInfo") -> Iterator[str]:
    """What is known of a run that has ended."""
    if info.note:
        yield info.note
    if info.read_from_s:
        back = info.from_s - info.read_from_s
        before = f", {length_text(back * 1000)} before its range" if back > 0 else ""
        yield f"read back to {time_text(info.read_from_s * 1000)} UTC, event time{before}"
    if info.lost:
        yield f"{info.lost:,} records had been removed by retention before they could be read"
