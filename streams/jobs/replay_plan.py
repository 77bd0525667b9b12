"""What a replay is asked for, what it reads from, and what would be read: looked up before anything is left behind."""

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from streams.adapters.chained_history import ChainedHistory
from streams.adapters.kafka_history import KafkaHistory
from streams.errors import ConfigurationError
from streams.jobs.replay_journal import first_wall_ms, last_tick
from streams.jobs.replay_partition import Range
from streams.jobs.replay_start import Start, begin_of, candidates, missing
from streams.ports import CheckpointReader, History
from streams.rules import DAY_MS
from streams.settings import Settings
from streams.topics import INPUT_TOPICS, JOURNAL

if TYPE_CHECKING:
    from streams.adapters.archive_history import ArchiveHistory

YEAR_MS: Final = 366 * DAY_MS


class ReplayPlan(NamedTuple):
    """What is asked for."""

    run: str
    wanted: Range
    processes: int = 1
    resume: bool = False
    campaigns: tuple[str, ...] = ()
    archives: tuple[Path, ...] = ()
    """Directories to read from instead of the topics."""
    with_topics: bool = False
    """Reads on in the topics where the archives end."""

    @property
    def archive_paths(self) -> tuple[str, ...]:
        """The directories as whoever works in another one finds them."""
        return tuple(str(path.resolve()) for path in self.archives)


class Sources(NamedTuple):
    """What a replay reads."""

    history: History
    reader: CheckpointReader | None
    """Pinned checkpoints belong to the topics: with archives alone there are none."""


class Outlook(NamedTuple):
    """What one partition's replay would read."""

    start: Start
    records: int
    """Offsets, as far as anybody can tell before."""


@contextlib.asynccontextmanager
async def sources_of(settings: Settings, plan: ReplayPlan) -> AsyncIterator[Sources]:
    """What the plan reads from: archives, or the topics and their checkpoints, or what both hold together.

    Raises:
        ConfigurationError: an archive cannot be read, or does not continue in the topics, or a topic is missing.
    """
    archived = _archived(settings, plan)
    if archived is not None and not plan.with_topics:
        yield Sources(archived, None)
        return
    from streams.adapters.checkpoint_stores import store_of

    history, reader = KafkaHistory(settings.kafka), store_of(settings, is_reader=True)
    try:
        if settings.worker.checkpoint_store == "kafka":
            await reader.start()
        yield Sources(ChainedHistory(archived, history) if archived is not None else history, reader)
    finally:
        await reader.stop()
        await history.stop()


def _archived(settings: Settings, plan: ReplayPlan) -> "ArchiveHistory | None":
    from streams.adapters.archive_history import ArchiveHistory

    if not plan.archives:
        if plan.with_topics:
            raise ConfigurationError("--with-topics: reads on where archives end; give one with --archive")
        return None
    archived = ArchiveHistory(*plan.archives)
    if plan.with_topics and any(head.log_epoch != settings.worker.log_epoch for head in archived.heads):
        raise ConfigurationError(
            f"--with-topics: the archive is of another log epoch than worker.log_epoch ({settings.worker.log_epoch}), "
            "so the topics do not continue it; read the archive alone"
        )
    if plan.with_topics and any(head.identifiers != "raw" for head in archived.heads):
        raise ConfigurationError(
            "--with-topics: the archive holds pseudonyms and the topics identifiers as they are: one user would be "
            "two; read the archive alone, or one that `archive --raw` wrote"
        )
    return archived


async def check(history: History, wanted: Range) -> int:
    """How many partitions there are; refuses ranges of which nothing can be known.

    Raises:
        ConfigurationError: there is no journal, or nothing happened in the range.
    """
    if wanted.from_ms > time.time() * 1000:
        raise ConfigurationError("--from lies in the future; give a time that has passed")
    partitions = await history.partitions(JOURNAL)
    walls = [await first_wall_ms(history, partition) for partition in range(partitions)]
    first_ms = min((wall_ms for wall_ms in walls if wall_ms is not None), default=None)
    if first_ms is None:
        raise ConfigurationError("the journal is empty: no worker has run yet, so there is nothing to replay")
    if wanted.to_ms <= first_ms - YEAR_MS:
        raise ConfigurationError("--to lies over a year before the journal begins; nothing is known of that time")
    return partitions


async def expected(
    history: History, partition: int, positions: dict[str, int], ends: dict[str, int], to_ms: int
) -> int:
    """Offsets between a start and where records are of the range's end: what a progress bar counts up to."""
    total, is_open = 0, to_ms > time.time() * 1000
    for topic, end in ends.items():
        if positions.get(topic, 0) >= end:  # an archive does not have topics that were empty
            continue
        begin = max(positions.get(topic, 0), min(end, (await history.span(topic, partition)).first))
        if not is_open and begin < end and topic in INPUT_TOPICS.values():
            end = min(end, await history.offset_at(topic, partition, to_ms))
        total += max(0, end - begin)
    return total


async def outlook(sources: Sources, partition: int, wanted: Range) -> Outlook:
    """What an identical replay of one partition would read; no state is loaded for it.

    Raises:
        CampaignStreamsError: nothing reaches back far enough.
    """
    history = sources.history
    chosen = await candidates(history, sources.reader, partition, wanted.from_ms)
    start = await begin_of(history, partition, chosen)
    positions = chosen.found[0].applied if chosen.found else {}
    return await outlook_from(history, start, positions, wanted)


async def outlook_from(history: History, start: Start, positions: dict[str, int], wanted: Range) -> Outlook:
    """The same where it is known from where."""
    last = await last_tick(history, start.partition)
    ends = last.applied if last else {}
    gone = await missing(history, start.partition, positions, ends)
    records = await expected(history, start.partition, positions, ends, wanted.to_ms)
    return Outlook(start._replace(missing=gone), records)


def starts_of(outlooks: Sequence[Outlook]) -> list[Start]:
    """Where each partition would begin."""
    return [each.start for each in outlooks]
