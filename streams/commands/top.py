"""`campaign-streams top`: a worker's campaigns and ledger, live in the terminal."""

import shutil
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from streams.commands.options import length_text, notes, out, time_text
from streams.commands.tables import FALLBACK_SIZE, campaign_table, ledger_table
from streams.errors import Unavailable
from streams.settings import load_settings

if TYPE_CHECKING:
    from streams.commands.worker_api import WorkerApi

ALL: Final = 100_000
FAR_BEHIND_MS: Final = 60_000


class Window(StrEnum):
    ONE_MINUTE = "1m"
    FIVE_MINUTES = "5m"
    FIFTEEN_MINUTES = "15m"
    HOUR = "1h"
    DAY = "day"


class Health(msgspec.Struct, frozen=True):
    """What a status says of the worker itself."""

    partitions: tuple[int, ...] = ()
    recovering: tuple[int, ...] = ()
    lag_records: int = 0
    dirty_rows: int = 0
    sink_up: bool = True
    newest_event_ms: int = -1


def top(
    data_dir: Annotated[
        Path | None, typer.Option(help="Watch the demo with this data directory, instead of the settings' worker.")
    ] = None,
    window: Annotated[Window, typer.Option(help="Window by event time; day is the campaign's own.")] = (
        Window.FIVE_MINUTES
    ),
    once: Annotated[bool, typer.Option("--once", help="Show it once and end; for scripts, and for a look.")] = False,
    every: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Watch campaigns live: counts, CTR and CVR with their 95% intervals, spend, and the ledger.

    Asks a worker on this machine (worker.web_host and worker.web_port of the settings, or a demo's) for its windows,
    so it works without ClickHouse. Campaigns are in the order of today's spend. A ratio over zero is shown as –.
    Ctrl-C ends it.
    """
    from streams.commands.worker_api import worker_of_directory, worker_of_settings

    worker = worker_of_directory(data_dir) if data_dir else worker_of_settings(load_settings())
    status = worker.status()  # nobody there: told at once
    console = out()
    if once:
        width = console.width if console.width < ALL else None
        console.print(screen(status, window.value, str(worker), width=width, rows=ALL))
        return
    try:
        _watch(worker, status, window.value, every, console)
    except KeyboardInterrupt:
        notes().print("ended", style="dim")


def _watch(worker: "WorkerApi", status: dict[str, object], window: str, every_s: float, console: Console) -> None:
    answered = time.monotonic()
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            try:
                status, answered, trouble = worker.status(), time.monotonic(), ""
            except Unavailable as error:  # it may be restarting: what was last known stays, and its age is shown
                trouble = f"{error} (these figures are {length_text(1000 * (time.monotonic() - answered))} old)"
            live.update(screen(status, window, str(worker), trouble), refresh=True)
            time.sleep(every_s)


def screen(
    status: dict[str, object],
    window: str,
    address: str,
    trouble: str = "",
    *,
    width: int | None = None,
    rows: int | None = None,
) -> Group:
    """Campaigns, ledger and health of one status."""
    width = shutil.get_terminal_size(FALLBACK_SIZE).columns if width is None else width
    parts = [campaign_table(status, window, width=width, rows=rows), ledger_table(status, width=width)]
    return Group(*parts, health_line(msgspec.convert(status, Health), address), Text(trouble, style="bold red"))


def health_line(health: Health, address: str) -> Text:
    """One line: where, how far behind, and what is wrong."""
    line = Text(f"{address}  ", style="dim")
    line.append(f"partitions {len(health.partitions)}  lag {health.lag_records:,}  rows waiting {health.dirty_rows:,}")
    if health.newest_event_ms >= 0:
        line.append(f"  newest event {time_text(health.newest_event_ms)} UTC")
    if health.recovering:
        line.append(f"  recovering {', '.join(map(str, health.recovering))}", style="bold yellow")
    if not health.sink_up:
        line.append("  ClickHouse does not answer", style="bold red")
    return line
