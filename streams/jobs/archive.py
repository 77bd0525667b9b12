"""Topics into an archive of Parquet or NDJSON files, from where the archive ends to where the topics end.

    history ─► pseudonyms ─► chunks ─► files
    any broker's             adapters/archive_writer.py

The journal's end is looked up before those of the inputs: what a tick in the archive says was applied is archived too.
"""

import asyncio
import difflib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from streams.adapters.archive_files import Columns, Format, arrow
from streams.adapters.archive_writer import ChunkWriter, Origin, held, last_head, recover
from streams.errors import ConfigurationError
from streams.events import Input
from streams.jobs.identity import Identity
from streams.jobs.pseudonyms import Pseudonyms
from streams.ports import Batch, History
from streams.topics import INPUT_TOPICS, JOURNAL, READ_TOPICS

TOPICS: Final = (JOURNAL, *READ_TOPICS)
"""What can be archived, in this order."""
CHUNK_RECORDS: Final = 2_000_000
CHUNK_BYTES: Final = 512 * 1024**2
"""Of keys and values: what a run that is killed reads again, at most."""


class Wish(NamedTuple):
    """What is to be archived."""

    directory: Path
    topics: tuple[str, ...] = TOPICS
    are_named: bool = True
    """Whether a topic that is missing is an error, or only told."""
    from_ms: int | None = None
    """Where an archive begins that holds nothing yet: records before it are left out."""
    until_ms: int | None = None
    """Up to the first record of this time or later."""
    raw: bool = False
    """Identifiers as they are."""
    form: Format = "parquet"
    """Of the files that are written now; those of runs before stay as they are."""


class Work(NamedTuple):
    """Offsets of one topic-partition that are to be archived."""

    topic: str
    partition: int
    from_offset: int
    to_offset: int


@dataclass
class TopicReport:
    """What was archived of one topic."""

    records: int = 0
    offsets: int = 0
    """Of these, what is not records held none, or was lost."""
    lost: int = 0
    """Offsets that retention had removed before they could be archived."""
    pseudonymised: int = 0
    """Records of which an identifier was replaced."""
    markers: int = 0
    """Records of which only the reason of their rejection, and their length, was kept."""
    unfaithful: int = 0
    """Markers that are rejected for another reason than the record was."""
    file_bytes: int = 0


@dataclass
class ArchiveReport:
    """What a run has archived. Filled while it runs."""

    offsets_planned: int = 0
    missing: list[str] = field(default_factory=list)
    """Topics that were not named, and are not there."""
    topics: dict[str, TopicReport] = field(default_factory=dict)

    @property
    def offsets(self) -> int:
        """Offsets behind us."""
        return sum(topic.offsets for topic in self.topics.values())


def topics_of(names: Sequence[str]) -> tuple[str, ...]:
    """Checked names of topics, in the order of `TOPICS`; an input's will do (`clicks`). None given: all.

    Raises:
        ConfigurationError: one is none of those that can be archived.
    """
    wanted = {INPUT_TOPICS[Input(name)] if name in set(Input) else name for name in names}
    for name in sorted(wanted - set(TOPICS)):
        close = difflib.get_close_matches(name, TOPICS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(TOPICS)}"
        raise ConfigurationError(f"--topics: {name!r} cannot be archived; {hint}")
    return tuple(topic for topic in TOPICS if topic in wanted or not names)


async def archive(
    history: History,
    wish: Wish,
    identity: Identity,
    log_epoch: int,
    report: ArchiveReport | None = None,
    *,
    chunk_records: int = CHUNK_RECORDS,
) -> ArchiveReport:
    """Archives what has come since the last run. Cancelled or killed, it has lost and doubled nothing.

    Raises:
        ConfigurationError: no key to make pseudonyms with, another archiver is at work, the directory cannot be
            written or holds another history, or a topic is missing.
        Unavailable: the topics cannot be read; run again.
    """
    if wish.form == "parquet":
        arrow()
    if identity.key is None and not wish.raw:
        raise ConfigurationError(
            "an archive holds identifiers only as pseudonyms, and identity.key is not set; set it to the key of the "
            "events, or archive identifiers as they are with --raw"
        )
    counted = report if report is not None else ArchiveReport()
    wish = wish._replace(topics=await _present(history, wish, counted))
    with held(wish.directory):
        await asyncio.to_thread(recover, wish.directory)
        works = await _planned(history, wish, identity, log_epoch)
        counted.offsets_planned = sum(work.to_offset - work.from_offset for work in works)
        for work in works:
            one = _OneArchive(wish, work, identity, log_epoch, counted, chunk_records)
            await one.run(history)
    return counted


async def _present(history: History, wish: Wish, report: ArchiveReport) -> tuple[str, ...]:
    """The topics that are there. Looked up before anything else: a wrong name leaves no directory behind."""
    present = []
    for topic in wish.topics:
        try:
            await history.partitions(topic)
        except ConfigurationError:
            if wish.are_named or len(report.missing) + 1 == len(wish.topics):
                raise
            report.missing.append(topic)
        else:
            present.append(topic)
    return tuple(present)


