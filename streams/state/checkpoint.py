"""Checkpoints: which segments a state consists of, and the manifest that names them.

A checkpoint writes the segments that have changed, each under a key of its own, then one manifest. What is not named
by a manifest was never part of a checkpoint, so a torn one is simply not there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import xxhash

from streams.blocks import Blocks, RowBlock, stamped
from streams.errors import CorruptCheckpoint
from streams.records import Row, Table
from streams.state.dedupe import DedupeIndex
from streams.state.dirty import Unsaved
from streams.state.inputs import InputState
from streams.state.partition import PartitionState

FORMAT: Final = 6
"""Version of the state's format. A manifest of another is not read (deploy/RUNBOOK.md tells how to upgrade)."""
_RUNS: Final = "runs/"
_TOTALS: Final = "totals/"
_RECENT: Final = "recent/"
_SOURCES: Final = "sources/"
ROWS: Final = "rows/"
IMMUTABLE: Final = (_RUNS, _TOTALS, _RECENT, _SOURCES, ROWS)
"""Segments whose content never changes under their name, within the checkpoints that build on each other."""


class SegmentRef(msgspec.Struct, frozen=True):
    """Where a live segment is, and what its bytes must hash to (XXH3, 64 bits)."""

    key: str
    place: str
    size: int
    checksum: str


class Manifest(msgspec.Struct, frozen=True):
    """A whole checkpoint: the state after one tick."""

    format: int
    claim_id: str
    seq: int
    journal_offset: int
    segments: dict[str, SegmentRef]
    row_versions: dict[str, int]
    """By segment of rows: the version that its rows have which were encoded before they had one."""
    wall_ms: int = 0
    """Wall time of its tick; 0: a version wrote it that did not say."""
    newest_ms: int = -1
    """Newest event time that the state has reached; -1: no event yet."""


class Capture(msgspec.Struct):
    """A state at one tick, encoded: what must be written, and the names of all segments it consists of."""

    seq: int
    changed: dict[str, bytes]
    names: set[str]
    wall_ms: int = 0
    newest_ms: int = -1


_PACK: Final = msgspec.msgpack.Encoder()


def checksum_of(data: bytes) -> str:
    """16 hexadecimal digits."""
    return xxhash.xxh3_64_hexdigest(data)


def encode_manifest(manifest: Manifest) -> bytes:
    """JSON, with its own checksum in front."""
    body = msgspec.json.encode(manifest)
    return checksum_of(body).encode() + b"\n" + body


def parse_manifest(data: bytes) -> Manifest:
    """A manifest of any format: what it names may be deleted, but not loaded (`check_format`).

    Raises:
        CorruptCheckpoint: the bytes are not whole.
    """
    checksum, _, body = data.partition(b"\n")
    if checksum.decode(errors="replace") != checksum_of(body):
        raise CorruptCheckpoint("a manifest fails its checksum")
    try:
        return msgspec.json.decode(body, type=Manifest)
    except msgspec.DecodeError as error:
        raise CorruptCheckpoint(f"a manifest cannot be read: {error}") from None


def check_format(manifest: Manifest) -> Manifest:
    """Raises `CorruptCheckpoint` where the format is another."""
    if manifest.format != FORMAT:
        raise CorruptCheckpoint(f"a manifest has format {manifest.format}; this version reads {FORMAT}")
    return manifest


def decode_manifest(data: bytes) -> Manifest:
    """Raises `CorruptCheckpoint` where the bytes are not whole or the format is another."""
    return check_format(parse_manifest(data))


def capture(state: PartitionState, written: Iterable[str], rows: dict[str, bytes], wall_ms: int = 0) -> Capture:
    """Encodes the state as it stands, at a tick of this wall time.

    `written` names the segments that the last checkpoint has and that never change (IMMUTABLE); `rows` are segments
    of rows not yet acknowledged, by name.
    """
    known = set(written)
    changed = {
        "partition": _PACK.encode(state.snapshot()),
        "windows": _PACK.encode(state.windows.snapshot()),
        "desk": _PACK.encode(state.desk.snapshot()),
        "judging": _PACK.encode(state.judging.snapshot()),
    }
    names = set(changed)
    for store, runs in state.judging.sources.stores().items():
        for run in runs.runs:
            name = f"{_SOURCES}{store}/{run.name}"
            names.add(name)
            if name not in known:
                changed[name] = run.records.tobytes()
    for source, held in state.inputs.items():
        for name, run in _runs(held):
            names.add(name)
            if name not in known:
                changed[name] = run.encode()
        totals = f"{_TOTALS}{source.value}/{held.report_revision}"
        names.add(totals)
        if totals not in known:
            changed[totals] = _PACK.encode(held.report_totals())
        changed[f"input/{source.value}"] = _PACK.encode(held.snapshot())
        names.add(f"input/{source.value}")
    for name, data in rows.items():
        names.add(name)
        if name not in known:
            changed[name] = data
    return Capture(state.seq, changed, names, wall_ms, state.newest_ms())


