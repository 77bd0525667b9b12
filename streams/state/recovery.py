"""Where an owner starts: the newest whole checkpoint, and the ticks that the journal holds behind it."""

from collections.abc import Sequence
from typing import NamedTuple

from streams.blocks import RowBlock
from streams.errors import CorruptCheckpoint, Fenced, JournalMismatch
from streams.ports import CheckpointReader, Journal, JournalRecord
from streams.state.checkpoint import Manifest, check_format, checksum_of, decode_rows, parse_manifest, restore
from streams.state.dirty import Unsaved
from streams.state.journal import Claim, Fold, Tick, decode
from streams.state.partition import PartitionState

MAX_EMPTY_READS = 20
"""A journal that answers nothing this often does not hold what is looked for."""


class PlacedTick(NamedTuple):
    """A tick that counts, and its place in the journal."""

    offset: int
    tick: Tick


class NamedManifest(NamedTuple):
    """A manifest, of whatever format, and the key that it is stored under; None where it cannot be read."""

    key: str
    manifest: Manifest | None


class Recovered(NamedTuple):
    """What an owner goes on from."""

    state: PartitionState
    ticks: list[PlacedTick]
    fold: Fold
    cursor: int
    """The next journal offset to read."""
    manifests: list[NamedManifest]
    """All manifests, the oldest first (unreadable ones in front); the state is that of `used`, if any."""
    used: NamedManifest | None
    rows: list[Unsaved]
    corrupt: list[str]
    """What could not be read, for the log."""


async def recover(
    empty: PartitionState,
    journal: Journal,
    store: CheckpointReader,
    read_until: int | str,
) -> Recovered:
    """Loads the newest whole checkpoint and reads the journal behind it.

    `read_until`: a claim's id (read up to that claim), or a journal offset (read up to it, included).

    Raises:
        JournalMismatch: the journal does not hold what the checkpoint stands on.
    """
    partition = empty.partition
    manifests, corrupt = await named_manifests(partition, store)
    used: NamedManifest | None = None
    state = empty
    rows: list[Unsaved] = []
    for candidate in reversed(manifests):
        if candidate.manifest is None:
            continue
        try:
            state, rows = await load(empty, candidate.manifest, store)
            used = candidate
            break
        except CorruptCheckpoint as error:
            corrupt.append(f"{candidate.key}: {error}")
            state, rows = empty, []
    fold, cursor = await _start(partition, journal, used)
    ticks, cursor = await _read(partition, journal, fold, cursor, read_until)
    if used is None:
        state.begin_at(fold.starts or {})
    for placed in ticks:
        for topic, offsets in placed.tick.poisoned.items():
            state.poisoned.setdefault(topic, set()).update(offsets)
    return Recovered(state, ticks, fold, cursor, manifests, used, rows, corrupt)


async def named_manifests(partition: int, store: CheckpointReader) -> tuple[list[NamedManifest], list[str]]:
    """All manifests that a store has, the oldest first (unreadable ones in front), and what could not be read."""
    found: list[NamedManifest] = []
    corrupt: list[str] = []
    for key, data in await store.manifests(partition):
        try:
            found.append(NamedManifest(key, parse_manifest(data)))
        except CorruptCheckpoint as error:
            found.append(NamedManifest(key, None))
            corrupt.append(f"{key}: {error}")
    return sorted(found, key=lambda named: named.manifest.journal_offset if named.manifest else -1), corrupt


async def load(
    empty: PartitionState, manifest: Manifest, store: CheckpointReader
) -> tuple[PartitionState, list[Unsaved]]:
    """The state that a manifest names (`empty` stays so), and the rows that were not acknowledged then.

    Raises:
        CorruptCheckpoint: it is of another format, or something that it names is not there or not whole.
    """
    check_format(manifest)
    segments: dict[str, bytes] = {}
    for name, ref in manifest.segments.items():
        data = await store.get(empty.partition, ref.key, ref.place)
        if len(data) != ref.size or checksum_of(data) != ref.checksum:
            raise CorruptCheckpoint(f"segment {name} fails its checksum")
        segments[name] = data
    state = PartitionState(empty.partition, empty.partitions, empty.log_epoch, empty.rules)
    restore(state, segments)
    return state, _rows(segments, manifest.row_versions)


def _rows(segments: dict[str, bytes], versions: dict[str, int]) -> list[Unsaved]:
    """Unacknowledged rows, oldest first; version 0 stands for that of the tick at which they were captured."""
    names = sorted((n for n in segments if n.startswith("rows/")), key=lambda n: int(n.split("/")[1]))
    return [_numbered(entry, versions[name]) for name in names for entry in decode_rows(segments[name])]


def _numbered(entry: Unsaved, version: int) -> Unsaved:
    table, row = entry
    if isinstance(row, RowBlock):
        return table, row if row.version else row.stamped(version)
    return table, row if row[-1] else (*row[:-1], version)


async def _start(partition: int, journal: Journal, used: NamedManifest | None) -> tuple[Fold, int]:
    beginning = await journal.beginning(partition)
    if used is None:
        if beginning > 0:
            raise JournalMismatch(
                f"partition {partition}: the journal begins at offset {beginning} and no checkpoint stands before it; "
                "restore the checkpoints, or raise worker.log_epoch by one and load history anew"
            )
        return Fold(), 0
    manifest = used.manifest
    assert manifest is not None
    for record in await _at(partition, journal, manifest.journal_offset):
        entry = decode(record.value)
        if isinstance(entry, Tick) and (entry.claim_id, entry.seq) == (manifest.claim_id, manifest.seq):
            return Fold(manifest.claim_id, manifest.seq), manifest.journal_offset + 1
        break
    raise JournalMismatch(
        f"partition {partition}: the journal does not hold the tick that checkpoint {used.key} was taken at; "
        "were the topics created anew? Then raise worker.log_epoch by one"
    )


async def _at(partition: int, journal: Journal, offset: int) -> Sequence[JournalRecord]:
    """The records from an offset on: some are there, for a journal holds a claim behind every manifest."""
    for _ in range(MAX_EMPTY_READS):
        records = await journal.read(partition, offset)
        if records:
            return records
    return []


async def _read(
    partition: int, journal: Journal, fold: Fold, cursor: int, read_until: int | str
) -> tuple[list[PlacedTick], int]:
    ticks: list[PlacedTick] = []
    while not (isinstance(read_until, int) and cursor > read_until):
        records = await journal.read(partition, cursor)
        if not records and isinstance(read_until, str):  # it was acknowledged, so it lies before the checkpoint's tick
            raise Fenced(f"partition {partition}: another worker has claimed it since; this worker gives it up")
        for record in records:
            cursor = record.offset + 1
            entry = decode(record.value)
            tick = fold.take(entry)
            if tick is not None:
                ticks.append(PlacedTick(record.offset, tick))
            if isinstance(entry, Claim) and entry.claim_id == read_until:
                return ticks, cursor
            if record.offset == read_until:
                return ticks, cursor
    return ticks, cursor
