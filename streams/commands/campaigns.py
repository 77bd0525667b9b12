"""`campaign-streams campaigns put | list`: campaign settings, of which the topic ads.campaigns keeps every version."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, NoReturn

import msgspec
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from streams.campaigns import CampaignSettings, decode_campaign
from streams.commands.options import notes, out, print_json, prose, run, time_text
from streams.documents import Problem
from streams.events import Rejected
from streams.settings import KafkaSettings, load_settings
from streams.terms import Budget, PacingMode, PacingPeriod
from streams.topics import CAMPAIGNS

if TYPE_CHECKING:
    from streams.ports import Outbox, Outgoing

EPILOG = """
A file holds one campaign, or several under `campaigns`:

  campaigns:
  - {campaign_id: c1, currency: CNY, time_zone: Asia/Shanghai}

With a budget, a campaign is paced:

  - {campaign_id: c2, currency: CNY, billing: {model: cpc, price_micros: 800000}, budget: {daily_micros: 500000000}}

Fields: schemas/campaign_settings.json. Times may be written as dates (flight_start, flight_end, valid_from).
"""

app = typer.Typer(
    no_args_is_help=True,
    help="Campaign settings: names, currencies, flights, billing, budgets, pacing and alerts, in versions.",
    rich_markup_mode="rich",
)


@dataclass
class KnownCampaign:
    """A campaign in the topic: its latest version, and where it stands."""

    settings: CampaignSettings
    versions: int
    appended_ms: int
    partition: int
    offset: int


class KnownCampaigns(NamedTuple):
    """What the topic holds, as workers take it: a campaign keeps the currency of its first version."""

    campaigns: list[KnownCampaign]
    """By id."""
    refused: list[CampaignSettings]
    """The latest version with another currency of each campaign that has one: no worker takes it."""
    broken: int
    """Records that are no settings."""


def put(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML, TOML or JSON.")],
    check: Annotated[bool, typer.Option("--check", help="Validate only; needs no broker.")] = False,
) -> None:
    """Append settings to ads.campaigns, as new versions.

    The whole file is checked first, and every fault of it is shown at once (exit code 2): then nothing is appended.
    Where the settings name routes (delivery.routes), alerts may name no other.
    A version holds from its valid_from on, at the earliest from when it is appended. Other campaigns stay as they
    are. A campaign keeps the currency of its first version; one with another is a fault here, and refused by workers.
    """
    from streams.jobs.campaign_files import read_campaign_file
    from streams.jobs.generate import campaign_messages

    settings = load_settings()
    found = read_campaign_file(file, settings.delivery.routes)
    if found.problems:
        refused(file, found.problems)
    count = _campaigns(len(found.campaigns))
    if check:
        out().print(f"{file}: {count} without a fault", soft_wrap=True)
        return
    known = {
        each.settings.campaign_id: each.settings.currency for each in run(read_campaigns(settings.kafka)).campaigns
    }
    faults = _changed_currencies(found.campaigns, known)
    if faults:
        refused(file, faults)
    run(publish(settings.kafka, campaign_messages(found.campaigns)))
    out().print(f"{count} appended to {CAMPAIGNS} as new versions")
    if found.accounts:
        notes().print(f"the {len(found.accounts):,} accounts of this file were checked only; use `accounts put`")


def _changed_currencies(versions: list[CampaignSettings], known: dict[str, str]) -> list[Problem]:
    """Versions in another currency than the campaign's first: the topic's, or that of the file itself."""
    first = dict(known)
    changed = [v for v in versions if first.setdefault(v.campaign_id, v.currency) != v.currency]
    return [
        Problem(
            f"{version.campaign_id}.currency",
            f"a campaign keeps the currency of its first version, and that is {first[version.campaign_id]}; "
            f"for {version.currency} take another campaign_id",
        )
        for version in changed
    ]


def refused(file: Path, problems: list[Problem]) -> NoReturn:
    """Shows every fault of a file, and ends with exit code 2."""
    console = notes()
    faults = f"{len(problems):,} fault{'' if len(problems) == 1 else 's'}"
    console.print(Text(f"{file}: {faults}; nothing was appended", style="bold red"))
    for problem in problems:
        console.print(Text(f"  {problem.path or '(file)'}: {problem.problem}"), soft_wrap=True)
    raise typer.Exit(2)


def _campaigns(count: int) -> str:
    return f"{count:,} campaign{'' if count == 1 else 's'}"


async def append(outbox: "Outbox", campaigns: list[CampaignSettings]) -> None:
    """Publishes the versions, in order."""
    from streams.jobs.generate import campaign_messages

    await _in_batches(outbox, campaign_messages(campaigns))


async def _in_batches(outbox: "Outbox", records: "Sequence[Outgoing]") -> None:
    from streams.jobs.load import BATCH_RECORDS, publish_patiently

    for start in range(0, len(records), BATCH_RECORDS):
        await publish_patiently(outbox, records[start : start + BATCH_RECORDS])


async def publish(kafka: KafkaSettings, records: "Sequence[Outgoing]") -> None:
    """Publishes records in order, to topics that are as they must be.

    Raises:
        ConfigurationError, BrokerUnavailable: topics are missing or unequal, or nobody answers.
    """
    from streams.adapters.kafka_admin import partitions_for_worker
    from streams.adapters.kafka_outbox import KafkaOutbox

    await partitions_for_worker(kafka)
    outbox = KafkaOutbox(kafka)
    await outbox.start()
    try:
        await _in_batches(outbox, records)
    finally:
        await outbox.stop()


def list_campaigns(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print whole settings, as JSON that can be put again.")
    ] = False,
) -> None:
    """Show the latest version of every campaign in ads.campaigns.

    Latest is what was appended last; `holds from` says when it takes effect, if that is still to come. Below stand
    versions that workers refuse (they change the currency), and how many records are no settings.
    """
    found = run(read_campaigns(load_settings().kafka))
    if as_json:
        print_json([_document(c) for c in found.campaigns])
    else:
        _show(found.campaigns)
    for version in found.refused:
        notes().print(
            f"{version.campaign_id}: a later version in {version.currency} is refused, for a campaign keeps its first "
            "currency; put it again in that one",
            soft_wrap=True,
        )
    if found.broken:
        notes().print(f"{found.broken:,} records of {CAMPAIGNS} are no settings (dead-letters list tells why)")


async def read_campaigns(kafka: KafkaSettings) -> KnownCampaigns:
    """Every campaign with its latest version that workers take.

    Raises:
        ConfigurationError, BrokerUnavailable: see `whole_topic`.
    """
    from streams.commands.topic_reading import whole_topic

    known: dict[str, KnownCampaign] = {}
    refused: dict[str, CampaignSettings] = {}
    broken = 0
    async with whole_topic(kafka, CAMPAIGNS) as records:
        async for partition, record in records:
            settings = decode_campaign(record.value)
            if isinstance(settings, Rejected):
                broken += 1
                continue
            before = known.get(settings.campaign_id)
            if before is not None and before.settings.currency != settings.currency:
                refused[settings.campaign_id] = settings
                continue
            refused.pop(settings.campaign_id, None)  # mended by this version
            versions = before.versions + 1 if before else 1
            known[settings.campaign_id] = KnownCampaign(settings, versions, record.timestamp, partition, record.offset)
    return KnownCampaigns([known[name] for name in sorted(known)], [refused[name] for name in sorted(refused)], broken)


def _holds_from_ms(campaign: KnownCampaign) -> int:
    return max(campaign.appended_ms, campaign.settings.valid_from_ms or 0)


def _document(campaign: KnownCampaign) -> dict[str, object]:
    from streams.jobs.campaign_files import LISTED

    settings: dict[str, object] = msgspec.to_builtins(campaign.settings)
    told = (campaign.versions, _holds_from_ms(campaign), campaign.partition, campaign.offset)
    return settings | dict(zip(LISTED, told, strict=True))


def _show(known: list[KnownCampaign]) -> None:
    if not known:
        out().print(f"{CAMPAIGNS} is empty; `campaign-streams campaigns put FILE` appends to it")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), caption="Times are UTC.")
    table.caption_justify = "left"
    for name in ("campaign", "name", "currency", "time zone", "goal", "budget", "pacing", "flight", "holds from"):
        table.add_column(name, overflow="fold")
    table.columns[-1].no_wrap = True
    table.add_column("versions", justify="right")
    for campaign in known:
        settings = campaign.settings
        who = (settings.campaign_id, settings.name, settings.currency, settings.time_zone, settings.goal or "–")
        cells = (*who, _budget(settings), _pacing(settings))
        table.add_row(
            *map(Text, (*cells, _flight(settings), _minute(_holds_from_ms(campaign)))), f"{campaign.versions:,}"
        )
    out().print(table)


def money(micros: int) -> str:
    """Micros as an amount: whole units without decimals."""
    units, rest = divmod(abs(micros), 1_000_000)
    text = f"{units:,}" if not rest else f"{units:,}.{rest:06d}".rstrip("0")
    return f"-{text}" if micros < 0 else text


def _budget(settings: CampaignSettings) -> str:
    budget = settings.budget
    amounts = {"a day": budget.daily_micros, "in total": budget.total_micros, "a session": budget.session_micros}
    told = [f"{money(micros)} {name}" for name, micros in amounts.items() if micros is not None]
    told += [f"shares {budget.shared_budget_id}"] if budget.shared_budget_id else []
    return ", ".join(told) or "–"


def _pacing(settings: CampaignSettings) -> str:
    if settings.budget == Budget():
        return "–"
    is_session = settings.pacing.period is PacingPeriod.LIVE_SESSION
    usual = PacingMode.AS_SOON_AS_POSSIBLE if is_session else PacingMode.TRAFFIC_SHAPED
    return (settings.pacing.mode or usual).replace("_", " ")


def _flight(settings: CampaignSettings) -> str:
    start, end = settings.flight_start_ms, settings.flight_end_ms
    if start is None or end is None:
        return f"from {_minute(start)}" if start is not None else f"until {_minute(end)}" if end is not None else "open"
    return f"{_minute(start)} to {_minute(end)}"


def _minute(at_ms: int) -> str:
    return time_text(at_ms)[:16]


app.command("put", help=prose(put.__doc__), epilog=prose(EPILOG))(put)
app.command("list", help=prose(list_campaigns.__doc__))(list_campaigns)
