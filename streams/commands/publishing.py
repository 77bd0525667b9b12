"""`runs publish` and `replay --publish`: a run in the place of the live rows, after its difference has been shown."""

import getpass
import os
import time
from typing import TYPE_CHECKING, Final

import typer

from streams.commands.options import notes
from streams.commands.run_reports import show_differences
from streams.errors import ConfigurationError

if TYPE_CHECKING:
    from streams.adapters.clickhouse_runs import ClickHouseRuns, RunInfo

EVEN_SO: Final = "Publish although figures may be lost or count twice; what is in doubt is told."


def put_in_place(
    runs: "ClickHouseRuns", info: "RunInfo", yes: bool, even_so: bool = False, is_shown: bool = True
) -> None:
    """Shows what changes, tells what is in doubt, asks, looks again, and publishes. The run must be locked.

    Other machines keep to no lock. So it looks once more when it has published, and takes the run back at once where
    another one has published or dropped something meanwhile.

    Raises:
        ConfigurationError: it cannot be published, or only `even_so`; the message says what to do.
        typer.Abort: the answer was no.
    """
    from streams.jobs.replay_compare import compare
    from streams.jobs.replay_publishing import check_frozen

    check_frozen(runs, info)
    if is_shown:
        everything = info._replace(campaigns=())  # what a run was compared for does not narrow what it replaces
        show_differences(compare(runs, everything), "live")
    _check_doubts(runs, info, even_so)
    if not yes:
        if not typer.confirm(f"publish {info.run}?", err=True):
            raise typer.Abort
        info = runs.find(info.run)
        check_frozen(runs, info)
        _check_doubts(runs, info, even_so)
    runs.publish(info, who(), time.time_ns() // 1_000_000)
    try:
        check_frozen(runs, runs.find(info.run))
    except ConfigurationError:
        runs.publish(info, who(), time.time_ns() // 1_000_000, is_published=False)
        raise
    notes().print(f"run {info.run} is published; `runs withdraw {info.run}` takes it back")


def _check_doubts(runs: "ClickHouseRuns", info: "RunInfo", even_so: bool) -> None:
    from streams.jobs.replay_publishing import doubts

    found = doubts(runs, info)
    for doubt in found:
        notes().print(f"in doubt: {doubt}")
    if found and not even_so:
        raise ConfigurationError(f"run {info.run} is not published: {found[0]}; --even-so publishes it nevertheless")


def who() -> str:
    """Who publishes, or takes back: the user's name, or the number where it has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()}"