async def _planned(history: History, wish: Wish, identity: Identity, log_epoch: int) -> list[Work]:
    works = []
    for topic in wish.topics:
        for partition in range(await history.partitions(topic)):
            begin = _continued(wish, topic, partition, log_epoch)
            span = await history.span(topic, partition)
            if begin is not None and begin > span.next:
                raise ConfigurationError(
                    f"{topic}-{partition} ends at offset {span.next}, before the archive's {begin}: it was created "
                    "anew; raise worker.log_epoch by one and archive into another directory"
                )
            if begin is None:
                begin = span.first if wish.from_ms is None else await history.offset_at(topic, partition, wish.from_ms)
            end = span.next
            if wish.until_ms is not None:
                end = min(end, await history.offset_at(topic, partition, wish.until_ms))
            if begin < end:
                works.append(Work(topic, partition, begin, end))
    return works


def _continued(wish: Wish, topic: str, partition: int, log_epoch: int) -> int | None:
    """Where the archive of a topic-partition ends; None: there is nothing yet."""
    head = last_head(wish.directory, topic, partition)
    if head is None:
        return None
    if head.log_epoch != log_epoch:
        raise ConfigurationError(
            f"{wish.directory} is of log epoch {head.log_epoch}, and worker.log_epoch is {log_epoch}; "
            "archive into another directory"
        )
    if (head.identifiers == "raw") != wish.raw:
        how = "as they are; go on with --raw" if head.identifiers == "raw" else "as pseudonyms; go on without --raw"
        raise ConfigurationError(f"{wish.directory} holds identifiers {how}, or archive into another directory")
    return head.to_offset


class _OneArchive:
    """Archives one topic-partition, chunk by chunk."""

    def __init__(
        self, wish: Wish, work: Work, identity: Identity, log_epoch: int, report: ArchiveReport, chunk_records: int
    ) -> None:
        self._directory = wish.directory
        self._form = wish.form
        self._work = work
        self._chunk_records = chunk_records
        self._report = report.topics.setdefault(work.topic, TopicReport())
        self._pseudonyms = None if wish.raw else Pseudonyms(work.topic, identity)
        kind, key_id = ("raw", "") if wish.raw else ("pseudonyms", identity.key_id)
        self._origin = Origin(work.topic, work.partition, kind, key_id, log_epoch)  # type: ignore[arg-type]
        self._chunk: ChunkWriter | None = None

    async def run(self, history: History) -> None:
        work = self._work
        ranges: AsyncGenerator[Batch] = history.read(work.topic, work.partition, work.from_offset, work.to_offset)
        try:
            async with aclosing(ranges):
                async for batch in ranges:
                    # In a thread, so that the next range is fetched meanwhile; and to its end, also when cancelled.
                    await _undivided(self._take, batch)
            await _undivided(self._finish, work.to_offset)
        finally:
            if self._chunk is not None:
                self._chunk.abandon()
            self._count_changes()

    def _take(self, batch: Batch) -> None:
        self._report.offsets += batch.to_offset - batch.from_offset
        if batch.is_lost:
            self._finish(batch.from_offset)
            self._report.lost += batch.to_offset - batch.from_offset
            self._chunk = ChunkWriter(self._directory, self._origin, batch.from_offset, batch.to_offset, self._form)
            return
        columns = self._columns(batch)
        at = batch.from_offset
        while True:
            if self._chunk is None:
                self._chunk = ChunkWriter(self._directory, self._origin, at, at, self._form)
            room = self._chunk.room_for(columns.timestamps_ms)
            self._chunk.add(Columns(*(column[:room] for column in columns)))  # type: ignore[arg-type]
            columns = Columns(*(column[room:] for column in columns))  # type: ignore[arg-type]
            if not columns.offsets:
                break
            at = columns.offsets[0]
            self._finish(at)
        self._report.records += len(batch.records)
        if self._chunk.records >= self._chunk_records or self._chunk.value_bytes >= CHUNK_BYTES:
            self._finish(batch.to_offset)

    def _columns(self, batch: Batch) -> Columns:
        records = batch.records
        values = [record.value for record in records]
        keys = [record.key for record in records]
        if self._pseudonyms is not None:
            self._pseudonyms.treat(keys, values)
        return Columns([record.offset for record in records], [record.timestamp for record in records], keys, values)

    def _finish(self, to_offset: int) -> None:
        chunk, self._chunk = self._chunk, None
        if chunk is not None:
            try:
                self._report.file_bytes += chunk.finish(to_offset)
            except BaseException:
                chunk.abandon()
                raise

    def _count_changes(self) -> None:
        if self._pseudonyms is not None:
            self._report.pseudonymised += self._pseudonyms.rewritten
            self._report.markers += self._pseudonyms.markers
            self._report.unfaithful += self._pseudonyms.unfaithful


async def _undivided(work: Callable[..., None], *arguments: object) -> None:
    """Runs in a thread; whoever cancels waits for its end."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
