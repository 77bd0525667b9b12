"""`campaign-streams archive`: topics into Parquet or NDJSON files, so that history outlives retention."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from streams.commands.options import notes, out, print_json, run, time_ms
from streams.errors import ConfigurationError

if TYPE_CHECKING:
    from streams.adapters.archive_files import Format
    from streams.jobs.archive import ArchiveReport, Wish
    from streams.settings import Settings

SHOW_S: Final = 0.1
EPILOG: Final = """
Examples:

  campaign-streams archive --to history
  campaign-streams archive --to history --from 2026-11-01 --until 2026-12-01
  campaign-streams archive --to clicks-only --topics clicks,conversions

Run it again, from cron for example: it goes on where the archive ends.
"""


def archive(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The archive; made where it does not exist.")],
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Where a new archive begins. Without: with all that is kept."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="End before the first record of this time. Without: now.")
    ] = None,
    topics: Annotated[
        list[str] | None,
        typer.Option(metavar="TOPIC", help="Only these; repeat, or separate by commas. Without: inputs and journal."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="parquet, or ndjson (gzip): larger, needs no pyarrow.")
    ] = "parquet",
    raw: Annotated[
        bool, typer.Option("--raw", help="Identifiers as they are, not as pseudonyms. Needs no identity.key.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write inputs and journal as files, by topic and day, so that they outlive retention and can be replayed.

    Incremental: a run goes on where the archive ends. It may be ended at any moment (Ctrl-C, kill, power): what is in
    place is whole, and the next run goes on. Times are those of the records themselves, in UTC. Users, devices and
    addresses that are no pseudonyms yet become some, with identity.key. Parquet needs pyarrow (the extra `files`).
    """
    from streams.jobs.archive import ArchiveReport, Wish, topics_of
    from streams.settings import load_settings

    settings = load_settings()
    names = [name.strip() for text in topics or () for name in text.split(",") if name.strip()]
    wish = Wish(
        directory=to,
        topics=topics_of(names),
        are_named=bool(names),
        from_ms=None if begin is None else time_ms("--from", begin),
        until_ms=None if until is None else time_ms("--until", until),
        raw=raw,
        form=_format(form),
    )
    if wish.from_ms is not None and wish.until_ms is not None and wish.from_ms >= wish.until_ms:
        raise ConfigurationError("--from lies behind --until; give an earlier begin")
    report = ArchiveReport()
    try:
        run(_archive(settings, wish, report))
    except (KeyboardInterrupt, asyncio.CancelledError):
        notes().print("ended; what is in place is whole, and the next run goes on there")
        raise typer.Exit(130) from None
    if report.missing:
        notes().print(f"not there, and left out: {', '.join(report.missing)}")
    print_json(_document(to, report)) if as_json else show(to, report, out())


def _format(text: str) -> "Format":
    if text not in ("parquet", "ndjson"):
        raise ConfigurationError(f"--format: {text!r} is unknown; choose parquet or ndjson")
    return "parquet" if text == "parquet" else "ndjson"


async def _archive(settings: "Settings", wish: "Wish", report: "ArchiveReport") -> None:
    from streams.adapters.kafka_history import KafkaHistory
    from streams.jobs.archive import archive
    from streams.jobs.identity import Identity

    history = KafkaHistory(settings.kafka)
    identity = Identity.from_settings(settings.identity)
    try:
        async with _shown(report):
            await archive(history, wish, identity, settings.worker.log_epoch, report)
    finally:
        await history.stop()


@contextlib.asynccontextmanager
async def _shown(report: "ArchiveReport") -> AsyncIterator[None]:
    console = notes()
    columns = (SpinnerColumn(), TextColumn("offsets"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("offsets", total=None)

        async def keep_showing() -> None:
            while True:
                progress.update(task, completed=report.offsets, total=report.offsets_planned or None)
                await asyncio.sleep(SHOW_S)

        showing = asyncio.create_task(keep_showing())
        try:
            yield
        finally:
            showing.cancel()


def show(directory: Path, report: "ArchiveReport", console: Console) -> None:
    """The report for people."""
    totals = [topic for topic in report.topics.values() if topic.offsets]
    if not totals:
        console.print(f"{directory}: nothing new")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("topic")
    for name in ("records", "offsets without", "MB"):
        table.add_column(name, justify="right")
    for name, topic in report.topics.items():
        without = topic.offsets - topic.records
        table.add_row(name, f"{topic.records:,}", f"{without:,}", f"{topic.file_bytes / 1e6:,.1f}")
    console.print(f"{directory}: {sum(topic.records for topic in totals):,} records added")
    console.print(table)
    changed, markers = sum(t.pseudonymised for t in totals), sum(t.markers for t in totals)
    lost, unfaithful = sum(t.lost for t in totals), sum(t.unfaithful for t in totals)
    if changed:
        console.print(f"{changed:,} records had identifiers that are pseudonyms now")
    if markers:
        console.print(f"{markers:,} records are no documents: only their lengths, and why they are rejected, were kept")
    if unfaithful:
        console.print(Text(f"{unfaithful:,} of these will be rejected as malformed_json instead", style="yellow"))
    if lost:
        console.print(Text(f"{lost:,} offsets were removed by retention before they were archived", style="yellow"))


def _document(directory: Path, report: "ArchiveReport") -> dict[str, object]:
    return {
        "directory": str(directory),
        "records": sum(topic.records for topic in report.topics.values()),
        "offsets": report.offsets,
        "missing_topics": report.missing,
        "topics": {name: asdict(topic) for name, topic in report.topics.items()},
    }
