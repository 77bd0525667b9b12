"""`campaign-streams reconcile`: somebody else's totals against ours, and what explains the differences."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.commands.options import notes, out, print_json
from streams.errors import ConfigurationError

if TYPE_CHECKING:
    from streams.commands.asking import Asker
    from streams.events import Input
    from streams.jobs.reconcile import Difference, Lost, Place, Reconciliation, Tolerance, Totals

MAX_FILE_BYTES: Final = 256 * 1024**2
SHOWN: Final = 50
ROWS_A_QUESTION: Final = 4_000
CAMPAIGNS_A_QUESTION: Final = 200
EPILOG: Final = """
Example of a file:

  campaign_id,day,impressions,clicks,spend_micros
  c1,2026-11-30,120034,3601,2160612000

Measures are the columns of the view campaign_days; gross_impressions and the like include invalid traffic.

  campaign-streams reconcile invoice.csv --tolerance 0.1%
  campaign-streams reconcile imp.txt.gz clk.txt.gz --mapping ipinyou
"""


def reconcile(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="A CSV of totals; with --mapping, logs of events.")
    ],
    mapping: Annotated[
        str | None, typer.Option(metavar="MAPPING", help="FILE… are event logs: totals are counted from them.")
    ] = None,
    tolerance: Annotated[
        str, typer.Option(help="What may remain: an amount of the measure's unit, or a share such as 0.1%.")
    ] = "0",
    data_dir: Annotated[Path | None, typer.Option(help="Compare with the demo that has this data directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole comparison as JSON.")] = False,
) -> None:
    """Compare independent totals per campaign and day with ours, and explain every difference.

    Days are the campaign's own, in its time zone. Where theirs are higher, ours left out what the ledger names:
    duplicates, late events, invalid traffic, counted per campaign, day and input. What remains is unexplained, and
    makes the exit code 1. Rejected records cannot be attributed to a campaign and are shown apart, as are amounts of
    money that were not kept.

    With --mapping the totals are counted straight from event logs, each event id once, without the pipeline:
    impressions, clicks, conversions, and the spend at the events' own clearing prices. The spend of campaigns that
    are billed by other terms is not in the logs, and not compared.
    """
    from streams.commands.asking import asker_for
    from streams.jobs.reconcile import companions, read_totals
    from streams.jobs.reconcile import reconcile as compare

    allowed = tolerance_of(tolerance)
    _require_files(files, mapping)
    asker = asker_for(data_dir)
    try:
        known = _known_measures(asker)
        theirs = _from_logs(files, mapping, asker) if mapping else read_totals(_lines(files[0]), known, str(files[0]))
        if not theirs.rows:
            raise ConfigurationError(f"{files[0]} holds no totals; give at least one row")
        ours, lost = _ours(asker, theirs, companions(theirs.measures, known))
        found = compare(theirs, ours, lost, allowed)
        rejected = _rejected(asker, theirs)
    finally:
        asker.close()
    if as_json:
        print_json(_document(found, rejected))
    else:
        show(found, rejected, out())
    if found.open:
        raise typer.Exit(1)


def tolerance_of(text: str) -> "Tolerance":
    """`5` (of the measure's unit) or `0.1%`.

    Raises:
        ConfigurationError: it is neither, or negative.
    """
    from streams.jobs.reconcile import Tolerance

    try:
        if text.strip().endswith("%"):
            found = Tolerance(share=float(text.strip()[:-1]) / 100)
        else:
            found = Tolerance(amount=int(text))
    except ValueError:
        found = Tolerance(amount=-1)
    if found.amount < 0 or not 0 <= found.share < 1:
        raise ConfigurationError(f"--tolerance: {text!r} is neither an amount such as 5 nor a share such as 0.1%")
    return found


def _require_files(files: list[Path], mapping: str | None) -> None:
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise ConfigurationError(f"no such file: {', '.join(missing)}; give files that can be read")
    if mapping is None and len(files) > 1:
        raise ConfigurationError("one CSV of totals at a time; several files go with --mapping, as event logs")


def _lines(file: Path) -> Iterator[str]:
    if file.stat().st_size > MAX_FILE_BYTES:
        raise ConfigurationError(f"{file}: larger than {MAX_FILE_BYTES:,} bytes; give fewer days at a time")
    try:
        yield from file.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: is no UTF-8 text; save it as CSV, or give --mapping for a log") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}; give a file that can be read") from None


def _known_measures(asker: "Asker") -> frozenset[str]:
    described = asker.ask(
        "SELECT name FROM system.columns WHERE database = currentDatabase() "
        "AND table = 'campaign_days' AND type = 'Int64'"
    )
    if not described.rows:
        raise ConfigurationError(f"{asker} has no view campaign_days; start a worker first, it makes the schema")
    return frozenset(str(row[0]) for row in described.rows)


def _from_logs(files: list[Path], mapping: str, asker: "Asker") -> "Totals":
    from streams.jobs.identity import Identity
    from streams.jobs.load import events_from_files
    from streams.jobs.log_totals import totals_of_events
    from streams.jobs.mapping import read_mapping
    from streams.settings import load_settings

    settings = load_settings()
    zones = {str(c): str(z) for c, z in asker.ask("SELECT campaign_id, time_zone FROM campaigns").rows}
    events = events_from_files(
        files, read_mapping(Path(mapping)), "event_time", Identity.from_settings(settings.identity)
    )
    found = totals_of_events(events, zones, settings.parsed_rules())
    billed = {(str(row[0]), "spend_micros") for row in asker.ask(BILLED_BY_TERMS).rows}
    unstated = billed & {(place.campaign_id, measure) for place in found.rows for measure in found.measures}
    for campaign, _ in sorted(unstated):
        notes().print(
            f"{campaign}: its spend is not compared, for it is not billed by the clearing prices of its events"
        )
    return found._replace(unstated=frozenset(unstated))


def _ours(
    asker: "Asker", theirs: "Totals", measures: tuple[str, ...]
) -> "tuple[Totals, dict[tuple[str, str], dict[Input, Lost]]]":
    """Our totals and what was left out of them, of the campaigns and days that they name."""
    from streams.events import Input
    from streams.jobs.reconcile import Lost, Place, Totals

    rows: dict[Place, dict[str, int]] = {}
    lost: dict[tuple[str, str], dict[Input, Lost]] = {}
    for where in _conditions(theirs):
        answer = asker.ask(
            f"SELECT campaign_id, toString(day), currency, {', '.join(measures)} FROM campaign_days WHERE {where}"
        )
        _refuse_cut(answer.truncated)
        for campaign, day, currency, *amounts in answer.rows:
            place = Place(str(campaign), str(day), str(currency))
            rows[place] = {name: int(amount) for name, amount in zip(measures, amounts, strict=True)}
        answer = asker.ask(_LOST.format(where=where))
        _refuse_cut(answer.truncated)
        for campaign, day, source, *counts in answer.rows:
            if source in set(Input):
                lost.setdefault((str(campaign), str(day)), {})[Input(str(source))] = Lost(*map(int, counts))
    return Totals(measures, rows, names_currency=True), lost


BILLED_BY_TERMS: Final = """
SELECT campaign_id FROM campaigns WHERE JSONExtractString(settings, 'billing', 'model') NOT IN ('', 'clearing_price')
"""
_LOST: Final = """
SELECT campaign_id, toString(day), toString(input), sum(duplicates), sum(late), sum(money_rejected) FROM (
    SELECT r.campaign_id AS campaign_id, ifNull(nullIf(c.time_zone, ''), 'UTC') AS time_zone,
        toDate(toString(r.origin_pane, time_zone)) AS day, r.input AS input,
        r.duplicates AS duplicates, r.late AS late, r.money_rejected AS money_rejected
    FROM all_rows AS r LEFT JOIN campaigns AS c ON c.campaign_id = r.campaign_id
    WHERE r.duplicates != 0 OR r.late != 0 OR r.money_rejected != 0
) WHERE {where} GROUP BY campaign_id, day, input
"""


def _conditions(theirs: "Totals") -> Iterator[str]:
    """Campaigns in groups so small that an answer is never cut."""
    campaigns = sorted({place.campaign_id for place in theirs.rows})
    days = sorted({place.day for place in theirs.rows})
    span = (date.fromisoformat(days[-1]) - date.fromisoformat(days[0])).days + 1
    size = max(1, min(CAMPAIGNS_A_QUESTION, ROWS_A_QUESTION // (span * 6)))
    for start in range(0, len(campaigns), size):
        names = ", ".join(map(quoted, campaigns[start : start + size]))
        yield f"campaign_id IN ({names}) AND day BETWEEN '{days[0]}' AND '{days[-1]}'"


def quoted(text: str) -> str:
    """A string literal of ClickHouse."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _refuse_cut(is_truncated: bool) -> None:
    if is_truncated:
        raise ConfigurationError("the days span too many rows for one answer; give fewer days at a time")


def _rejected(asker: "Asker", theirs: "Totals") -> dict[str, dict[str, int]]:
    """Rejected and lost records of the inputs concerned, over all time: they belong to no campaign."""
    from streams.jobs.reconcile import inputs_of

    wanted = {source.value for measure in theirs.measures for source in inputs_of(measure)}
    answer = asker.ask("SELECT input, sum(rejected), sum(lost_retention) FROM ledger GROUP BY input ORDER BY input")
    return {
        str(source): {"rejected": int(str(rejected)), "lost_retention": int(str(gone))}
        for source, rejected, gone in answer.rows
        if source in wanted and (rejected or gone)
    }


def show(found: "Reconciliation", rejected: dict[str, dict[str, int]], console: Console) -> None:
    """The comparison for people."""
    agreed = found.figures - len(found.differences)
    unexplained = len(found.open)
    settled = len(found.differences) - unexplained
    summary = f"{found.figures:,} figures: {agreed:,} agree, {settled:,} differ and are explained, "
    style = "bold red" if unexplained else "bold green"
    if found.differences:
        console.print(_table(sorted(found.differences, key=_most_open_first)[:SHOWN]))
        if len(found.differences) > SHOWN:
            console.print(f"… and {len(found.differences) - SHOWN:,} more; --json has all")
    console.print(Text.assemble(summary, (f"{unexplained:,} unexplained", style)))
    for hint in found.hints:
        console.print(Text(hint, style="yellow"))
    for source, counts in rejected.items():
        named = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count)
        console.print(Text(f"{source}: {named} records in all, not attributable to a campaign or a day", style="dim"))