def _indexes(held: InputState) -> list[tuple[str, DedupeIndex]]:
    return [("ids", held.dedupe), *held.judge.indexes().items()]


def _runs(held: InputState) -> Iterator[tuple[str, Any]]:
    """Immutable segments of an input, with what is fresh packed into them."""
    source = held.source.value
    for name, index in _indexes(held):
        index.pack(held.newest_ms)
        yield from ((f"{_RUNS}{source}/{name}/{run.name}", run) for run in index.runs)
    held.traces.recent.pack()
    yield from ((f"{_RECENT}{source}/{run.name}", run) for run in held.traces.recent.runs)


def restore(state: PartitionState, segments: dict[str, bytes]) -> None:
    """Fills an empty state from a checkpoint's segments.

    Raises:
        CorruptCheckpoint: a segment is missing or cannot be read.
    """
    try:
        state.restore(_unpack(segments["partition"]))
        state.restore_windows(_unpack(segments["windows"]))
        state.desk.restore(_unpack(segments["desk"]))
        judging = _unpack(segments["judging"])
        named = [(store, name) for store, names in judging["source_runs"] for name in names]
        state.judging.restore(judging, [(s, name, segments[f"{_SOURCES}{s}/{name}"]) for s, name in named])
        for source, held in state.inputs.items():
            _restore_input(held, source.value, segments)
    except (KeyError, msgspec.MsgspecError, ValueError, TypeError) as error:
        raise CorruptCheckpoint(f"a checkpoint cannot be read: {error!r}") from error


def _restore_input(held: InputState, source: str, segments: dict[str, bytes]) -> None:
    snapshot = _unpack(segments[f"input/{source}"])
    held.restore(snapshot)
    held.restore_report_totals(_unpack(segments[f"{_TOTALS}{source}/{held.report_revision}"]))
    for index_name, index in _indexes(held):
        for name in snapshot["runs"][index_name]:
            index.restore_run(name, segments[f"{_RUNS}{source}/{index_name}/{name}"])
    recent = snapshot["recent"]
    runs = {name: segments[f"{_RECENT}{source}/{name}"] for name in recent["runs"]}
    held.traces.recent.restore(recent, runs)


def _unpack(data: bytes) -> Any:
    return msgspec.msgpack.decode(data, strict=False)


def unsaved(rows: Mapping[Table, Sequence[Row]]) -> list[Unsaved]:
    """A tick's rows, which have no version yet, as `encode_rows` takes them."""
    found: list[Unsaved] = []
    for table, group in rows.items():
        numbered = stamped(group, 0)
        found.extend((table, row) for row in (numbered.parts if isinstance(numbered, Blocks) else numbered))
    return found


def encode_rows(rows: Iterable[Unsaved]) -> bytes:
    """What is not yet acknowledged, oldest first. Its version may be 0: that of its capture's tick."""
    return _PACK.encode([(t.value, _packed(row) if isinstance(row, RowBlock) else row) for t, row in rows])


def decode_rows(data: bytes) -> list[Unsaved]:
    """What `encode_rows` took."""
    return [
        (Table(name), _block(Table(name), row) if isinstance(row, dict) else tuple(row)) for name, row in _unpack(data)
    ]


def _packed(block: RowBlock) -> dict[str, Any]:
    return {
        "head": block.head,
        "origin": block.origin.tobytes(),
        "effect": block.effect,
        "names": block.names,
        "dimensions": block.dimensions,
        "measures": block.measures,
        "totals": block.totals.tobytes(),
        "users": block.users,
        "rules": block.rules,
        "version": block.version,
    }


def _block(table: Table, packed: dict[str, Any]) -> RowBlock:
    measures, dimensions = tuple(packed["measures"]), packed["dimensions"]
    return RowBlock(
        table,
        tuple(packed["head"]),
        np.frombuffer(packed["origin"], dtype=np.int64),
        packed["effect"],
        list(map(tuple, packed["names"])),
        None if dimensions is None else list(map(tuple, dimensions)),
        measures,
        np.frombuffer(packed["totals"], dtype=np.int64).reshape(-1, len(measures)),
        packed["users"],
        packed["rules"],
        packed["version"],
    )
