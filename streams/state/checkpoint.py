"""Checkpoints: which segments a state consists of, and the manifest that names them.

A checkpoint writes the segments that have changed, each under a key of its own, then one manifest. What is not named
by a manifest was never part of a checkpoint, so a torn one is simply not there.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
import xxhash

from streams.errors import CorruptCheckpoint
from streams.records import Row, Table
from streams.state.dedupe import DedupeIndex
from streams.state.inputs import InputState
from streams.state.partition import PartitionState

FORMAT: Final = 4
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


class Capture(msgspec.Struct):
    """A state at one tick, encoded: what must be written, and the names of all segments it consists of."""

    seq: int
    changed: dict[str, bytes]
    names: set[str]


_PACK: Final = msgspec.msgpack.Encoder()


def checksum_of(data: bytes) -> str:
    """16 hexadecimal digits."""
    return xxhash.xxh3_64_hexdigest(data)


def encode_manifest(manifest: Manifest) -> bytes:
    """JSON, with its own checksum in front."""
    body = msgspec.json.encode(manifest)
    return checksum_of(body).encode() + b"\n" + body


def decode_manifest(data: bytes) -> Manifest:
    """Raises `CorruptCheckpoint` where the bytes are not whole or the format is another."""
    checksum, _, body = data.partition(b"\n")
    if checksum.decode(errors="replace") != checksum_of(body):
        raise CorruptCheckpoint("a manifest fails its checksum")
    try:
        manifest = msgspec.json.decode(body, type=Manifest)
    except msgspec.DecodeError as error:
        raise CorruptCheckpoint(f"a manifest cannot be read: {error}") from None
    if manifest.format != FORMAT:
        raise CorruptCheckpoint(f"a manifest has format {manifest.format}; this version reads {FORMAT}")
    return manifest


def capture(state: PartitionState, written: Iterable[str], rows: dict[str, bytes]) -> Capture:
    """Encodes the state as it stands.

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
    return Capture(state.seq, changed, names)


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


def encode_rows(rows: Iterable[tuple[Table, Row]]) -> bytes:
    """Rows not yet acknowledged, oldest first. A row's last value is its version, or 0: that of its capture's tick."""
    return _PACK.encode([(table.value, row) for table, row in rows])


def decode_rows(data: bytes) -> list[tuple[Table, Row]]:
    """What `encode_rows` took."""
    return [(Table(table), tuple(row)) for table, row in _unpack(data)]
