"""What `campaign-streams replay` does around a replay: it begins clean, ends by name, and is taken up as asked for."""

import time
from pathlib import Path
from typing import Any

import pytest
import typer

from streams.adapters.clickhouse_runs import IDENTICAL, WHAT_IF, RunInfo
from streams.adapters.memory import MemoryHistory, MemoryLog
from streams.commands import replay as command
from streams.errors import CampaignStreamsError, ConfigurationError
from streams.jobs import replay as job
from streams.jobs.replay import Progress, Summary
from streams.jobs.replay_compare import check_other
from streams.jobs.replay_hold import RunTaken, holder_of
from streams.jobs.replay_partition import Range
from streams.jobs.replay_plan import ReplayPlan, check
from streams.jobs.replay_progress import Asked, ReplayFolder
from streams.jobs.replay_what_if import Change
from streams.rules import Rules
from streams.settings import Settings
from tests.unit.test_replay_partition import Lived

HOUR = Range(1_700_000_000_000, 1_700_003_600_000)
PLAN = ReplayPlan("r", HOUR)
AGAIN = PLAN._replace(resume=True, wanted=Range(command.NOT_ASKED, command.NOT_ASKED))
"""As `--resume r` asks for it."""


class Runs:
    """What is known of runs, in memory."""

    def __init__(self, *infos: RunInfo, rows: bool = True) -> None:
        self.told = list(infos)
        self.rows = rows

    def tell(self, info: RunInfo) -> None:
        self.told.append(info)

    def runs(self) -> list[RunInfo]:
        latest = {info.run: info for info in self.told}
        return [info for info in latest.values() if info.state != "dropped"]

    def find(self, run: str) -> RunInfo:
        return next(info for info in reversed(self.told) if info.run == run)

    def has_rows(self, run: str) -> bool:
        return self.rows

    def drop(self, info: RunInfo, now_ms: int) -> None:
        self.tell(info._replace(state="dropped"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"worker": {"state_dir": tmp_path}})


def left(settings: Settings) -> list[str]:
    """What is in the run's folder."""
    return sorted(file.name for file in ReplayFolder(settings.worker.state_dir, "r").path.glob("*"))


def ends_with(monkeypatch: pytest.MonkeyPatch, end: Summary | BaseException, settings: Settings) -> list[list[str]]:
    """The replay itself comes to this; what its folder held when it began."""
    seen = []

    async def replay(*_: Any) -> Summary:
        seen.append(left(settings))
        if isinstance(end, BaseException):
            raise end
        return end

    monkeypatch.setattr(job, "replay", replay)
    return seen


