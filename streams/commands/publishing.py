"""`runs publish` and `replay --publish`: a run in the place of the live rows, after its difference has been shown."""

import getpass
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
    """Shows what changes, tells what is in doubt, asks, and publishes.

    Raises:
        ConfigurationError: it cannot be published, or only `even_so`; the message says what to do.
        typer.Abort: the answer was no.
    """
    from streams.jobs.replay_compare import compare
    from streams.jobs.replay_publishing import check_frozen, doubts

    check_frozen(runs, info)
    if is_shown:
        everything = info._replace(campaigns=())  # what a run was compared for does not narrow what it replaces
        show_differences(compare(runs, everything), "live")
    found = doubts(runs, info)
    for doubt in found:
        notes().print(f"in doubt: {doubt}")
    if found and not even_so:
        raise ConfigurationError(f"run {info.run} is not published: {found[0]}; --even-so publishes it nevertheless")
    if not yes and not typer.confirm(f"publish {info.run}?", err=True):
        raise typer.Abort
    runs.publish(info, getpass.getuser(), time.time_ns() // 1_000_000)
    notes().print(f"run {info.run} is published; `runs withdraw {info.run}` takes it back")
