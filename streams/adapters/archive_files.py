"""How an archive lies on disk: names, columns, what each file says of itself, and what a directory holds.

    DIR/topic=ads.clicks/day=2026-11-27/part-00003-00000000000000120000-00000000000000179999.parquet
                         day, UTC            partition, first and last offset                .ndjson.gz

A **chunk** is a range of offsets of one topic-partition. Its records lie in one file for each day of their own
timestamps, all with the chunk's range in their names; offsets of the range that no record of them has hold none
(markers, compaction). Chunks of a partition adjoin. Columns:

    offset        int64    rising
    timestamp_ms  int64    the record's own timestamp, epoch ms UTC
    key           binary   null: none
    value         binary   null: a tombstone

Records' headers are left out: nothing of ours reads them. Each file carries a `Head` under `HEAD_KEY`: a Parquet file
in its footer's metadata, one of NDJSON (`archive_ndjson`) in its first line.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from streams.errors import ConfigurationError

VERSION: Final = 1
"""Of the layout: a reader refuses any other."""
HEAD_KEY: Final = b"campaign_streams.archive"
COLUMNS: Final = ("offset", "timestamp_ms", "key", "value")
WRITING: Final = ".writing"
"""Directory of what is not whole yet; tools that read data sets leave out names with a dot."""
DAY_MS: Final = 86_400_000
NO_DAY: Final = "1970-01-01"
"""Where a chunk without any record lies."""

_NAME: Final = re.compile(r"part-(\d{5,})-(\d{20})-(\d{20})\.(?:parquet|ndjson\.gz)")
_TOPIC: Final = "topic="
_DAY: Final = "day="

Identifiers = Literal["raw", "pseudonyms"]
Format = Literal["parquet", "ndjson"]
SUFFIX_OF: Final[dict[Format, str]] = {"parquet": ".parquet", "ndjson": ".ndjson.gz"}


class Columns(NamedTuple):
    """Records by column, in the order of their offsets."""

    offsets: list[int]
    timestamps_ms: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of its chunk."""

    version: int = VERSION
    topic: str
    partition: int
    from_offset: int
    to_offset: int
    """The chunk is [from_offset, to_offset)."""
    lost_to_offset: int
    """Below it retention had removed everything before it could be archived; `from_offset`: nothing was lost."""
    days: tuple[str, ...]
    """Days of the chunk's files, of which this is one."""
    records: int
    """In this file."""
    identifiers: Identifiers
    key_id: str = ""
    """Name of the key of the pseudonyms."""
    log_epoch: int
    """Topics that are created anew begin again at offset 0, in the next epoch."""


class Chunk(NamedTuple):
    """A range of a topic-partition and its files, by their names."""

    from_offset: int
    to_offset: int
    files: tuple[Path, ...]


def arrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet.

    Raises:
        ConfigurationError: they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigurationError("archives need pyarrow; pip install 'campaign-streams[files]'") from None
    return pyarrow, pyarrow.parquet


def schema() -> Any:
    """The columns as pyarrow wants them."""
    pa, _ = arrow()
    fields = [("offset", pa.int64(), False), ("timestamp_ms", pa.int64(), False)]
    fields += [("key", pa.binary(), True), ("value", pa.binary(), True)]
    return pa.schema([pa.field(name, kind, nullable) for name, kind, nullable in fields])


def file_path(
    directory: Path, topic: str, day: str, partition: int, from_offset: int, to_offset: int, suffix: str
) -> Path:
    """Where a chunk's file of one day lies."""
    name = f"part-{partition:05d}-{from_offset:020d}-{to_offset - 1:020d}{suffix}"
    return directory / f"{_TOPIC}{topic}" / f"{_DAY}{day}" / name


def topics_in(directory: Path) -> list[str]:
    """Topics that a directory holds anything of."""
    with reading(directory):
        found = [path for path in directory.iterdir() if path.name.startswith(_TOPIC) and path.is_dir()]
    return sorted(path.name.removeprefix(_TOPIC) for path in found)


def chunks_in(directory: Path, topic: str) -> dict[int, list[Chunk]]:
    """Chunks by partition, by their first offset; the further reaching first."""
    files: dict[tuple[int, int, int], list[Path]] = {}
    folder = directory / f"{_TOPIC}{topic}"
    with reading(folder):
        days = sorted(path for path in folder.iterdir() if path.name.startswith(_DAY)) if folder.is_dir() else []
        for day in days:
            for path in day.iterdir():
                if name := _NAME.fullmatch(path.name):
                    partition, first, last = map(int, name.groups())
                    files.setdefault((partition, first, -last - 1), []).append(path)
    chunks: dict[int, list[Chunk]] = {}
    for (partition, first, negative_end), paths in sorted(files.items()):
        chunks.setdefault(partition, []).append(Chunk(first, -negative_end, tuple(paths)))
    return chunks


def is_whole(chunk: Chunk) -> bool:
    """Whether the files of all its days are there: it may just be put in place, day by day."""
    return set(head_of(chunk.files[0]).days) == {path.parent.name.removeprefix(_DAY) for path in chunk.files}


def head_of(path: Path) -> Head:
    """What a file says of itself.

    Raises:
        ConfigurationError: it is unreadable, none of ours, or of another version.
    """
    if path.name.endswith(SUFFIX_OF["ndjson"]):
        from streams.adapters.archive_ndjson import read_head

        return read_head(path)
    _, parquet = arrow()
    with reading(path):
        footer = parquet.read_metadata(path)
    return checked_head(path, footer.metadata, footer.schema.names)


def checked_head(path: Path, metadata: dict[bytes, bytes] | None, columns: list[str]) -> Head:
    """Of a footer's metadata and columns.

    Raises:
        ConfigurationError: they are none of ours, or of another version.
    """
    raw = (metadata or {}).get(HEAD_KEY)
    if raw is None:
        raise ConfigurationError(f"{path} was not written by `campaign-streams archive`; move it elsewhere")
    head = checked_version(path, raw)
    if tuple(columns) != COLUMNS:
        raise ConfigurationError(f"{path} has columns {', '.join(columns)}; restore the file from a copy")
    return head


def checked_version(path: Path, raw: bytes) -> Head:
    """A head as it stands in a file (JSON).

    Raises:
        ConfigurationError: it is damaged, or of another version.
    """
    try:
        version = msgspec.json.decode(raw, type=dict[str, Any]).get("version")
        if version != VERSION:
            raise ConfigurationError(
                f"{path} has version {version} of the archive's layout, and this program reads version {VERSION}; "
                "use the campaign-streams that wrote it, or archive into another directory"
            )
        return msgspec.json.decode(raw, type=Head)
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{path}: its head is damaged ({error}); restore the file from a copy") from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Maps what can go wrong with a file or directory onto an error that names it and the remedy."""
    import_errors: tuple[type[Exception], ...] = ()
    try:
        pa, _ = arrow()
        import_errors = (pa.ArrowException,)
    except ConfigurationError:
        pass  # listing a directory needs no pyarrow
    try:
        yield
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist; give a directory that `archive --to` wrote") from None
    except NotADirectoryError:
        raise ConfigurationError(f"{path} is no directory; give one that `archive --to` wrote") from None
    except import_errors as error:
        what = (str(error).splitlines() or [""])[0]
        raise ConfigurationError(f"{path} is not a whole Parquet file ({what}); restore it from a copy") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}; give a file that can be read") from None
