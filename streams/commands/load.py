"""`campaign-streams load`: log files into the topics."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from streams.commands.options import notes, out, print_json, run, time_text
from streams.errors import ConfigurationError

if TYPE_CHECKING:
    from streams.jobs.load import LoadReport
    from streams.jobs.mapping import Mapping
    from streams.jobs.ordering import LoadedEvent
    from streams.settings import Settings

SHOW_S: Final = 0.1
SHOWN_EXAMPLES: Final = 10
EPILOG: Final = """
Examples:

  campaign-streams load imp.txt.gz clk.txt.gz --mapping ipinyou
  campaign-streams load random.csv bts.csv --mapping open_bandit --dry-run
  campaign-streams load export.parquet --mapping my-export.toml --strict

A mapping (TOML) names columns, formats, constants and units; those in schemas/mappings are examples, and can be
given by their names.
"""


class FileOrder(StrEnum):
    EVENT_TIME = "event-time"
    FILE = "file"


def load(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="CSV, TSV, NDJSON or Parquet; also .gz.")],
    mapping: Annotated[
        str, typer.Option(metavar="MAPPING", help="A mapping file (TOML), or a shipped one: ipinyou, open_bandit.")
    ],
    order: Annotated[
        FileOrder, typer.Option(help="event-time: across all files, sorted; file: as the rows lie.")
    ] = FileOrder.EVENT_TIME,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 if any row did not fit the mapping.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check everything, publish nothing; needs no broker.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Load log files into the topics; event times are kept, also as the records' own timestamps.

    A row that does not fit the mapping is counted and shown, and stops nothing (exit code 1 if no row fits at all).
    What the pipeline would reject is found here, before it is published. Files that are loaded together are put in
    order together: a file whose events are older than what the topics already hold, by more than the lateness of
    their input, would be counted as late. Loading the same file again counts nothing twice while its events' ids are
    remembered.
    """
    from streams.jobs.load import LoadReport
    from streams.jobs.mapping import read_mapping
    from streams.settings import load_settings

    settings = load_settings()
    chosen = read_mapping(Path(mapping))
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise ConfigurationError(f"no such file: {', '.join(missing)}; give files that can be read")
    report = LoadReport()
    events = _events(files, chosen, order, settings, report)
    published = run(_check(events, report) if dry_run else _publish(events, report, settings, order))
    if as_json:
        print_json(_document(report, published))
    else:
        show(report, published, dry_run, out())
    if report.misfits and (strict or not report.total_events):
        raise typer.Exit(1)


def _events(
    files: list[Path], mapping: "Mapping", order: FileOrder, settings: "Settings", report: "LoadReport"
) -> Iterator["LoadedEvent"]:
    from streams.jobs.identity import Identity
    from streams.jobs.load import Order, events_from_files

    identity = Identity.from_settings(settings.identity)
    how: Order = "event_time" if order is FileOrder.EVENT_TIME else "file"
    return events_from_files(files, mapping, how, identity, report)


async def _publish(
    events: Iterator["LoadedEvent"], report: "LoadReport", settings: "Settings", order: FileOrder
) -> int:
    from streams.adapters.kafka_admin import partitions_for_worker
    from streams.adapters.kafka_outbox import KafkaOutbox
    from streams.jobs.load import load

    await partitions_for_worker(settings.kafka)  # a topic that a broker makes on demand has the wrong partitions
    outbox = KafkaOutbox(settings.kafka)
    await outbox.start()
    try:
        with _bar() as progress:
            meter = _Meter(progress, report, is_total_known=order is FileOrder.EVENT_TIME)
            async with _shown(meter):
                return await load(events, outbox, progress=meter.published)
    finally:
        await outbox.stop()


async def _check(events: Iterator["LoadedEvent"], report: "LoadReport") -> int:
    def read_all() -> None:
        for _ in events:
            pass

    with _bar() as progress:
        async with _shown(_Meter(progress, report, is_total_known=False)):
            await asyncio.to_thread(read_all)
    return 0


class _Meter:
    """Two phases in one line: rows read, then events published."""

    def __init__(self, progress: Progress, report: "LoadReport", is_total_known: bool) -> None:
        self._progress = progress
        self._report = report
        self._is_total_known = is_total_known
        self._task: TaskID = progress.add_task("reading", total=None)
        self._published = 0

    def published(self, total: int) -> None:
        """Called after each batch."""
        self._published = total

    def show(self) -> None:
        """Draws where things stand."""
        if self._published:
            total = self._report.total_events if self._is_total_known else None
            self._progress.update(self._task, description="events", completed=self._published, total=total)
        else:
            self._progress.update(self._task, description="rows read", completed=self._report.rows)


@contextlib.asynccontextmanager
async def _shown(meter: _Meter) -> AsyncIterator[None]:
    async def keep_showing() -> None:
        while True:
            meter.show()
            await asyncio.sleep(SHOW_S)

    task = asyncio.create_task(keep_showing())
    try:
        yield
    finally:
        task.cancel()
        meter.show()


def _bar() -> Progress:
    console = notes()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def show(report: "LoadReport", published: int, dry_run: bool, console: Console) -> None:
    """The report for people."""
    verb = "would be published (dry run)" if dry_run else "published"
    total = report.total_events if dry_run else published
    console.print(f"{report.rows:,} rows read, {total:,} events {verb}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("input")
    table.add_column("events", justify="right")
    for source, count in report.events.items():
        if count:
            table.add_row(source.value, f"{count:,}")
    if report.total_events:
        console.print(table)
        console.print(f"event times {time_text(report.first_ms)} to {time_text(report.last_ms)} UTC")
    if report.without_event:
        console.print(f"{report.without_event:,} rows are of no kind that the mapping makes events of")
    if report.misfits:
        console.print(Text(f"{report.misfits:,} rows did not fit and were left out:", style="yellow"))
        for example in report.examples[:SHOWN_EXAMPLES]:
            console.print(Text(f"  {example.file}:{example.line}: {example.reason}"))
        rest = report.misfits - min(len(report.examples), SHOWN_EXAMPLES)
        if rest > 0:
            console.print(f"  … and {rest:,} more")


def _document(report: "LoadReport", published: int) -> dict[str, object]:
    return {
        "rows": report.rows,
        "published": published,
        "events": {source.value: count for source, count in report.events.items()},
        "rows_without_event": report.without_event,
        "misfits": report.misfits,
        "examples": [example._asdict() for example in report.examples],
        "first_event_ms": report.first_ms,
        "last_event_ms": report.last_ms,
    }
