"""A partition's journal, as a replay reads it: the ticks that count, in order, one by one.

It is read twice: once for what must be known before the first tick (where topics began, what the code failed on, how
far everything goes), and once along the way. So its length costs time, and no memory.
"""

import contextlib
from collections.abc import AsyncGenerator
from typing import Final, NamedTuple

from streams.errors import CampaignStreamsError
from streams.ports import History
from streams.state.journal import Claim, Fold, Tick, decode
from streams.state.partition import PartitionState
from streams.topics import CAMPAIGNS, JOURNAL

TAIL: Final = 64
"""Records at the end in which the last tick is looked for first."""


class Anchor(NamedTuple):
    """A tick behind which a journal is read; the default: its beginning."""

    offset: int = -1
    claim_id: str = ""
    seq: int = 0

    @property
    def is_beginning(self) -> bool:
        """Whether the whole journal is read."""
        return self.offset < 0


BEGINNING: Final = Anchor()


class RecordedTick(NamedTuple):
    """A tick that counts, and its place in the journal."""

    offset: int
    tick: Tick


class Recorded(NamedTuple):
    """What a partition's journal holds behind an anchor."""

    behind: Anchor
    end: int
    """The offset behind what was there when it was looked at."""
    starts: dict[str, int]
    """Where topics began; empty behind a checkpoint."""
    poisoned: dict[str, set[int]]
    """Offsets on which the code has failed."""
    ends: dict[str, int]
    """How far the last tick has applied every topic; empty: there is no tick."""
    ticks: int
    settings: tuple[dict[str, int], ...] = ()
    """How far every topic had been applied at each tick that was the first to stand behind new settings."""


async def _entries(
    history: History, partition: int, begin: int, end: int
) -> "AsyncGenerator[tuple[int, Claim | Tick]]":
    async with contextlib.aclosing(history.read(JOURNAL, partition, begin, max(begin, end))) as ranges:
        async for batch in ranges:
            if batch.is_lost:
                raise CampaignStreamsError(
                    f"partition {partition}: retention has removed the journal from offset {batch.from_offset} on "
                    "while it was read; begin the run anew, with a later range, or replay from an archive"
                )
            for record in batch.records:
                yield record.offset, decode(record.value or b"")


async def tick_at(history: History, partition: int, offset: int) -> Tick | None:
    """The tick at a place; None where there is none, or where it has been removed."""
    span = await history.span(JOURNAL, partition)
    if not span.first <= offset < span.next:
        return None
    async with contextlib.aclosing(_entries(history, partition, offset, offset + 1)) as entries:
        async for _, entry in entries:
            return entry if isinstance(entry, Tick) else None
    return None


async def last_tick(history: History, partition: int) -> Tick | None:
    """The last tick that stands in a journal, whether it counts or not: for what is only told."""
    span, size = await history.span(JOURNAL, partition), TAIL
    while True:
        begin, found = max(span.first, span.next - size), None
        async with contextlib.aclosing(_entries(history, partition, begin, span.next)) as entries:
            async for _, entry in entries:
                found = entry if isinstance(entry, Tick) else found
        if found is not None or begin == span.first:
            return found
        size *= 8


async def recorded_behind(history: History, partition: int, behind: Anchor = BEGINNING) -> Recorded:
    """Looks through the journal behind an anchor.

    Raises:
        CampaignStreamsError: its beginning is asked for, and has been removed.
    """
    span = await history.span(JOURNAL, partition)
    if behind.is_beginning and span.first > 0:
        raise CampaignStreamsError(beginning_is_gone(partition, span.first))
    fold, count = Fold(behind.claim_id, behind.seq), 0
    ends: dict[str, int] = {}
    poisoned: dict[str, set[int]] = {}
    settings: list[dict[str, int]] = []
    async with contextlib.aclosing(_entries(history, partition, behind.offset + 1, span.next)) as entries:
        async for _, entry in entries:
            tick = fold.take(entry)
            if tick is not None:
                if tick.applied.get(CAMPAIGNS, 0) > ends.get(CAMPAIGNS, 0):
                    settings.append(tick.applied)
                count, ends = count + 1, tick.applied
                for topic, offsets in tick.poisoned.items():
                    poisoned.setdefault(topic, set()).update(offsets)
    starts = fold.starts if behind.is_beginning else None
    return Recorded(behind, span.next, starts or {}, poisoned, ends, count, tuple(settings))


def beginning_is_gone(partition: int, first: int) -> str:
    """What is told where nothing reaches back far enough."""
    return (
        f"partition {partition}: the journal begins at offset {first}: its beginning has been removed, and no "
        "checkpoint from before the range is kept (worker.pinned_checkpoints); replay from an archive that holds it, "
        "or a later range"
    )


async def ticks(history: History, partition: int, recorded: Recorded) -> AsyncGenerator[RecordedTick]:
    """The ticks that count behind the anchor, up to where the journal ended when it was looked through."""
    fold = Fold(recorded.behind.claim_id, recorded.behind.seq)
    entries = _entries(history, partition, recorded.behind.offset + 1, recorded.end)
    async with contextlib.aclosing(entries):
        async for offset, entry in entries:
            tick = fold.take(entry)
            if tick is not None:
                yield RecordedTick(offset, tick)


def prepare(state: PartitionState, recorded: Recorded) -> None:
    """Lets a state know what the journal says of where topics begin and of poison."""
    if recorded.behind.is_beginning:
        state.begin_at(recorded.starts)
    for topic, offsets in recorded.poisoned.items():
        state.poisoned.setdefault(topic, set()).update(offsets)


async def first_wall_ms(history: History, partition: int) -> int | None:
    """Wall time of the first entry that is left; None: the journal is empty."""
    span = await history.span(JOURNAL, partition)
    async with contextlib.aclosing(_entries(history, partition, span.first, span.next)) as entries:
        async for _, entry in entries:
            return entry.wall_ms
    return None