def test_a_run_that_begins_finds_nothing_of_an_earlier_one(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ReplayFolder(settings.worker.state_dir, "r")
    folder.keep(0, b"of another run")
    folder.commit(3, b"of another run")
    seen = ends_with(monkeypatch, Summary(9, 1.0, 9, 0, 0), settings)
    runs: Any = Runs()
    command._replay(settings, PLAN, runs, None, None)
    folder.keep(0, b"its own")
    command._replay(settings, PLAN._replace(resume=True), runs, None, runs.find("r"))
    assert seen == [["begun.json"], ["0.state", "begun.json"]]


def test_a_run_that_fails_is_told_and_can_be_resumed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs()
    ends_with(monkeypatch, CampaignStreamsError("the broker does not answer"), settings)
    with pytest.raises(CampaignStreamsError, match="does not answer"):
        command._replay(settings, PLAN, runs, None, None)  # type: ignore[arg-type]
    assert [(info.state, info.note) for info in runs.told] == [
        ("running", ""),
        ("failed", "the broker does not answer"),
    ]
    assert {info.holder for info in runs.told} == {holder_of(settings.worker.state_dir)}
    plan, change = command._taken_up(settings, AGAIN, runs.find("r"), None)
    assert (plan.resume, plan.wanted, change) == (True, HOUR, None)


def test_ctrl_c_is_told_and_the_run_can_be_resumed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: Any = Runs()
    ends_with(monkeypatch, KeyboardInterrupt(), settings)
    with pytest.raises(typer.Exit):
        command._replay(settings, PLAN, runs, None, None)
    assert [info.state for info in runs.told] == ["running", "interrupted"]
    assert "campaign-streams replay --resume r goes on" in capsys.readouterr().err
    plan, _ = command._taken_up(settings, AGAIN, runs.find("r"), None)
    assert plan.resume


def test_of_a_run_that_another_has_taken_up_nothing_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: Any = Runs()
    ends_with(monkeypatch, RunTaken("taken"), settings)
    with pytest.raises(RunTaken):
        command._replay(settings, PLAN, runs, None, None)
    assert [info.state for info in runs.told] == ["running"]


def test_a_run_without_any_row_is_refused_and_leaves_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(rows=False)
    ends_with(monkeypatch, Summary(40, 1.0, 0, 7, 0), settings)
    with pytest.raises(ConfigurationError, match=r"nothing happened then \(40 records were read, and retention has"):
        command._replay(settings, PLAN, runs, None, None)  # type: ignore[arg-type]
    assert runs.find("r").state == "dropped"
    assert left(settings) == []
    runs.rows = True  # inserted before it was interrupted
    command._replay(settings, PLAN, runs, None, None)  # type: ignore[arg-type]
    assert runs.find("r").state == "done"


def known(kind: str, state: str = "running", created_s: int = 5, **more: Any) -> RunInfo:
    return RunInfo("r", kind, state, HOUR.from_ms // 1000, HOUR.to_ms // 1000, created_s=created_s, **more)


def test_a_finished_run_is_not_resumed(settings: Settings) -> None:
    for published, words in ((False, "r is finished; `runs show r`"), (True, "r is finished and published; ")):
        with pytest.raises(ConfigurationError, match=words):
            command._taken_up(settings, AGAIN, known(IDENTICAL, "done", is_published=published), None)


def test_a_run_is_taken_up_with_what_it_was_begun_with_and_never_with_another_s(settings: Settings) -> None:
    change, plan = Change(Rules(pane_ms=5_000)), AGAIN
    ReplayFolder(settings.worker.state_dir, "r").begin(5, Asked(change))
    assert command._taken_up(settings, plan, known(WHAT_IF), None) == (plan._replace(wanted=HOUR), change)
    with pytest.raises(ConfigurationError, match="was begun with other rules"):
        command._taken_up(settings, plan, known(WHAT_IF), Change(Rules()))
    with pytest.raises(ConfigurationError, match="does not hold what run r was asked for"):
        command._taken_up(settings, plan, known(WHAT_IF, created_s=6), None)
    anew, none = command._taken_up(settings, plan, known(IDENTICAL, created_s=6), None)
    assert (anew.resume, none) == (False, None)  # another place has begun it: nothing here is of it


def begun_from(settings: Settings, archive: Path, monkeypatch: pytest.MonkeyPatch, **asked: Any) -> Any:
    """What is known of a run that reads an archive with pseudonyms and has been stopped."""
    runs: Any = Runs()
    ends_with(monkeypatch, KeyboardInterrupt(), settings)
    with pytest.raises(typer.Exit):
        command._replay(settings, PLAN._replace(archives=(archive,), **asked), runs, None, None)
    return runs.find("r")


@pytest.mark.parametrize("with_topics", [False, True])
def test_a_run_goes_on_from_the_archives_that_it_was_begun_with(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, with_topics: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    info = begun_from(settings, Path("archive"), monkeypatch, with_topics=with_topics)
    monkeypatch.chdir("/")
    plan, _ = command._taken_up(settings, AGAIN, info, None)
    assert (plan.archives, plan.with_topics, plan.wanted) == ((tmp_path / "archive",), with_topics, HOUR)
    same = AGAIN._replace(archives=(tmp_path / "archive",), with_topics=with_topics, wanted=HOUR, processes=4)
    assert command._taken_up(settings, same, info, None)[0] == same


@pytest.mark.parametrize(
    ("named", "other"),
    [
        ("--archive", {"archives": (Path("/another"),)}),
        ("--archive", {"archives": (Path("/archive"), Path("/another"))}),
        ("--with-topics", {"with_topics": True}),
        ("--from", {"wanted": Range(HOUR.from_ms - 60_000, command.NOT_ASKED)}),
        ("--to", {"wanted": Range(command.NOT_ASKED, HOUR.to_ms + 60_000)}),
        ("--campaign", {"campaigns": ("nope",)}),
        ("--from, --to, --campaign", {"wanted": Range(0, 60_000), "campaigns": ("nope",)}),
    ],
)
def test_a_run_that_goes_on_is_asked_for_nothing_else(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, named: str, other: dict[str, Any]
) -> None:
    info = begun_from(settings, Path("/archive"), monkeypatch)
    with pytest.raises(ConfigurationError, match=f"was begun with another {named}; leave that out"):
        command._taken_up(settings, AGAIN._replace(**other), info, None)


def test_a_run_that_goes_on_keeps_its_name() -> None:
    with pytest.raises(ConfigurationError, match="leave --run out"):
        command.replay(resume="r", run_name="s")


def test_a_run_that_does_not_cover_the_range_is_not_compared() -> None:
    runs: Any = Runs(known(IDENTICAL))
    begin, end = HOUR.from_ms // 1000, HOUR.to_ms // 1000
    check_other(runs, "live", 0, end)
    check_other(runs, "r", begin, end)
    check_other(runs, "r", begin + 60, end - 60)
    for span in ((begin - 60, end), (begin, end + 60)):
        with pytest.raises(ConfigurationError, match="which does not cover"):
            check_other(runs, "r", *span)


def test_the_rate_after_a_resumption_is_that_of_this_process() -> None:
    assert Progress(1_500, 2_000, 5.0, 1_000).events_per_s == 100.0
    assert Summary(1_500, 5.0, 0, 0, 0, (), 1_000).events_per_s == 100.0


async def test_a_range_in_the_future_is_refused_whether_there_is_a_journal_or_not() -> None:
    begin_ms = (int(time.time()) + 3_600) * 1_000
    for log in (MemoryLog(), Lived(1).log):
        with pytest.raises(ConfigurationError, match="--from lies in the future"):
            await check(MemoryHistory(log), Range(begin_ms, begin_ms + 3_600_000))
