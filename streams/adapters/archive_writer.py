"""Writes an archive: whole chunks or nothing, whenever the process ends.

A chunk's files are written aside, closed and forced to disk, and then renamed into place one by one. A run that finds
files left aside by one that was killed puts them in place if the chunk was whole (some of it may be in place already),
and deletes them otherwise: then nothing of it is in place, and its records are read again.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from streams.adapters.archive_files import (
    DAY_MS,
    HEAD_KEY,
    NO_DAY,
    SUFFIX_OF,
    WRITING,
    Columns,
    Format,
    Head,
    Identifiers,
    arrow,
    chunks_in,
    file_path,
    head_of,
    schema,
)
from streams.adapters.archive_ndjson import NdjsonDayFile
from streams.errors import ConfigurationError

GROUP_RECORDS: Final = 16_384
"""Records of a row group, about: what a reader holds at once of each file."""
GROUP_BYTES: Final = 8 * 1024**2
HELD_BYTES: Final = 32 * 1024**2
"""Of keys and values that wait for their row groups, over all days."""
MAX_DAYS: Final = 16
"""Files that are open at once."""
COMPRESSION: Final = "zstd"
_LOCK: Final = ".lock"


class Origin(NamedTuple):
    """Whose records they are, and how identifiers were treated."""

    topic: str
    partition: int
    identifiers: Identifiers
    key_id: str
    log_epoch: int


class ChunkWriter:
    """Writes one chunk from `from_offset` on. Blocks: call it in a thread, one call at a time.

    Every method raises `ConfigurationError` where the disk refuses.
    """

    def __init__(
        self, directory: Path, origin: Origin, from_offset: int, lost_to_offset: int, form: Format = "parquet"
    ) -> None:
        self._directory = directory
        self._form = form
        self._origin = origin
        self._from_offset = from_offset
        self._lost_to_offset = lost_to_offset
        self._days: dict[str, _DayFile | NdjsonDayFile] = {}
        self.records = 0
        self.value_bytes = 0
        """Of keys and values, as they are in memory."""

    def room_for(self, timestamps_ms: Sequence[int]) -> int:
        """How many of the first of these records can be added before there would be more than `MAX_DAYS` days."""
        days = _days(timestamps_ms)
        open_days = np.array(list(self._days), dtype="datetime64[D]").astype(np.int64)
        found, begins = np.unique(days, return_index=True)
        begins = np.sort(begins[~np.isin(found, open_days)])
        allowed = MAX_DAYS - len(open_days)
        return int(begins[allowed]) if len(begins) > allowed else len(days)

    def add(self, columns: Columns) -> None:
        """More records; their offsets lie behind those added before."""
        if not columns.offsets:
            return
        with writing(self._directory):
            for day, part in _by_day(columns):
                if day not in self._days:
                    self._days[day] = self._opened(day)
                self._days[day].add(part)
            self.records += len(columns.offsets)
            if sum(file.held_bytes for file in self._days.values()) > HELD_BYTES:
                for file in self._days.values():
                    file.write_group()
        self.value_bytes = sum(file.value_bytes for file in self._days.values())

    def finish(self, to_offset: int) -> int:
        """Puts the chunk [from_offset, to_offset) in place; returns the bytes of its files."""
        with writing(self._directory):
            if not self._days:
                self._days[NO_DAY] = self._opened(NO_DAY)
            for file in self._days.values():
                file.close(self._head(to_offset, file.records))
            _sync_directory(self._folder())
            return _put_in_place(self._directory, self._folder())

    def abandon(self) -> None:
        """Forgets what was written; harmless after `finish`."""
        for file in self._days.values():
            file.abandon()
        shutil.rmtree(self._folder(), ignore_errors=True)

    def _folder(self) -> Path:
        return self._directory / WRITING / f"{self._origin.topic}-{self._origin.partition}"

    def _opened(self, day: str) -> "_DayFile | NdjsonDayFile":
        path = self._folder() / f"{day}{SUFFIX_OF[self._form]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return _DayFile(path) if self._form == "parquet" else NdjsonDayFile(path)

    def _head(self, to_offset: int, records: int) -> Head:
        return Head(
            topic=self._origin.topic,
            partition=self._origin.partition,
            from_offset=self._from_offset,
            to_offset=to_offset,
            lost_to_offset=self._lost_to_offset,
            days=tuple(sorted(self._days)),
            records=records,
            identifiers=self._origin.identifiers,
            key_id=self._origin.key_id,
            log_epoch=self._origin.log_epoch,
        )


class _DayFile:
    """One file, written aside."""

    def __init__(self, path: Path) -> None:
        _, parquet = arrow()
        self._path = path
        self._schema = schema()
        self._writer: Any = parquet.ParquetWriter(
            path,
            self._schema,
            compression=COMPRESSION,
            use_dictionary=["key"],
            column_encoding={"offset": "DELTA_BINARY_PACKED", "timestamp_ms": "DELTA_BINARY_PACKED"},
            write_statistics=["offset", "timestamp_ms"],
        )
        self._waiting = Columns([], [], [], [])
        self.held_bytes = 0
        self.value_bytes = 0
        self.records = 0

    def add(self, columns: Columns) -> None:
        self._waiting.offsets.extend(columns.offsets)
        self._waiting.timestamps_ms.extend(columns.timestamps_ms)
        self._waiting.keys.extend(columns.keys)
        self._waiting.values.extend(columns.values)
        size = sum(map(len, filter(None, columns.keys))) + sum(map(len, filter(None, columns.values)))
        self.held_bytes += size
        self.value_bytes += size
        self.records += len(columns.offsets)
        if len(self._waiting.offsets) >= GROUP_RECORDS or self.held_bytes >= GROUP_BYTES:
            self.write_group()

    def write_group(self) -> None:
        """A row group of what waits."""
        pa, _ = arrow()
        if self._waiting.offsets:
            arrays = [pa.array(c, type=f.type) for c, f in zip(self._waiting, self._schema, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._waiting = Columns([], [], [], [])
        self.held_bytes = 0

    def close(self, head: Head) -> None:
        """The file is whole and on disk afterwards."""
        self.write_group()
        self._writer.add_key_value_metadata({HEAD_KEY: msgspec.json.encode(head)})
        self._writer.close()
        with self._path.open("rb") as file:
            os.fsync(file.fileno())

    def abandon(self) -> None:
        if self._writer.is_open:
            self._writer.close()


def day_of(day: int) -> str:
    """Days since 1970 as a date."""
    return str(np.datetime64(day, "D"))


def recover(directory: Path) -> None:
    """Completes or forgets what a run that was killed has left aside.

    Raises:
        ConfigurationError: the disk refuses.
    """
    aside = directory / WRITING
    with writing(directory):
        for folder in sorted(aside.iterdir()) if aside.is_dir() else []:
            if _is_whole(directory, folder):
                _put_in_place(directory, folder)
            else:
                shutil.rmtree(folder)


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Makes the directory where needed and keeps other archivers out of it.

    Raises:
        ConfigurationError: it cannot be written, or another archiver is at work in it.
    """
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / _LOCK).open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another archive runs into {directory}; wait for its end") from None
        yield


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Maps what the disk may refuse onto an error with the remedy."""
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise ConfigurationError(f"--to: {directory} is no directory; give another one") from None
    except OSError as error:
        raise ConfigurationError(
            f"{directory} cannot be written ({error.strerror or error}); mend it and run again: the archive goes on "
            "where it ends"
        ) from None


def _days(timestamps_ms: Sequence[int]) -> npt.NDArray[np.int64]:
    """Days since 1970. What is before (Kafka's -1: no timestamp) counts as 1970-01-01."""
    return np.maximum(np.asarray(timestamps_ms, dtype=np.int64) // DAY_MS, 0)


def _by_day(columns: Columns) -> Iterator[tuple[str, Columns]]:
    days = _days(columns.timestamps_ms)
    wanted = np.unique(days).tolist()
    if len(wanted) == 1:
        yield day_of(wanted[0]), columns
        return
    for day in wanted:
        places = np.flatnonzero(days == day).tolist()
        yield day_of(day), Columns(*([column[i] for i in places] for column in columns))  # type: ignore[arg-type]


def _is_whole(directory: Path, folder: Path) -> bool:
    """Whether every file of the chunk is whole, aside or in place already."""
    try:
        heads = [head_of(path) for path in sorted(folder.iterdir())]
    except ConfigurationError:
        return False
    if not heads:
        return False
    aside = {_day_and_suffix(path) for path in folder.iterdir()}
    head, (_, suffix) = heads[0], next(iter(aside))
    return all((day, suffix) in aside or _final(directory, head, day, suffix).exists() for day in head.days)


def _day_and_suffix(path: Path) -> tuple[str, str]:
    day, _, rest = path.name.partition(".")
    return day, f".{rest}"


def _final(directory: Path, head: Head, day: str, suffix: str) -> Path:
    return file_path(directory, head.topic, day, head.partition, head.from_offset, head.to_offset, suffix)


def _put_in_place(directory: Path, folder: Path) -> int:
    size = 0
    for path in sorted(folder.iterdir()):
        final = _final(directory, head_of(path), *_day_and_suffix(path))
        final.parent.mkdir(parents=True, exist_ok=True)
        size += path.stat().st_size
        path.rename(final)
        _sync_directory(final.parent)
    folder.rmdir()
    return size


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def last_head(directory: Path, topic: str, partition: int) -> Head | None:
    """The head of the chunk with which the archive of a topic-partition ends; None: nothing is archived yet."""
    chunks = chunks_in(directory, topic).get(partition)
    return head_of(max(chunks, key=lambda chunk: chunk.to_offset).files[0]) if chunks else None
