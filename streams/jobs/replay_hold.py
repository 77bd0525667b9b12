"""Who has a run in hand: one command at a time, and whoever looks on tells a living one from one that was killed.

On one machine a lock of the system says so: it ends with its process, whatever ends that. Machines that share one
ClickHouse have no such lock. There a command says every BEAT_S that it lives, and looks first whether another has taken
the run up; one that has been silent for STALE_S is taken for dead. So the clocks of such machines must agree to well
within STALE_S. Two that begin the same name in the same moments both get through until their next beat, the first of
which comes before any row: the one that told it first stops.
"""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from streams.adapters.clickhouse_runs import ClickHouseRuns, RunInfo
from streams.errors import ConfigurationError
from streams.jobs.replay_progress import ReplayFolder

RUNNING: Final = "running"
INTERRUPTED: Final = "interrupted"
"""Ended by Ctrl-C or SIGTERM."""
ABANDONED: Final = "abandoned"
"""It still says `running`, and nobody is at work on it: killed, or cut off. Never stored: whoever looks finds out."""
BEAT_S: Final = 10.0
STALE_S: Final = 60.0
PATIENCE_S: Final = 0.5
"""Whoever looks whether a lock is held holds it for a moment: so long another try is made."""
_RETRY_S: Final = 0.02


class RunTaken(ConfigurationError):
    """Another command has taken the run up meanwhile: it is no longer this one's to tell anything of."""


def holder_of(state_dir: Path) -> str:
    """How this place is named to others: machine and directory. A lock tells who is at work in it."""
    return f"{socket.gethostname()}:{state_dir.resolve()}"


@contextlib.contextmanager
def locked(state_dir: Path, run: str) -> Iterator[None]:
    """Keeps other commands of this machine away from a run. Ends with the process, SIGKILL included; leaves nothing.

    Raises:
        ConfigurationError: another one is at work on it, the name is none, or the directory cannot be written.
    """
    path = _lock_file(state_dir, run)
    handle = _acquired(path, run)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def is_locked(state_dir: Path, run: str) -> bool:
    """Whether a command of this machine is at work on a run."""
    try:
        handle = os.open(_lock_file(state_dir, run), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _lock_file(state_dir: Path, run: str) -> Path:
    folder = ReplayFolder(state_dir, run).path
    return folder.with_name(f".{run}.lock")  # no name of a run begins with a dot


def _acquired(path: Path, run: str) -> int:
    """The locked file's descriptor. A lock on a file that its last holder has removed meanwhile is none."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        handle = _opened(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, handle):
                os.ftruncate(handle, 0)
                os.write(handle, str(os.getpid()).encode())
                return handle
        except BlockingIOError:
            if time.monotonic() > deadline:
                other = os.pread(handle, 20, 0).decode(errors="replace")
                os.close(handle)
                raise ConfigurationError(
                    f"run {run} is in the hands of another command (process {other}); wait for its end, or stop it "
                    f"(Ctrl-C, or kill {other}) and go on with it by campaign-streams replay --resume {run}"
                ) from None
        os.close(handle)
        time.sleep(_RETRY_S)


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error.strerror or error}); mend worker.state_dir"
        ) from None


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


# What is told of it


def state_of(info: RunInfo, state_dir: Path, now_ms: int) -> str:
    """The state as it is: one that says `running` may be `abandoned`. Of another place the last STALE_S are unsure."""
    if info.state != RUNNING:
        return info.state
    if info.holder == holder_of(state_dir):
        return RUNNING if is_locked(state_dir, info.run) else ABANDONED
    return RUNNING if now_ms - info.changed_ms < STALE_S * 1000 else ABANDONED


def check_free(info: RunInfo, state_dir: Path, now_ms: int) -> None:
    """Before a run is taken up or dropped, under its lock.

    Raises:
        ConfigurationError: a command of another place is at work on it, as far as can be seen from here.
    """
    is_elsewhere = info.state == RUNNING and info.holder != holder_of(state_dir)
    silent_s = (now_ms - info.changed_ms) / 1000
    if is_elsewhere and silent_s < STALE_S:
        raise ConfigurationError(
            f"run {info.run} is in the hands of a command at {info.holder or 'another place'}, which was heard of "
            f"{max(0.0, silent_s):.0f} s ago; wait for its end, or stop it there; if it was killed, try again in "
            f"{STALE_S:.0f} s"
        )


class Hold:
    """Tells of a run that is at work, and that it lives. Synchronous, as `runs` is, and to be used where that is."""

    def __init__(self, runs: ClickHouseRuns, info: RunInfo) -> None:
        """`info`: the run as `running`."""
        self._runs = runs
        self._info = info
        self._told = 0.0
        """0: it has not looked yet whether the run is still its own."""

    def begin(self, known: RunInfo | None) -> None:
        """Tells that the run is at work.

        Args:
            known: what was known of it when it was looked up; None: nothing.

        Raises:
            RunTaken: another command has told something of it since.
        """
        now = self._now()
        if (known and known.changed_ms) != (now and now.changed_ms):
            raise self._taken(now)
        self._runs.tell(self._info)

    def beat(self) -> None:
        """Tells every BEAT_S that it lives. Call it before the first row, and then often.

        Raises:
            RunTaken: another command has taken the run up.
        """
        if self._told and time.monotonic() - self._told < BEAT_S:
            return
        now = self._now()
        if now is None or now.holder != self._info.holder or now.state != RUNNING:
            raise self._taken(now)
        self._runs.tell(self._info._replace(changed_ms=time.time_ns() // 1_000_000))
        self._told = time.monotonic()

    def _now(self) -> RunInfo | None:
        return next((info for info in self._runs.runs() if info.run == self._info.run), None)

    def _taken(self, now: RunInfo | None) -> RunTaken:
        run = self._info.run
        if now is None:
            return RunTaken(f"run {run} was dropped meanwhile, and this command stops; begin another run (--run)")
        return RunTaken(
            f"run {run} was taken up by another command at {now.holder or 'another place'} meanwhile, and this one "
            "stops; wait for its end, or begin another run (--run)"
        )