def _most_open_first(difference: "Difference") -> "tuple[bool, int, Place, str]":
    return not difference.is_open, -abs(difference.unexplained), difference.place, difference.measure


def _table(differences: "list[Difference]") -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("campaign", overflow="fold")
    for name in ("day", "measure"):
        table.add_column(name, no_wrap=True)
    for name in ("theirs", "ours"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("explained by", overflow="fold")
    table.add_column("unexplained", justify="right", no_wrap=True)
    for difference in differences:
        place = difference.place
        parts = [f"{count:,} {why}" for why, count in difference.explained.items()]
        parts += [difference.remark] * bool(difference.remark)
        rest = f"{difference.unexplained:+,}" if difference.unexplained else "0"
        shown = f"{rest} (tolerated)" if difference.unexplained and difference.is_tolerated else rest
        table.add_row(
            Text(" ".join(filter(None, (place.campaign_id or "(organic)", place.currency)))),
            place.day,
            difference.measure,
            f"{difference.theirs:,}",
            f"{difference.ours:,}",
            ", ".join(parts) or "–",
            Text(shown, style="bold red" if difference.is_open else "green"),
        )
    return table


def _document(found: "Reconciliation", rejected: dict[str, dict[str, int]]) -> dict[str, object]:
    differences = [
        {**d.place._asdict(), **{k: v for k, v in d._asdict().items() if k != "place"}} for d in found.differences
    ]
    return {
        "figures": found.figures,
        "unexplained": len(found.open),
        "differences": differences,
        "hints": found.hints,
        "not_attributable": rejected,
    }
