"""Where a replay was interrupted: the state of each of its partitions, so that it goes on instead of beginning anew.

One file for each partition, replaced atomically. Its rows were inserted before; what is inserted again is harmless.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from streams.errors import ConfigurationError, CorruptCheckpoint
from streams.state.checkpoint import FORMAT, capture, restore
from streams.state.partition import PartitionState

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Saved(NamedTuple):
    """How far a partition has come."""

    journal_offset: int
    events: int
    is_done: bool


class ReplayFolder:
    """The files of one run below the worker's state directory."""

    def __init__(self, state_dir: Path, run: str) -> None:
        if not NAME.fullmatch(run):
            raise ConfigurationError(f"--run: {run!r} is no name; use letters, digits, dots, dashes, at most 64")
        self.path = state_dir / "runs" / run

    def save(self, state: PartitionState, saved: Saved) -> None:
        """Keeps a partition's state."""
        self.path.mkdir(parents=True, exist_ok=True)
        segments = {} if saved.is_done else capture(state, (), {}).changed
        data = msgspec.msgpack.encode([FORMAT, list(saved), segments])
        target = self.path / f"{state.partition}.state"
        temporary = target.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)

    def load(self, state: PartitionState) -> Saved | None:
        """Fills an empty state from where its partition was left; None where there is nothing.

        Raises:
            ConfigurationError: another version of the package wrote it.
        """
        path = self.path / f"{state.partition}.state"
        if not path.is_file():
            return None
        try:
            form, saved, segments = msgspec.msgpack.decode(path.read_bytes())
            if form != FORMAT:
                raise ConfigurationError(f"{path} is of another version of the package; begin the run anew")
            found = Saved(*saved)
            if not found.is_done:
                restore(state, segments)
        except (msgspec.MsgspecError, CorruptCheckpoint, ValueError, TypeError):
            raise ConfigurationError(f"{path} cannot be read; remove it, and its partition begins anew") from None
        return found

    def describe(self, document: dict[str, Any]) -> None:
        """Keeps what the run was asked for."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "run.json").write_bytes(msgspec.json.format(msgspec.json.encode(document)))

    def description(self) -> dict[str, Any] | None:
        """What the run was asked for, if it was begun."""
        path = self.path / "run.json"
        return msgspec.json.decode(path.read_bytes()) if path.is_file() else None

    def remove(self) -> None:
        """Forgets the run."""
        with contextlib.suppress(FileNotFoundError):
            for file in self.path.iterdir():
                file.unlink()
            self.path.rmdir()
