"""A run in the place of live rows: what later corrections come to on top, and what is refused for it."""

import asyncio
import csv
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from streams.adapters.clickhouse import ClickHouseSink
from streams.adapters.clickhouse_runs import IDENTICAL, WHAT_IF, ClickHouseRuns, RunInfo
from streams.cli import app
from streams.commands.publishing import put_in_place
from streams.commands.replay import _settled
from streams.errors import ConfigurationError
from streams.jobs.replay_kept import DECISION_DAYS, REPORT_DAYS, forgotten
from streams.jobs.replay_partition import Range
from streams.jobs.replay_plan import ReplayPlan
from streams.jobs.replay_publishing import check_campaigns, check_frozen, doubts
from streams.jobs.replay_report import Report
from streams.records import Row, Table
from streams.settings import ClickHouseSettings, Settings
from tests.support.chdb_engine import new_settings
from tests.support.rows import PANE_S, make_row

pytest.importorskip("chdb", reason="the embedded ClickHouse needs campaign-streams[embedded]")

BEGIN_S = PANE_S - PANE_S % 3600
END_S = BEGIN_S + 3600
DAY_S = 86_400
OLD_S = int(time.time()) // 3600 * 3600 - 40 * DAY_S
TABLES = ("pane_rows", "report_rows", "run_pane_rows", "runs", "publications", "campaign_rows", "alert_rows")
TABLES += ("flag_rows", "run_flag_rows")


class World:
    """Live rows and runs of one database."""

    def __init__(self, settings: ClickHouseSettings, runs: ClickHouseRuns, state_dir: Path) -> None:
        self.settings = settings
        self.runs = runs
        self.state_dir = state_dir

    def live(self, *rows: Row, table: Table = Table.PANES) -> None:
        async def insert() -> None:
            sink = ClickHouseSink(self.settings)
            await sink.insert(table, list(rows))
            await sink.close()

        asyncio.run(insert())

    def run(self, *rows: Row, name: str = "again", kind: str = WHAT_IF, **told: Any) -> RunInfo:
        self.runs.insert(name, Table.PANES, list(rows))
        info = RunInfo(name, kind, "done", BEGIN_S, END_S, created_s=END_S, changed_ms=1_000 * END_S)
        self.runs.tell(info._replace(**told))
        return self.runs.find(name)

    def valid_and_invalid(self) -> tuple[int, int]:
        sql = """SELECT sumIf(clicks, validity = 'valid'), sumIf(clicks, validity != 'valid')
            FROM shown_pane_rows WHERE campaign_id = 'c1'"""
        (row,) = self.runs.ask(sql)
        return int(row[0]), int(row[1])


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = new_settings()
    runs = ClickHouseRuns(settings)
    runs.open()
    yield World(settings, runs, tmp_path_factory.mktemp("state"))
    runs.close()


@pytest.fixture
def world(opened: World) -> World:
    for table in TABLES:
        opened.runs._command(f"TRUNCATE TABLE {table}", {})
    return opened


def clicks(count: int, at_s: int = BEGIN_S, effect_s: int | None = None, **values: Any) -> Row:
    effect = at_s if effect_s is None else effect_s
    whole = {"input": "clicks", "origin_pane": at_s, "effect_pane": effect, "clicks": count, "clicks_card": count}
    return make_row(Table.PANES, **{**whole, **values})


moved = partial(clicks, input="journal")


def passed(at_s: int = END_S) -> Row:
    """Clicks of another campaign, by which the input has passed a time."""
    return clicks(1, at_s, campaign_id="other")


def test_a_correction_of_what_both_count_alike_adds_up(world: World) -> None:
    world.live(clicks(10), passed(BEGIN_S + 30), passed())
    info = world.run(clicks(10), passed(BEGIN_S + 30))
    assert doubts(world.runs, info) == []
    put_in_place(world.runs, info, yes=True)
    world.live(moved(-1, BEGIN_S, END_S + 60), moved(1, BEGIN_S, END_S + 60, validity="sivt"))
    assert world.valid_and_invalid() == (9, 1)


