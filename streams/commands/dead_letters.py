"""`campaign-streams dead-letters list | redrive`: what was rejected or late, and sending it again after a fix."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from streams.commands.options import notes, out, print_json, prose, run, time_text
from streams.settings import KafkaSettings, Settings, load_settings
from streams.topics import DEAD_LETTERS

if TYPE_CHECKING:
    from streams.jobs.dead_letters import Choice, LetterBook
    from streams.jobs.mending import Mend
    from streams.jobs.redrive import Plan, Policy
    from streams.records import DeadLetter

EPILOG: Final = """
Examples:

  campaign-streams dead-letters list --reason malformed_json
  campaign-streams dead-letters redrive --topic clicks --reason unknown_value --dry-run
  campaign-streams dead-letters redrive --topic clicks --mend renamed.toml
"""

MAX_PATH: Final = 24
MIN_VALUE: Final = 10

ReasonOption = Annotated[str | None, typer.Option(help="Only this reason, for example malformed_json, future or late.")]
TopicOption = Annotated[str | None, typer.Option(help="Only records of this topic; ads.clicks, or clicks.")]

app = typer.Typer(
    no_args_is_help=True,
    help="Records that were rejected or late: look at them, send them again.",
    rich_markup_mode="rich",
)


def list_letters(
    reason: ReasonOption = None,
    topic: TopicOption = None,
    limit: Annotated[int, typer.Option(min=0, help="Letters shown, the newest; 0: only the summary.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with the raw bytes in base64.")] = False,
) -> None:
    """Show what was rejected or late: a summary by topic and reason, and the newest letters.

    A letter names its reason and the path in the document, and where the record stood. `sent again` counts the
    redrives; a record that is rejected once more after one is a letter of its own.
    """
    from streams.jobs.dead_letters import choice_of

    choice = choice_of(reason, topic)
    book = run(read_letters(load_settings().kafka, choice))
    letters = book.letters()
    newest = letters[len(letters) - min(limit, len(letters)) :]
    if as_json:
        summary = [row._asdict() for row in book.summary()]
        document = {"letters": len(letters), "summary": summary, "newest": [_document(letter) for letter in newest]}
        print_json(document)
    elif letters:
        _show(book, newest)
    else:
        out().print(f"no letters in {DEAD_LETTERS}{_chosen(choice)}")
    _remark(book)


async def read_letters(kafka: KafkaSettings, choice: "Choice") -> "LetterBook":
    """The letters that are wanted, up to where the topic ends now.

    Raises:
        ConfigurationError, BrokerUnavailable: see `whole_topic`.
    """
    from streams.commands.topic_reading import whole_topic
    from streams.jobs.dead_letters import LetterBook

    book = LetterBook(choice)
    async with whole_topic(kafka, DEAD_LETTERS) as records:
        async for _, record in records:
            book.add(record.value)
    return book


def _chosen(choice: "Choice") -> str:
    named = [f"{name} {value}" for name, value in choice._asdict().items() if value is not None]
    return f" with {' and '.join(named)}" if named else ""


def _remark(book: "LetterBook") -> None:
    if book.unreadable:
        notes().print(f"{book.unreadable:,} records of {DEAD_LETTERS} are no letters")
    if book.left_out:
        notes().print(f"{book.left_out:,} more letters were left out to bound memory; use --reason or --topic")


def _document(letter: "DeadLetter") -> dict[str, object]:
    from streams.jobs.dead_letters import preview

    document: dict[str, object] = msgspec.to_builtins(letter, builtin_types=(bytes,))
    for field in ("key", "value"):
        raw = getattr(letter, field)
        document[field] = None if raw is None else base64.b64encode(raw).decode()
    return {**document, "preview": preview(letter.value, 200)}


def _show(book: "LetterBook", newest: "list[DeadLetter]") -> None:
    console = out()
    table = _table("topic", "reason", title="Dead letters")
    for name in ("letters", "sent again"):
        table.add_column(name, justify="right")
    for row in book.summary():
        table.add_row(row.topic, row.reason, f"{row.letters:,}", f"{row.redriven:,}")
    console.print(table)
    if not newest:
        return
    table = _table("record", "timestamp (UTC)", "reason", "path", "sent", "value", title=f"The newest {len(newest):,}")
    cells = [_cells(letter) for letter in newest]
    for at, column in enumerate(table.columns):
        column.no_wrap, column.overflow = True, "ellipsis"
        column.min_width = (
            MIN_VALUE
            if at == len(table.columns) - 1
            else max(len(str(column.header)), *(len(row[at]) for row in cells))
        )
    for texts in cells:
        table.add_row(*map(Text, texts))
    console.print(table)


def _cells(letter: "DeadLetter") -> tuple[str, ...]:
    from streams.jobs.dead_letters import preview

    place = f"{letter.topic}-{letter.partition}@{letter.offset}"
    sent = f"{letter.redrives}×" if letter.redrives else "–"
    path = letter.path if len(letter.path) <= MAX_PATH else f"{letter.path[: MAX_PATH - 1]}…"
    return place, time_text(letter.timestamp_ms), letter.reason, path, sent, preview(letter.value)


def _table(*columns: str, title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.title, table.title_justify = title, "left"
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def redrive_letters(
    reason: ReasonOption = None,
    topic: TopicOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Send at most this many.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Late letters too; they count only if the lateness was raised since.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Letters that were sent again before, too.")] = False,
    mend: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Sets fields anew before sending: what the producer meant.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
) -> None:
    """Send records again, after a fix: the raw bytes to their topic, with their key and timestamp.

    With --mend, what a producer's mistake has left is put right first: a file in the way of a mapping names the fields
    that are set anew, of which fields of the document, and for which letters. --dry-run shows what it would come to.

    Each letter is sent once: it is marked in ads.dead-letters. What this version would still reject is left, with the
    reason; so are late letters, unless the mend changes their event time (a clock in seconds) or --force is given.

    Never a double count: a worker knows an event's id for the horizon of its input (impressions and plays 10 min,
    clicks 24 h, conversions 30 days, unless the rules say otherwise), and what is older than that is late, not
    counted, and becomes a letter with the reason late.
    """
    from streams.jobs.dead_letters import choice_of, preview
    from streams.jobs.mending import read_mend
    from streams.jobs.redrive import Policy

    choice = choice_of(reason, topic)
    mending = read_mend(mend) if mend is not None else None
    settings = load_settings()
    book, plan, sent = run(_redrive(settings, choice, Policy(force, again), limit, mending, dry_run))
    console = out()
    if not plan.drives and not plan.skipped:
        console.print(f"no letters in {DEAD_LETTERS}{_chosen(choice)}")
    else:
        console.print(
            f"{len(plan.drives):,} records would be sent again" if dry_run else f"{sent:,} records sent again"
        )
    if mending is not None and dry_run and plan.sends:
        console.print(Text(f"  the first: {preview(plan.sends[0].value, 400)}"))
    for why, count in sorted(plan.skipped.items(), key=lambda item: -item[1]):
        console.print(Text(f"  {count:,} left: {why}"))
    _remark(book)


async def _redrive(
    settings: Settings, choice: "Choice", policy: "Policy", limit: int | None, mend: "Mend | None", dry_run: bool
) -> "tuple[LetterBook, Plan, int]":
    from streams.adapters.kafka_admin import describe_cluster
    from streams.adapters.kafka_outbox import KafkaOutbox
    from streams.jobs.redrive import plan_redrive, redrive

    book = await read_letters(settings.kafka, choice)
    partitions = (await describe_cluster(settings.kafka)).topics
    plan = plan_redrive(book.letters(), settings.parsed_rules(), partitions, policy, limit, mend)
    if dry_run or not plan.drives:
        return book, plan, 0
    outbox = KafkaOutbox(settings.kafka)
    await outbox.start()
    try:
        return book, plan, await redrive(plan.drives, outbox, sends=plan.sends)
    finally:
        await outbox.stop()


app.command("list", help=prose(list_letters.__doc__), epilog=prose(EPILOG))(list_letters)
app.command("redrive", help=prose(redrive_letters.__doc__), epilog=prose(EPILOG))(redrive_letters)
