"""An archive's files as NDJSON, compressed with gzip: read by anything, without pyarrow; larger and slower.

The first line is the chunk's `Head`, under "campaign_streams.archive"; each further one is a record:

    {"offset": 7, "timestamp_ms": 1790000000000, "key": "c1", "value": "{\"event_id\": …}"}

`key` and `value` are the record's bytes as text, or null; bytes that are no UTF-8 stand as {"base64": "…"}. So what is
read back is what was archived, to the byte.
"""

import base64
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from streams.adapters.archive_files import HEAD_KEY, Columns, Head, checked_version
from streams.errors import ConfigurationError

SUFFIX: Final = ".ndjson.gz"
GROUP_RECORDS: Final = 16_384
"""Records that a reader holds at once of each file."""
GROUP_BYTES: Final = 8 * 1024**2
"""Of keys and values; beyond it a group is shorter."""
_HEAD_BYTES: Final = 16_384
"""Room for the head, which is written last: the first member of the gzip file, not compressed."""
_LEVEL: Final = 6
_KEY: Final = HEAD_KEY.decode()
Plain = tuple[int, int, bytes | None, bytes | None]
"""Offset, timestamp ms, key, value."""
_DAMAGED: Final = (OSError, EOFError, zlib.error, orjson.JSONDecodeError, KeyError, TypeError, ValueError)


class NdjsonDayFile:
    """One file, written aside: its head is filled in when it is closed, so what is not whole has none."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._file.write(_head_member(b"{}"))
        self._body = gzip.GzipFile(filename="", mode="wb", fileobj=self._file, compresslevel=_LEVEL, mtime=0)
        self._lines = io.BufferedWriter(self._body, 1024 * 1024)
        self.held_bytes = 0
        """Nothing waits: every record goes to the compressor."""
        self.value_bytes = 0
        self.records = 0

    def add(self, columns: Columns) -> None:
        """More records; their offsets lie behind those added before."""
        for offset, timestamp_ms, key, value in zip(*columns, strict=True):
            line = {"offset": offset, "timestamp_ms": timestamp_ms, "key": _text(key), "value": _text(value)}
            self._lines.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            self.value_bytes += len(key or b"") + len(value or b"")
        self.records += len(columns.offsets)

    def write_group(self) -> None:
        """Nothing waits."""

    def close(self, head: Head) -> None:
        """The file is whole and on disk afterwards."""
        self._lines.close()
        self._body.close()
        self._file.seek(0)
        self._file.write(_head_member(orjson.dumps({_KEY: msgspec.to_builtins(head)})))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Closes what is not whole."""
        self._file.close()
        self._lines = io.BufferedWriter(io.BytesIO())  # type: ignore[arg-type]


def _head_member(document: bytes) -> bytes:
    if len(document) >= _HEAD_BYTES:
        raise AssertionError(f"an archive's head of {len(document)} bytes")
    return gzip.compress(document.ljust(_HEAD_BYTES - 1) + b"\n", compresslevel=0, mtime=0)


def _text(raw: bytes | None) -> object:
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def _bytes(text: Any) -> bytes | None:
    if text is None:
        return None
    return text.encode() if isinstance(text, str) else base64.b64decode(text["base64"], validate=True)


def read_head(path: Path) -> Head:
    """What a file says of itself.

    Raises:
        ConfigurationError: it is unreadable, none of ours, or of another version.
    """
    try:
        with gzip.open(path, "rb") as file:
            first = file.readline(_HEAD_BYTES + 1)
        raw = orjson.dumps(orjson.loads(first).get(_KEY))
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist; give a directory that `archive --to` wrote") from None
    except (*_DAMAGED, AttributeError) as error:
        raise _not_whole(path, error) from None
    if raw == b"null":
        raise ConfigurationError(f"{path} was not written by `campaign-streams archive`; move it elsewhere")
    return checked_version(path, raw)


class NdjsonFile:
    """One file of a chunk, read group by group; only records with offsets of [from_offset, to_offset).

    There is no index: what lies before `from_offset` is decompressed, and left out.
    """

    def __init__(self, path: Path, from_offset: int, to_offset: int) -> None:
        self.head = read_head(path)
        self._path = path
        self._from_offset = from_offset
        self._to_offset = to_offset
        self._groups = self._read()
        self._ahead: list[Plain] | None = None
        self._is_read = False

    @property
    def has_more(self) -> bool:
        """Whether there is another group."""
        if self._ahead is None and not self._is_read:
            self._ahead = next(self._groups, None)
            self._is_read = self._ahead is None
        return self._ahead is not None

    def take(self) -> list[Plain]:
        """The records of the next group."""
        assert self.has_more
        group, self._ahead = self._ahead or [], None
        return group

    def first_at(self, time_ms: int) -> int | None:
        """The first offset at or above `from_offset` of a record of `time_ms` or later."""
        for group in self._read():
            for offset, timestamp_ms, *_ in group:
                if timestamp_ms >= time_ms:
                    return offset
        return None

    def _read(self) -> Iterator[list[Plain]]:
        try:
            with gzip.open(self._path, "rb") as file:
                file.readline(_HEAD_BYTES + 1)
                group, size = [], 0
                for record in self._wanted(file):
                    group.append(record)
                    size += len(record[2] or b"") + len(record[3] or b"")
                    if len(group) >= GROUP_RECORDS or size >= GROUP_BYTES:
                        yield group
                        group, size = [], 0
                if group:
                    yield group
        except _DAMAGED as error:
            raise _not_whole(self._path, error) from None

    def _wanted(self, file: gzip.GzipFile) -> Iterator[Plain]:
        count = 0
        for line in file:
            record = orjson.loads(line)
            count += 1
            offset = record["offset"]
            if offset >= self._to_offset:
                return
            if offset >= self._from_offset:
                yield offset, record["timestamp_ms"], _bytes(record["key"]), _bytes(record["value"])
        if count != self.head.records:
            raise ValueError(f"{count} of {self.head.records} records")


def _not_whole(path: Path, error: BaseException) -> ConfigurationError:
    if isinstance(error, PermissionError | IsADirectoryError):
        return ConfigurationError(f"{path}: {error.strerror}; give a file that can be read")
    what = "its end is missing" if isinstance(error, EOFError) else str(error)
    return ConfigurationError(f"{path} is not a whole file of NDJSON ({what}); restore it from a copy")