def test_what_a_later_word_would_take_away_twice_is_refused(world: World) -> None:
    """The run finds a click invalid that live has as valid. Should a live word find so too, it would count twice."""
    world.live(clicks(10), passed())
    info = world.run(clicks(9), clicks(1, validity="sivt"))
    with pytest.raises(ConfigurationError, match=r"would count twice.*--even-so"):
        put_in_place(world.runs, info, yes=True)
    assert world.valid_and_invalid() == (10, 0)
    put_in_place(world.runs, info, yes=True, even_so=True)
    assert world.valid_and_invalid() == (9, 1)
    world.live(moved(-1, BEGIN_S, END_S + 60), moved(1, BEGIN_S, END_S + 60, validity="sivt"))
    assert world.valid_and_invalid() == (8, 2)  # this is what is refused: of ten clicks one is invalid


def test_what_an_overturn_would_give_back_twice_is_refused_until_no_word_can_reach_it(world: World) -> None:
    world.live(clicks(9), clicks(1, validity="givt"), passed())
    info = world.run(clicks(10))
    (told,) = doubts(world.runs, info)
    assert "2026-09-22 14:00 UTC" in told
    world.live(passed(BEGIN_S + DAY_S - 10))
    assert len(doubts(world.runs, info)) == 1
    world.live(passed(BEGIN_S + DAY_S))
    assert doubts(world.runs, info) == []


def test_words_reach_conversions_for_thirty_days(world: World) -> None:
    conversion = {"input": "conversions", "conversions": 1, "orders": 1, "clicks": 0, "clicks_card": 0}
    beyond = {**conversion, "campaign_id": "other"}
    world.live(clicks(0, **conversion), clicks(0, END_S + 29 * DAY_S, **beyond))
    info = world.run(clicks(0, validity="sivt", **conversion))
    assert len(doubts(world.runs, info)) == 1
    world.live(clicks(0, END_S + 30 * DAY_S, **beyond))
    assert doubts(world.runs, info) == []


def test_a_correction_that_was_told_behind_the_range_already_is_seen(world: World) -> None:
    world.live(clicks(10), passed(), passed(BEGIN_S + 2 * DAY_S))
    world.live(moved(-1, BEGIN_S, END_S + 60), moved(1, BEGIN_S, END_S + 60, validity="sivt"))
    info = world.run(clicks(9), clicks(1, validity="sivt"))
    (told,) = doubts(world.runs, info)
    assert "replay up to a later time" in told


def test_a_word_on_what_came_before_the_range_is_seen(world: World) -> None:
    """Live had it invalid from the begin; the run, which had not, takes it out of the valid ones of before."""
    early = BEGIN_S - 3600
    world.live(clicks(1, early, validity="givt"), clicks(1), passed(BEGIN_S + 2 * DAY_S))
    info = world.run(clicks(1), moved(-1, early, BEGIN_S), moved(1, early, BEGIN_S, validity="sivt"))
    (told,) = doubts(world.runs, info)
    assert "begin the range earlier" in told


def test_what_can_still_change_is_refused_whatever_is_said(world: World) -> None:
    world.live(clicks(10), passed(END_S - 600))
    info = world.run(clicks(10), passed(END_S - 600))
    with pytest.raises(ConfigurationError, match=r"can still change; publish a range that ended by 2026-09-21 14:50"):
        put_in_place(world.runs, info, yes=True, even_so=True)
    with pytest.raises(ConfigurationError, match="only a finished run"):
        check_frozen(world.runs, info._replace(state="running"))


def test_an_input_that_stands_before_the_range_s_end_is_named(world: World) -> None:
    """Its late events would make rows within the range, which the run's rows hide."""
    world.live(clicks(10), passed(), clicks(0, BEGIN_S, partition=0, input="adjustments", refunds=1, clicks_card=0))
    info = world.run(clicks(10), clicks(0, BEGIN_S, input="adjustments", refunds=1, clicks_card=0))
    (told,) = doubts(world.runs, info)
    assert "adjustments of partition 0 stand before" in told


