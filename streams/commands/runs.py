"""`campaign-streams runs …`: what replays came to, published and taken back, and dropped."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table as Grid

from streams.commands.options import out, print_json, time_text
from streams.commands.publishing import EVEN_SO, put_in_place, who
from streams.commands.run_reports import ReportOption, show_differences, write_reports
from streams.errors import ConfigurationError
from streams.settings import load_settings

if TYPE_CHECKING:
    from streams.adapters.clickhouse_runs import ClickHouseRuns, RunInfo

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Runs of replays: look at them, publish them, drop them.")


def list_runs(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List the runs, the latest first.

    A run is running, done, failed (by an error), interrupted (Ctrl-C), or abandoned: begun, and killed. All but done
    ones go on by `replay --resume`. Whether one that another machine began still runs is known a minute later.
    """
    found = _with_runs(lambda runs: [_seen(info) for info in runs.runs()])
    if as_json:
        print_json([info._asdict() for info in found])
        return
    if not found:
        out().print("no run yet; campaign-streams replay begins one")
        return
    grid = Grid("run", "kind", "state", "from (UTC)", "to (UTC)", "records", "published")
    for info in found:
        times = (time_text(info.from_s * 1000), time_text(info.to_s * 1000))
        grid.add_row(info.run, info.kind, info.state, *times, f"{info.records:,}", "yes" if info.is_published else "")
    out().print(grid)


def _seen(info: "RunInfo") -> "RunInfo":
    """With the state as it is: nobody tells of a run that was killed."""
    from streams.jobs.replay_hold import state_of

    state_dir = load_settings().worker.state_dir
    return info._replace(state=state_of(info, state_dir, time.time_ns() // 1_000_000))


def show(
    name: Annotated[str, typer.Argument(help="The run.")],
    other: Annotated[str, typer.Option("--compare", "--other", help="live, or another run.")] = "live",
    report: ReportOption = None,
) -> None:
    """Show a run and how it differs from the live rows, or from another run; or write that as a report again."""
    from streams.jobs.report_files import check_paths

    check_paths(report or ())

    def look(runs: "ClickHouseRuns") -> None:
        from streams.commands.replay_words import told_of
        from streams.jobs.replay_compare import check_other, compare, rows_differing
        from streams.jobs.replay_kept import forgotten
        from streams.jobs.replay_report import rules_of

        info = _seen(runs.find(name))
        check_other(runs, other, info.from_s, info.to_s)
        differences, rows = compare(runs, info, other), rows_differing(runs, info, other)
        out().print(f"{info.run}: {info.kind}, {info.state}, {info.records:,} records", soft_wrap=True)
        for line in told_of(info):
            out().print(line, soft_wrap=True)
        told = ", ".join(f"{table} {count:,}" for table, count in rows.items())
        out().print(f"rows differing: {told}", soft_wrap=True)
        changes, remarks = rules_of(runs, info, other)[1], forgotten(runs, info, other)
        show_differences(differences, other, changes, info.campaigns, remarks)
        write_reports(runs, info, other, differences, report or ())

    _with_runs(look)


def drop(name: Annotated[str, typer.Argument(help="The run.")]) -> None:
    """Remove a run and its rows. Refused while it is published: `runs withdraw` takes it back. Not while it runs."""
    from streams.jobs.replay_hold import check_free, locked
    from streams.jobs.replay_progress import ReplayFolder

    state_dir = load_settings().worker.state_dir

    def act(runs: "ClickHouseRuns") -> None:
        info, now_ms = runs.find(name), time.time_ns() // 1_000_000
        check_free(info, state_dir, now_ms)
        runs.drop(info, now_ms)

    with locked(state_dir, name):
        _with_runs(act)
        ReplayFolder(state_dir, name).remove()
    out().print(f"run {name} is dropped")


def publish(
    name: Annotated[str, typer.Argument(help="The run.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    even_so: Annotated[bool, typer.Option("--even-so", help=EVEN_SO)] = False,
) -> None:
    """Put a run's rows in the place of the live rows of its range, for every reader at once.

    Its figures, and its flags with their evidence. Alerts and pacing stay: they tell what was sent, and was in force.
    """
    from streams.jobs.replay_hold import locked

    with locked(load_settings().worker.state_dir, name):
        _with_runs(lambda runs: put_in_place(runs, runs.find(name), yes, even_so))


def withdraw(name: Annotated[str, typer.Argument(help="The run.")]) -> None:
    """Take a published run back: the live rows count again. One that was dropped meanwhile, too."""
    from streams.jobs.replay_hold import locked

    def act(runs: "ClickHouseRuns") -> None:
        info = runs.published(name) or runs.find(name)
        if not info.is_published:
            raise ConfigurationError(f"run {name} is not published; runs list shows which are")
        runs.publish(info, who(), time.time_ns() // 1_000_000, is_published=False)

    with locked(load_settings().worker.state_dir, name):
        _with_runs(act)
    out().print(f"run {name} is taken back")


def _with_runs(act: "Callable[[ClickHouseRuns], T]") -> T:
    from streams.adapters.clickhouse_runs import ClickHouseRuns

    runs = ClickHouseRuns(load_settings().clickhouse)
    runs.open()
    try:
        return act(runs)
    finally:
        runs.close()


app.command("list")(list_runs)
app.command("show")(show)
app.command("drop")(drop)
app.command("publish")(publish)
app.command("withdraw")(withdraw)
