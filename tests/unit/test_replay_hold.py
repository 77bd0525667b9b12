"""One command at a time works on a run, and of a run that was killed nobody says that it is running."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streams.adapters.clickhouse_runs import RunInfo
from streams.errors import ConfigurationError
from streams.jobs import replay_hold
from streams.jobs.replay_hold import BEAT_S, STALE_S, Hold, RunTaken, check_free, holder_of, is_locked, locked, state_of
from tests.unit.test_replay_command import Runs

NOW_MS = 1_700_000_000_000
HOLDING = """
import sys
from pathlib import Path
from streams.jobs.replay_hold import locked

with locked(Path(sys.argv[1]), "r"):
    print("held", flush=True)
    sys.stdin.read()
"""


def running(holder: str, changed_ms: int = NOW_MS) -> RunInfo:
    return RunInfo("r", "identical", "running", 0, 60, holder=holder, changed_ms=changed_ms)


def test_a_second_command_is_refused_by_name_until_the_first_is_killed(tmp_path: Path) -> None:
    mine = running(holder_of(tmp_path))
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        words = rf"process {child.pid}\); wait for its end, or stop it \(Ctrl-C, or kill {child.pid}\).*--resume r"
        with pytest.raises(ConfigurationError, match=words), locked(tmp_path, "r"):
            pytest.fail("two commands hold one run")
        with locked(tmp_path, "other"):
            assert state_of(mine, tmp_path, NOW_MS) == "running"
        assert state_of(mine, tmp_path, NOW_MS + 10**9) == "running"  # the lock says so, however long it is silent
    finally:
        child.kill()
        child.wait()
    assert state_of(mine, tmp_path, NOW_MS) == "abandoned"
    with locked(tmp_path, "r"):
        assert is_locked(tmp_path, "r")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_lock_on_a_file_that_its_holder_has_removed_is_none(tmp_path: Path) -> None:
    with locked(tmp_path, "r"):
        path = tmp_path / "runs" / ".r.lock"
        late = os.open(path, os.O_RDWR)  # whoever has opened it just before it goes
    with locked(tmp_path, "r"):
        assert not replay_hold._is_at(path, late)
        assert is_locked(tmp_path, "r")
    os.close(late)


def test_whoever_only_looks_keeps_nobody_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    with locked(tmp_path, "other"):
        path = tmp_path / "runs" / ".r.lock"
        path.touch()
        looking = os.open(path, os.O_RDONLY)
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr(replay_hold.time, "sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
        with locked(tmp_path, "r"):
            assert is_locked(tmp_path, "r")
        os.close(looking)


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(ConfigurationError, match=r"mend worker\.state_dir"), locked(tmp_path, "r"):
        pytest.fail("nothing was locked")


def test_of_another_machine_silence_tells(tmp_path: Path) -> None:
    theirs, stale_ms = running("there:/state"), round(STALE_S * 1000)
    assert BEAT_S * 3 < STALE_S
    assert state_of(theirs, tmp_path, NOW_MS + stale_ms - 1) == "running"
    with pytest.raises(
        ConfigurationError, match=r"there:/state, which was heard of 9 s ago; wait .* try again in 60 s"
    ):
        check_free(theirs, tmp_path, NOW_MS + 9_000)
    assert state_of(theirs, tmp_path, NOW_MS + stale_ms) == "abandoned"
    check_free(theirs, tmp_path, NOW_MS + stale_ms)
    for ended in ("done", "failed", "interrupted"):
        assert state_of(theirs._replace(state=ended), tmp_path, NOW_MS) == ended
        check_free(theirs._replace(state=ended), tmp_path, NOW_MS)


def test_of_two_that_begin_the_same_run_at_once_on_two_machines_only_the_later_goes_on() -> None:
    runs: Any = Runs()
    one, two = (Hold(runs, running(holder, at)) for holder, at in (("one", NOW_MS), ("two", NOW_MS + 1)))
    one.begin(None)
    with pytest.raises(RunTaken, match="at one meanwhile"):
        two.begin(None)
    runs.tell(running("two", NOW_MS + 1))  # both had looked before either told
    with pytest.raises(RunTaken, match="at two meanwhile, and this one stops"):
        one.beat()
    two.beat()


def test_a_command_stops_when_its_run_is_taken_up_or_dropped_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: Any = Runs()
    clock = [100.0]
    monkeypatch.setattr(replay_hold.time, "monotonic", lambda: clock[0])
    hold = Hold(runs, running("one"))
    hold.begin(None)
    hold.beat()
    told = len(runs.told)
    clock[0] += BEAT_S / 2
    hold.beat()
    assert len(runs.told) == told
    clock[0] += BEAT_S
    hold.beat()
    assert len(runs.told) == told + 1
    for words, meanwhile in (
        ("taken up", running("two")),
        ("taken up", running("one")._replace(state="interrupted")),
        ("dropped", running("one")._replace(state="dropped")),
    ):
        runs.tell(meanwhile)
        clock[0] += 2 * BEAT_S
        with pytest.raises(RunTaken, match=words):
            hold.beat()


def test_a_run_that_changed_since_it_was_looked_up_is_not_taken_up() -> None:
    known = running("one")
    runs: Any = Runs(known._replace(changed_ms=NOW_MS + 5))
    with pytest.raises(RunTaken):
        Hold(runs, running("two")).begin(known)
    assert len(runs.told) == 1