def test_a_partition_that_has_been_silent_is_named_and_does_not_forbid_a_range_for_ever(world: World) -> None:
    """Its campaigns ended three days ago: who publishes may say so. One that is just behind still forbids it."""
    world.live(clicks(10), passed(), clicks(1, END_S - 3 * DAY_S, partition=7, campaign_id="ended"))
    info = world.run(clicks(10))
    check_frozen(world.runs, info)
    (told,) = doubts(world.runs, info)
    assert "clicks of partition 7 have brought nothing since 2026-09-18 15:00 UTC" in told
    with pytest.raises(ConfigurationError, match=r"partition 7 have brought nothing.*--even-so"):
        put_in_place(world.runs, info, yes=True)
    world.live(clicks(1, END_S - 60, partition=8, campaign_id="slow"))
    with pytest.raises(ConfigurationError, match=r"can still change; publish a range that ended by 2026-09-21 14:59"):
        put_in_place(world.runs, info, yes=True, even_so=True)
    world.live(clicks(1, END_S, partition=8, campaign_id="slow"))
    put_in_place(world.runs, info, yes=True, even_so=True)
    assert world.runs.find("again").is_published


def test_where_everything_has_been_silent_nothing_is_behind(world: World) -> None:
    world.live(clicks(10, END_S - 3 * DAY_S))
    info = world.run(clicks(10))
    with pytest.raises(ConfigurationError, match=r"can still change; publish a range that ended by 2026-09-18 15:00"):
        check_frozen(world.runs, info)


def test_events_that_came_after_the_run_are_not_hidden_unseen(world: World) -> None:
    world.live(clicks(10), passed())
    info = world.run(clicks(10), kind=IDENTICAL)
    assert doubts(world.runs, info) == []
    world.live(clicks(12, version=2))
    assert any("12 clicks" in each and "replay the range again" in each for each in doubts(world.runs, info))


def test_no_answer_publishes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    world.live(clicks(10), passed())
    info = world.run(clicks(10))
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115
    with pytest.raises(typer.Abort):
        put_in_place(world.runs, info, yes=False)
    assert not world.runs.find("again").is_published


# Two terminals


