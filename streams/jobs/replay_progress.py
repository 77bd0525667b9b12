"""Where a replay was interrupted: the state of each of its partitions, so that it goes on instead of beginning anew.

One file for each partition, replaced atomically, and only when the rows of all that it takes for granted have been
inserted; what is inserted again is harmless.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from streams.errors import ConfigurationError, CorruptCheckpoint
from streams.jobs.replay_lanes import SavedLane
from streams.state.checkpoint import FORMAT, capture, restore
from streams.state.partition import PartitionState

if TYPE_CHECKING:
    from streams.jobs.replay_what_if import Change

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Saved(NamedTuple):
    """How far a partition has come."""

    journal_offset: int
    events: int
    is_done: bool
    start: tuple[Any, ...] = ()
    """Where it has begun: the fields of `replay_start.Start`."""
    lost: int = 0
    first_ms: int = -1
    """Of a partition that is done: the oldest event time that it has seen."""


class Asked(NamedTuple):
    """What a run was begun with."""

    change: "Change | None" = None
    """None: it is identical."""
    archives: tuple[str, ...] = ()
    """Directories, as absolute paths; none: it reads the topics."""
    with_topics: bool = False
    """It reads on in the topics where the archives end."""


def encoded(state: PartitionState, saved: Saved) -> bytes:
    """A partition's state, to be kept."""
    segments = {} if saved.is_done else capture(state, (), {}).changed
    return msgspec.msgpack.encode([FORMAT, list(saved), segments])


class ReplayFolder:
    """The files of one run below the worker's state directory."""

    def __init__(self, state_dir: Path, run: str) -> None:
        if not NAME.fullmatch(run):
            raise ConfigurationError(f"--run: {run!r} is no name; use letters, digits, dots, dashes, at most 64")
        self.path = state_dir / "runs" / run

    def keep(self, partition: int, data: bytes) -> None:
        """Keeps what `encoded` gave of a partition, once its rows are in."""
        self._write(f"{partition}.state", data)

    def _write(self, name: str, data: bytes) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / name
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

    # What-ifs: all partitions at one step

    def save_lane(self, generation: int, state: PartitionState, saved: SavedLane) -> None:
        """Keeps one partition at a step. It counts from `commit` on."""
        data = msgspec.msgpack.encode([FORMAT, saved, capture(state, (), {}).changed])
        self._write(f"{state.partition}-{generation}.lane", data)

    def load_lane(self, generation: int, state: PartitionState) -> SavedLane:
        """Fills an empty state from a step that was committed.

        Raises:
            ConfigurationError: it cannot be read, or another version of the package wrote it.
        """
        path = self.path / f"{state.partition}-{generation}.lane"
        try:
            form, saved, segments = msgspec.msgpack.decode(path.read_bytes())
            if form != FORMAT:
                raise ConfigurationError(f"{path} is of another version of the package; begin the run anew")
            restore(state, segments)
            return msgspec.convert(saved, SavedLane)
        except (OSError, msgspec.MsgspecError, CorruptCheckpoint, ValueError, TypeError):
            raise ConfigurationError(f"{path} cannot be read; drop the run, and begin it anew") from None

    def commit(self, generation: int, document: bytes) -> None:
        """From here on a run goes on from this step; earlier ones are removed."""
        self._write("step.state", msgspec.msgpack.encode((generation, document)))
        for file in self.path.glob("*.lane"):
            if not file.name.endswith(f"-{generation}.lane"):
                file.unlink(missing_ok=True)

    def committed(self) -> tuple[int, bytes] | None:
        """The last step that was committed."""
        path = self.path / "step.state"
        return msgspec.msgpack.decode(path.read_bytes(), type=tuple[int, bytes]) if path.is_file() else None

    # What is asked for

    def begin(self, created_s: int, asked: Asked) -> None:
        """Empties the folder for a run that begins: what an earlier one of its name has left is not its own."""
        self.remove()
        self._write("begun.json", msgspec.json.encode({"created_s": created_s, **asked._asdict()}))

    def begun(self, created_s: int) -> Asked | None:
        """What the run that began then was asked for; None: the folder holds nothing of it."""
        from streams.jobs.replay_what_if import Change

        path = self.path / "begun.json"
        if not path.is_file():
            return None
        document = msgspec.json.decode(path.read_bytes())
        if document["created_s"] != created_s:
            return None
        change = msgspec.convert(document["change"], Change | None)
        return Asked(change, tuple(document.get("archives", ())), document.get("with_topics", False))

    def remove(self) -> None:
        """Forgets the run."""
        with contextlib.suppress(FileNotFoundError):
            for file in self.path.iterdir():
                file.unlink()
            self.path.rmdir()
