"""Checkpoints in a local directory: one file each, written whole or not at all. For one machine.

Layout: <directory>/<partition>/segments/<key> and <directory>/<partition>/manifests/<sequence>-<key>, keys
percent-encoded. The sequence orders manifests; two writers of one partition may share a number, never a file.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import quote, unquote

from streams.errors import ConfigurationError, CorruptCheckpoint, Unavailable

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

MAX_NAME_BYTES = 200
"""Of an encoded key; file systems allow 255 for a name, and temporary names are longer."""
_SEGMENTS = "segments"
_MANIFESTS = "manifests"
_TEMPORARY = ".tmp"


class DirectoryCheckpointStore:
    """`streams.ports.CheckpointStore` over files. Files are written off the event loop, and synced before they count.

    A file that the disk has damaged is found by the checksums that manifests keep, not here.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written = 0

    async def start(self) -> None:
        """Makes the directory and clears away what a crash left half written.

        Raises:
            ConfigurationError: it cannot be made or written.
        """
        try:
            await asyncio.to_thread(self._prepare)
        except OSError as error:
            raise ConfigurationError(
                f"the checkpoint directory {self._directory} cannot be used ({error}); mend worker.state_dir"
            ) from error

    async def stop(self) -> None:
        """Nothing is held open."""

    async def put(self, partition: int, key: str, data: bytes) -> str:
        """Stores a segment durably; its place is its size in bytes."""
        await self._off_loop(self._write, self._folder(partition, _SEGMENTS), _encoded(key), data)
        return str(len(data))

    async def get(self, partition: int, key: str, place: str) -> bytes:
        """The segment's bytes.

        Raises:
            CorruptCheckpoint: it is not there, or of another size.
        """
        data = await self._off_loop(_read, self._folder(partition, _SEGMENTS) / _encoded(key))
        if data is None:
            raise CorruptCheckpoint(f"segment {key} is missing; an older checkpoint is tried")
        if str(len(data)) != place:
            raise CorruptCheckpoint(f"segment {key} has {len(data)} bytes, not {place}; an older checkpoint is tried")
        return data

    async def put_manifest(self, partition: int, key: str, data: bytes) -> None:
        """Stores a manifest durably and atomically."""
        await self._off_loop(self._write_manifest, partition, key, data)

    async def manifests(self, partition: int) -> Sequence[tuple[str, bytes]]:
        """Every manifest (key, bytes) not deleted, oldest first."""
        return await self._off_loop(self._read_manifests, partition)

    async def delete(self, partition: int, keys: Sequence[str]) -> None:
        """Removes segments or manifests; unknown keys are ignored."""
        await self._off_loop(self._delete, partition, keys)

    async def segments(self, partition: int) -> Sequence[str]:
        """Keys of all segments that are not deleted: to find strays that a crash left unnamed."""
        return await self._off_loop(self._segment_keys, partition)

    async def _off_loop(
        self, work: Callable[Arguments, Result], *args: Arguments.args, **kw: Arguments.kwargs
    ) -> Result:
        """Runs blocking work in a thread; a full or broken disk is retriable."""
        try:
            return await asyncio.to_thread(work, *args, **kw)
        except OSError as error:
            raise Unavailable(
                f"checkpoint directory {self._directory}: {error}; free space or mend the disk"
            ) from error

    def _folder(self, partition: int, kind: str) -> Path:
        return self._directory / str(partition) / kind

    def _prepare(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        for leftover in self._directory.glob(f"*/*/*{_TEMPORARY}"):
            leftover.unlink(missing_ok=True)
        if not os.access(self._directory, os.W_OK | os.X_OK):
            raise PermissionError("not writable")

    def _write(self, folder: Path, name: str, data: bytes) -> None:
        """Temporary file, sync, rename, sync of the folder: after that, and only then, it is there."""
        folder.mkdir(parents=True, exist_ok=True)
        self._written += 1
        temporary = folder / f"{os.getpid()}-{self._written}-{id(data)}{_TEMPORARY}"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / name)
        _sync_folder(folder)

    def _write_manifest(self, partition: int, key: str, data: bytes) -> None:
        last = max((sequence for sequence, _, _ in self._manifest_files(partition)), default=0)
        self._write(self._folder(partition, _MANIFESTS), f"{last + 1:016d}-{_encoded(key)}", data)

    def _read_manifests(self, partition: int) -> list[tuple[str, bytes]]:
        found = [(key, _read(path)) for _, key, path in sorted(self._manifest_files(partition))]
        return [(key, data) for key, data in found if data is not None]  # None: deleted meanwhile

    def _manifest_files(self, partition: int) -> Iterator[tuple[int, str, Path]]:
        folder = self._folder(partition, _MANIFESTS)
        for path in folder.iterdir() if folder.is_dir() else ():
            sequence, _, name = path.name.partition("-")
            if path.suffix != _TEMPORARY:
                yield int(sequence), unquote(name), path

    def _segment_keys(self, partition: int) -> list[str]:
        folder = self._folder(partition, _SEGMENTS)
        paths = [path for path in folder.iterdir() if path.suffix != _TEMPORARY] if folder.is_dir() else []
        return [unquote(path.name) for path in sorted(paths)]

    def _delete(self, partition: int, keys: Sequence[str]) -> None:
        wanted = set(keys)
        for key in wanted:
            (self._folder(partition, _SEGMENTS) / _encoded(key)).unlink(missing_ok=True)
        for _, key, path in list(self._manifest_files(partition)):
            if key in wanted:
                path.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _encoded(key: str) -> str:
    """A file name for any key: percent-encoded, dots too, so that no name is special."""
    name = quote(key, safe="").replace(".", "%2E")
    if not name or len(name) > MAX_NAME_BYTES:
        raise ValueError(f"a key must have 1 to {MAX_NAME_BYTES} bytes when percent-encoded: {key!r}")
    return name


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