def at_the_prompt(world: World, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> Result:
    """`runs publish again`, and what happens elsewhere before somebody says yes."""

    def confirm(*_: Any, **__: Any) -> bool:
        meanwhile()
        return True

    monkeypatch.setattr("typer.confirm", confirm)
    return called(world, "publish", "again")


def called(world: World, *arguments: str) -> Result:
    env = {
        "CAMPAIGN_STREAMS_CLICKHOUSE__DSN": world.settings.dsn.get_secret_value(),
        "CAMPAIGN_STREAMS_WORKER__STATE_DIR": str(world.state_dir),
        "COLUMNS": "200",
    }
    return CliRunner().invoke(app, ["runs", *arguments], env=env)


def test_a_run_is_not_dropped_or_taken_back_while_somebody_is_asked_whether_to_publish_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.live(clicks(10), passed())
    world.run(clicks(10))
    refused: list[str] = []

    def elsewhere() -> None:
        refused.extend(str(called(world, verb, "again").exception) for verb in ("drop", "withdraw", "publish"))

    shown = at_the_prompt(world, monkeypatch, elsewhere)
    assert shown.exit_code == 0, shown.output
    assert [f"process {os.getpid()}" in each for each in refused] == [True] * 3
    assert world.runs.find("again").is_published
    assert called(world, "withdraw", "again").exit_code == 0
    assert not world.runs.find("again").is_published


@pytest.mark.parametrize("case", ["dropped", "overlapped", "corrected", "begun anew"])
def test_what_speaks_against_it_by_the_time_of_the_answer_is_heard(
    world: World, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Other machines keep to no lock."""
    world.live(clicks(10), passed())
    info = world.run(clicks(10))
    cases: dict[str, tuple[str, Callable[[], object]]] = {
        "dropped": ("there is no run again", lambda: world.runs.drop(info, info.changed_ms + 1)),
        "overlapped": ("meets that of other", lambda: world.runs.publish(world.run(name="other"), "me", 1)),
        "corrected": ("the live rows hold 12 clicks", lambda: world.live(clicks(12, version=2))),
        "begun anew": ("only a finished run", lambda: world.run(state="running", changed_ms=info.changed_ms + 1)),
    }
    words, meanwhile = cases[case]
    assert words in str(at_the_prompt(world, monkeypatch, meanwhile).exception)
    assert world.runs.published("again") is None


@pytest.mark.parametrize("case", ["dropped", "overlapped"])
def test_what_happened_while_it_was_published_takes_it_back(
    world: World, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    world.live(clicks(10), passed())
    info = world.run(clicks(10))
    publish = world.runs.publish

    def beside(*arguments: Any, **more: Any) -> None:
        """Another machine is at it in the same moment."""
        if case == "overlapped" and world.runs.published("other") is None:
            publish(world.run(name="other"), "them", 1)
        if case == "dropped" and world.runs.runs():
            world.runs.drop(info, info.changed_ms + 1)
        publish(*arguments, **more)

    monkeypatch.setattr(world.runs, "publish", beside)
    with pytest.raises(ConfigurationError, match=r"there is no run again|meets that of other"):
        put_in_place(world.runs, info, yes=True)
    assert world.runs.published("again") is None


def test_a_run_that_was_dropped_is_not_shown_and_one_that_still_is_can_be_taken_back(world: World) -> None:
    world.live(clicks(10), passed())
    info = world.run(clicks(4))
    world.runs.drop(info, info.changed_ms + 1)
    world.runs.publish(info, "an earlier version", 2)
    assert world.valid_and_invalid() == (0, 0)
    shown = called(world, "withdraw", "again")
    assert (shown.exit_code, shown.output) == (0, "run again is taken back\n")
    assert world.valid_and_invalid() == (10, 0)
    assert "there is no run again" in str(called(world, "withdraw", "again").exception)


def test_a_name_that_is_still_published_is_not_given_to_another_run(world: World) -> None:
    info = world.run(clicks(4))
    world.runs.drop(info, info.changed_ms + 1)
    world.runs.publish(info, "an earlier version", 2)
    plan = ReplayPlan("again", Range(0, 60_000))
    with pytest.raises(ConfigurationError, match=r"dropped and is still published.*`runs withdraw again`"):
        _settled(Settings(), plan, None, world.runs, None)


def test_whoever_has_no_name_publishes_by_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def unnamed() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", unnamed)
    monkeypatch.setattr("os.getuid", lambda: 4711)
    world.live(clicks(10), passed())
    world.run(clicks(10))
    for verb in (("publish", "again", "--yes"), ("withdraw", "again")):
        assert called(world, *verb).exit_code == 0
        assert world.runs.ask("SELECT who FROM publications FINAL") == [("uid 4711",)]


def test_a_published_run_is_not_dropped_and_the_help_says_so(world: World) -> None:
    run = world.run(clicks(1))
    world.runs.publish(run, "me", 1)
    with pytest.raises(ConfigurationError, match=f"`runs withdraw {run.run}`"):
        world.runs.drop(world.runs.find(run.run), 2)
    assert world.runs.find(run.run).state == "done"
    told = " ".join(CliRunner().invoke(app, ["runs", "drop", "--help"]).stdout.split())
    assert "Refused while it is published: `runs withdraw` takes it back." in told
    world.runs.publish(run, "me", 3, is_published=False)
    world.runs.drop(world.runs.find(run.run), run.changed_ms + 1)
    with pytest.raises(ConfigurationError, match="there is no run"):
        world.runs.find(run.run)


def test_a_finished_run_is_shown_and_reported_again(world: World, tmp_path: Path) -> None:
    world.live(clicks(10), passed(BEGIN_S + 30), passed())
    world.run(clicks(9), clicks(1, validity="sivt"), passed(BEGIN_S + 30), campaigns=("c1",))
    world.run(clicks(9), clicks(1, validity="sivt"), passed(BEGIN_S + 30), name="other")
    env = {"CAMPAIGN_STREAMS_CLICKHOUSE__DSN": world.settings.dsn.get_secret_value(), "COLUMNS": "200"}
    files = [tmp_path / f"report.{suffix}" for suffix in ("csv", "json", "html")]
    asked = [word for file in files for word in ("--report", str(file))]
    shown = CliRunner().invoke(app, ["runs", "show", "again", *asked], env=env)
    assert shown.exit_code == 0, shown.output
    assert "compared: only c1; the run itself counts all campaigns" in shown.output
    assert "10 → 9" in shown.output
    (line,) = csv.DictReader(files[0].open())
    assert (line["clicks_before"], line["clicks_after"], line["invalid_clicks_difference"]) == ("10", "9", "1")
    assert msgspec.json.decode(files[1].read_bytes(), type=Report).other == "live"
    assert b"again beside live" in files[2].read_bytes()
    beside = CliRunner().invoke(app, ["runs", "show", "again", "--compare", "other"], env=env)
    assert "no campaign differs from other (1 compared)" in beside.output
    refused = CliRunner().invoke(app, ["runs", "show", "again", "--report", "report.pdf"], env=env)
    assert "says no format" in str(refused.exception)


def test_live_rows_that_have_gone_are_told_and_a_range_without_them_is_in_doubt(world: World, tmp_path: Path) -> None:
    """The report grain still counts twelve clicks; of the decision grain ten are left, all of them, or more."""
    env = {"CAMPAIGN_STREAMS_CLICKHOUSE__DSN": world.settings.dsn.get_secret_value(), "COLUMNS": "200"}
    old = partial(clicks, at_s=OLD_S, effect_s=OLD_S)
    whole = {"input": "clicks", "origin_pane": OLD_S, "effect_pane": OLD_S, "clicks": 12, "clicks_card": 12}
    info = world.run(old(12), from_s=OLD_S, to_s=OLD_S + 3600)
    world.live(old(10), passed())
    assert forgotten(world.runs, info) == []
    world.live(make_row(Table.REPORTS, **whole), table=Table.REPORTS)
    (told,) = forgotten(world.runs, info)
    assert "10 of at least 12 events are left" in told
    assert forgotten(world.runs, info, "again") == []  # runs are kept
    assert told in doubts(world.runs, info)
    files = [tmp_path / f"report.{suffix}" for suffix in ("csv", "json", "html")]
    asked = [word for file in files for word in ("--report", str(file))]
    shown = CliRunner().invoke(app, ["runs", "show", "again", *asked], env=env)
    assert f"mind: {told}" in shown.output
    assert {line["remarks"] for line in csv.DictReader(files[0].open())} == {told}
    assert msgspec.json.decode(files[1].read_bytes(), type=Report).remarks == [told]
    assert told.encode() in files[2].read_bytes()
    world.live(old(12, version=2))
    assert forgotten(world.runs, info) == []


def test_of_ranges_that_no_grain_keeps_it_is_told(world: World) -> None:
    at_s = OLD_S - 400 * DAY_S
    info = world.run(clicks(12, at_s, at_s), from_s=at_s, to_s=at_s + 3600)
    assert "0 of at least 0 events are left" in forgotten(world.runs, info)[0]
    world.live(clicks(12, at_s, at_s))  # loaded late
    assert forgotten(world.runs, info) == []


def test_days_are_those_of_the_schema() -> None:
    schema = (Path(__file__).parents[2] / "schemas" / "clickhouse" / "0001_tables.sql").read_text()
    for table, days in (("pane_rows", DECISION_DAYS), ("report_rows", REPORT_DAYS)):
        definition = schema.split(f"CREATE TABLE IF NOT EXISTS {table}\n")[1].split("CREATE TABLE")[0]
        assert f"TTL written_at + INTERVAL {days} DAY" in definition


def test_an_unknown_campaign_is_refused(world: World) -> None:
    world.live(clicks(1))
    check_campaigns(world.runs, ("c1", "new"), {"new"})
    with pytest.raises(ConfigurationError, match="there is no campaign c2"):
        check_campaigns(world.runs, ("c1", "c2"), set())
