"""`campaign-streams demo`: the whole system on this machine, with live figures in the terminal."""

import asyncio
import re
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from streams.commands.options import run as run_async
from streams.errors import ConfigurationError

if TYPE_CHECKING:
    from streams.jobs.demo import DemoPlan, DemoRun

DEFAULT_DIRECTORY = Path("campaign-streams-demo")
SHOWN_EXAMPLES = 5
"""Rows that did not fit, of which the closing summary says why; the JSON has more."""
MARKER = ".campaign-streams-demo"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def demo(
    duration: Annotated[str | None, typer.Option(help="End after this long: 60s, 5m. Without: until Ctrl-C.")] = None,
    rate: Annotated[float, typer.Option(min=1, max=200_000, help="Generated events per second.")] = 2_000.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same traffic.")] = 0,
    data_dir: Annotated[
        Path | None,
        typer.Option(help=f"Keep data here, across runs. Without: ./{DEFAULT_DIRECTORY}, emptied at each start."),
    ] = None,
    source: Annotated[
        list[Path] | None, typer.Option("--from", help="Real logs in the generator's place; repeat for several files.")
    ] = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]…", help="More files for --from.")] = None,
    mapping: Annotated[
        str | None, typer.Option(help="With --from: a mapping file, or a shipped one: ipinyou, open_bandit.")
    ] = None,
    until_done: Annotated[
        bool, typer.Option("--until-done", help="End when every record has been processed and published.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")] = False,
) -> None:
    """Run everything here: broker, ClickHouse, worker and traffic, and watch CTR and CVR live.

    Nothing needs to be installed or running before. Ctrl-C ends the traffic and prints the summary. Afterwards,
    `campaign-streams query --data-dir DIR "SELECT * FROM campaign_totals"` answers from what is left.
    """
    from streams.jobs.demo import DemoPlan
    from streams.jobs.identity import Identity
    from streams.jobs.mapping import read_mapping
    from streams.settings import load_settings

    files = [*(source or []), *(more or [])]
    _check_files(files, mapping, until_done, duration)
    plan = DemoPlan(
        rate=rate,
        seed=seed,
        duration_s=None if duration is None else seconds(duration),
        files=files,
        mapping=read_mapping(Path(mapping)) if mapping else None,
        identity=Identity.from_settings(load_settings().identity),
        until_done=until_done,
        directory=_directory(data_dir),  # last: it empties what the demo before has left
    )
    console = Console(stderr=as_json)
    try:
        status, summary = run_async(_run(plan, console, quiet=as_json))
    except asyncio.CancelledError:
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(orjson.dumps(summary, option=orjson.OPT_INDENT_2, default=str).decode())
    else:
        console.print(_closing(status, summary))
    if summary["rows"] and summary["rows"]["misfits"] and not summary["events_sent"]:
        raise typer.Exit(1)


def seconds(text: str) -> float:
    """A duration such as 60s, 5m or 1.5h, in seconds."""
    found = _DURATION.fullmatch(text.strip())
    if not found or float(found.group(1)) <= 0:
        raise ConfigurationError(f"--duration: {text!r} is no duration; write 60s, 5m or 1h")
    return float(found.group(1)) * _SECONDS[found.group(2)]


def _check_files(files: list[Path], mapping: str | None, until_done: bool, duration: str | None) -> None:
    if files and mapping is None:
        raise ConfigurationError("--from needs --mapping: a mapping file, or a shipped one (ipinyou, open_bandit)")
    if mapping and not files:
        raise ConfigurationError("--mapping goes with --from FILE")
    if until_done and not files and duration is None:
        raise ConfigurationError("--until-done needs --from FILE or --duration: generated traffic has no end")
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise ConfigurationError(f"--from: no such file: {', '.join(missing)}")


def _directory(given: Path | None) -> Path:
    """A given directory is kept; the default one is ours, and emptied."""
    from streams.jobs.embedded import held

    if given is not None:
        return given
    if DEFAULT_DIRECTORY.exists():
        if not (DEFAULT_DIRECTORY / MARKER).exists():
            raise ConfigurationError(f"./{DEFAULT_DIRECTORY} is not a demo's directory; give --data-dir DIR")
        with held(DEFAULT_DIRECTORY):  # another demo may run here
            shutil.rmtree(DEFAULT_DIRECTORY)
    DEFAULT_DIRECTORY.mkdir()
    (DEFAULT_DIRECTORY / MARKER).touch()
    return DEFAULT_DIRECTORY


async def _run(plan: "DemoPlan", console: Console, quiet: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last status, and the summary."""
    from streams.jobs.demo import run_demo

    last: dict[str, Any] = {}
    whole = asyncio.current_task()

    def started(run: "DemoRun") -> None:
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, end, run)
        console.print(f"console at [bold]{run.system.web}/console/[/bold]")
        console.print(f"[dim]metrics at {run.system.web}/metrics; data in {plan.directory}[/dim]")

    def end(run: "DemoRun") -> None:
        if run.stopping and whole is not None:
            whole.cancel()
        else:
            console.print("[dim]ending when every row is published; Ctrl-C again ends at once[/dim]")
            run.stop()

    def show(status: dict[str, Any]) -> None:
        last.update(status)
        if live is not None:
            live.update(_screen(status, plan))

    if quiet:
        live = None
        return last, await run_demo(plan, show, started)
    console.print("[dim]starting broker, ClickHouse and worker…[/dim]")
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        return last, await run_demo(plan, show, started)


def _screen(status: dict[str, Any], plan: "DemoPlan") -> Group:
    from streams.commands.tables import campaign_table, ledger_table

    consumed = sum(entries["consumed"] for entries in status["ledger"].values())
    visible = status["visible_ms"] if not plan.files else None
    latency = f", visible in {visible['p50']} ms (p99 {visible['p99']} ms)" if visible else ""
    line = f"{consumed:,} events, lag {status['lag_records']:,}{latency}. Ctrl-C ends."
    return Group(campaign_table(status, "5m"), ledger_table(status), Text(line, style="dim"))


def _closing(status: dict[str, Any], summary: dict[str, Any]) -> Group:
    from streams.commands.tables import campaign_table, ledger_table

    facts = Table.grid(padding=(0, 2))
    facts.add_row("events", f"{summary['events_consumed']:,}")
    facts.add_row("events/s", f"{summary['events_per_s']:,.0f}")
    if summary["visible_ms"]:
        visible = summary["visible_ms"]
        facts.add_row(
            "append to visible", f"p50 {visible['p50']} ms, p99 {visible['p99']} ms (oldest record of a tick)"
        )
    facts.add_row("ledger", "balances" if summary["ledger_balances"] else "[red]DOES NOT BALANCE[/red]")
    if summary["rows"]:
        facts.add_row("rows read", f"{summary['rows']['read']:,}, {summary['rows']['misfits']:,} did not fit")
        for example in summary["rows"]["examples"][:SHOWN_EXAMPLES]:
            facts.add_row("", Text(f"{example['file']}:{example['line']}: {example['reason']}"))
    if summary["worker_restarts"]:
        facts.add_row("worker restarts", str(summary["worker_restarts"]))
    facts.add_row("data", summary["data_dir"])
    sql = "SELECT campaign_name, impressions, clicks, ctr, cvr FROM campaign_totals"
    facts.add_row("ask it", f'campaign-streams query --data-dir {summary["data_dir"]} "{sql}"')
    return Group(campaign_table(status, "5m"), Text("Summary", style="bold"), ledger_table(summary), facts)
