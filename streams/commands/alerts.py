"""`campaign-streams alerts tail | ack | snooze | test | routes`: what was found, silencing it, trying the routes."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich.text import Text

from streams.commands.options import duration_ms, notes, out, prose, run, time_ms, time_text
from streams.commands.tables import plain_table
from streams.errors import ConfigurationError
from streams.events import Rejected
from streams.settings import RouteSettings, Settings, load_settings
from streams.signals import Alert, AlertState
from streams.stages.delivery.messages import Action, AlertCommand, decode_alert
from streams.topics import ALERT_COMMANDS, ALERTS

if TYPE_CHECKING:
    from streams.adapters.delivery_channels import Attempt
    from streams.adapters.kafka_fetch import PartitionReader

EPILOG: Final = """
Examples:

  campaign-streams alerts tail --state firing --follow
  campaign-streams alerts ack --cause account:a-7 --by li.wei --why "topped up at noon"
  campaign-streams alerts snooze --campaign c1 --for 2h --by li.wei --why "creative is being replaced"
"""
DEFAULT_SHOWN: Final = 50
POLL_S: Final = 0.3
LONGEST_SNOOZE_MS: Final = 30 * 86_400_000
COLUMNS: Final = ("decided (UTC)", "state", "kind", "campaign", "cause", "alert", "what")

app = typer.Typer(
    no_args_is_help=True,
    help="Alerts: watch them, silence them, and try the routes by which they are delivered.",
    rich_markup_mode="rich",
)

AlertArgument = Annotated[str | None, typer.Argument(metavar="[ALERT_ID]", help="One alert, as `alerts tail` shows.")]
CauseOption = Annotated[str | None, typer.Option(help="All alerts of this cause, for example account:a-7.")]
CampaignOption = Annotated[str | None, typer.Option(help="All alerts of this campaign: its id, or its name.")]
RouteOption = Annotated[str | None, typer.Option(help="Only on the way to this receiver; without: to all.")]
ByOption = Annotated[str, typer.Option(help="Who says so: it is kept with the command.")]
WhyOption = Annotated[str, typer.Option(help="Why: it is kept with the command.")]


# Looking


def tail(
    state: Annotated[AlertState | None, typer.Option(help="Only alerts that are in this state now.")] = None,
    campaign: Annotated[str | None, typer.Option(help="Only this campaign: its id, or its name.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Alerts shown, those that changed last.")] = DEFAULT_SHOWN,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each change, until Ctrl-C.")] = False,
) -> None:
    """Show alerts, each with its latest state: what was found, of which campaign, and why.

    Read from ads.alerts, which keeps a week; ClickHouse keeps the history. With --follow each further change is a
    line, tab-separated where the output is no terminal.
    """
    try:
        run(_tail(load_settings(), state, campaign, limit, follow))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _tail(settings: Settings, state: AlertState | None, campaign: str | None, limit: int, follow: bool) -> None:
    from streams.adapters.kafka_fetch import PartitionReader

    reader = PartitionReader(settings.kafka, ALERTS)
    await reader.start()
    try:
        starts = [await reader.beginning(partition) for partition in range(reader.partitions)]
        offsets = {}
        book: dict[str, Alert] = {}
        for partition, start in enumerate(starts):
            found, offsets[partition] = await _read_on(reader, partition, start)
            keep_latest(book, found)
        _show([alert for alert in book.values() if _is_wanted(alert, state, campaign)], limit, state, campaign)
        while follow:
            for partition, offset in offsets.items():
                found, offsets[partition] = await _read_on(reader, partition, offset)
                for alert in keep_latest(book, found):
                    if _is_wanted(alert, state, campaign):
                        out().print(Text("\t".join(_cells(alert))), soft_wrap=True)
            await asyncio.sleep(POLL_S)
    finally:
        await reader.stop()


async def _read_on(reader: "PartitionReader", partition: int, offset: int) -> tuple[list[Alert], int]:
    """Alerts from an offset to the end, and where to go on."""
    found: list[Alert] = []
    while True:
        fetched = await reader.fetch(partition, offset)
        decoded = (decode_alert(record.value) for record in fetched.records)
        found += [alert for alert in decoded if not isinstance(alert, Rejected)]
        is_at_end = fetched.next_offset >= fetched.high_watermark or fetched.next_offset == offset
        offset = fetched.next_offset
        if is_at_end:
            return found, offset


def keep_latest(book: dict[str, Alert], alerts: Sequence[Alert]) -> list[Alert]:
    """Keeps the highest sequence of each alert; returns the changes that are new."""
    new = []
    for alert in alerts:
        before = book.get(alert.alert_id)
        if before is None or (alert.sequence, alert.changed_ms) > (before.sequence, before.changed_ms):
            book[alert.alert_id] = alert
            new.append(alert)
    return new


def _is_wanted(alert: Alert, state: AlertState | None, campaign: str | None) -> bool:
    return (state is None or alert.state is state) and campaign in (None, alert.campaign_id, alert.campaign_name)


def _show(alerts: list[Alert], limit: int, state: AlertState | None, campaign: str | None) -> None:
    if not alerts:
        chosen = [f"state {state}"] * (state is not None) + [f"campaign {campaign}"] * (campaign is not None)
        out().print(f"no alerts in {ALERTS}{' with ' if chosen else ''}{' and '.join(chosen)}")
        return
    alerts.sort(key=lambda alert: (alert.decided_ms, alert.alert_id))
    table = plain_table(*COLUMNS)
    for alert in alerts[-limit:]:
        style = "bold red" if alert.state is AlertState.FIRING else "dim"
        table.add_row(*map(Text, _cells(alert)), style=style)
    table.caption = f"{len(alerts) - limit:,} older ones not shown; use --limit." if len(alerts) > limit else None
    out().print(table)


def _cells(alert: Alert) -> tuple[str, ...]:
    text = alert.text.zh if alert.language == "zh" else alert.text.en
    name = f"{alert.campaign_name} ({alert.campaign_id})" if alert.campaign_name else alert.campaign_id
    campaign = name or f"({alert.audience})"
    return time_text(alert.decided_ms), alert.state, alert.kind, campaign, alert.cause, alert.alert_id, text


# Silencing


def ack(
    by: ByOption,
    alert_id: AlertArgument = None,
    cause: CauseOption = None,
    campaign: CampaignOption = None,
    route: RouteOption = None,
    why: WhyOption = "",
) -> None:
    """Acknowledge alerts: no more messages of them until they end, and their ends come with the digest.

    What is named must all match, and must fire now; alerts that begin later are told as ever. A message that is under
    way already may still arrive.
    """
    command = _command(Action.ACK, alert_id, cause, campaign, route, by, why)
    matching = run(_silence(load_settings(), command, must_match=True))
    out().print(f"{matching:,} firing alert{'' if matching == 1 else 's'} acknowledged by {by}")


def snooze(
    by: ByOption,
    alert_id: AlertArgument = None,
    cause: CauseOption = None,
    campaign: CampaignOption = None,
    route: RouteOption = None,
    length: Annotated[str | None, typer.Option("--for", help="How long: 30m, 2h, 1d. 1s ends a snooze.")] = None,
    until: Annotated[str | None, typer.Option(help="Until when: 2026-11-02T20:00+08:00.")] = None,
    why: WhyOption = "",
) -> None:
    """Tell nothing of what matches until a time, alerts that are yet to begin included.

    Behind it, what still fires is told; what fired and ended meanwhile comes with the digest. A snooze of exactly the
    same target replaces the one before. Alerts older than delivery.lookback_ms are told no more, whatever held them.
    """
    if (length is None) == (until is None):
        raise ConfigurationError("alerts snooze: give either --for 2h or --until TIME")
    now_ms = time_ms("--until", "now")
    until_ms = now_ms + duration_ms("--for", length) if length else time_ms("--until", until or "")
    if until_ms > now_ms + LONGEST_SNOOZE_MS:
        raise ConfigurationError("alerts snooze: at most 30 days; give an earlier time")
    command = _command(Action.SNOOZE, alert_id, cause, campaign, route, by, why, until_ms)
    matching = run(_silence(load_settings(), command, must_match=False))
    what = f"snoozed by {by} until {time_text(until_ms)} UTC" if until_ms > now_ms else f"the snooze is ended by {by}"
    out().print(f"{what}; {matching:,} alert{'' if matching == 1 else 's'} fire{'s' if matching == 1 else ''} now")


def _command(
    action: Action,
    alert_id: str | None,
    cause: str | None,
    campaign: str | None,
    route: str | None,
    by: str,
    why: str,
    until_ms: int | None = None,
) -> AlertCommand:
    """Checked before anything is connected to."""
    from streams.stages.delivery.messages import MAX_NOTE, command_faults

    command = AlertCommand(
        action=action,
        alert_id=alert_id,
        campaign_id=campaign,
        cause=cause,
        route=route,
        until_ms=until_ms,
        by=by.strip()[:128],
        why=why[:MAX_NOTE],
        at_ms=time_ms("now", "now"),
    )
    if not command.by:
        raise ConfigurationError(f"alerts {action}: --by is empty; say who you are")
    if command_faults(command):
        raise ConfigurationError(f"alerts {action}: name an ALERT_ID, or give --cause, --campaign or --route")
    if route is not None:
        _route(load_settings(), route)
    return command


async def _silence(settings: Settings, command: AlertCommand, must_match: bool) -> int:
    """Appends the command; how many alerts that fire now it is about."""
    from streams.adapters.kafka_outbox import KafkaOutbox
    from streams.commands.topic_reading import whole_topic
    from streams.ports import Outgoing

    book: dict[str, Alert] = {}
    async with whole_topic(settings.kafka, ALERTS) as records:
        async for _, record in records:
            alert = decode_alert(record.value)
            if not isinstance(alert, Rejected):
                keep_latest(book, [alert])
    firing = [alert for alert in book.values() if alert.state is AlertState.FIRING]
    command = _by_id(command, book.values())
    matching = sum(command.covers(alert, command.route or "") for alert in firing)
    if must_match and not matching:
        raise ConfigurationError(
            f"alerts {command.action}: no alert that fires matches; `campaign-streams alerts tail --state firing` "
            "shows what does"
        )
    key = "|".join(part or "" for part in command.target).encode()
    outbox = KafkaOutbox(settings.kafka)
    await outbox.start()
    try:
        await outbox.publish([Outgoing(ALERT_COMMANDS, None, key, msgspec.json.encode(command))])
    finally:
        await outbox.stop()
    return matching


def _by_id(command: AlertCommand, known: Iterable[Alert]) -> AlertCommand:
    """The command with its campaign's id, where it gives its name.

    Raises:
        ConfigurationError: several campaigns have that name.
    """
    given = command.campaign_id
    if given is None:
        return command
    campaigns = {alert.campaign_id: alert.campaign_name for alert in known}
    if given in campaigns:
        return command
    ids = sorted(campaign for campaign, name in campaigns.items() if name == given)
    if len(ids) > 1:
        raise ConfigurationError(f"several campaigns are named {given!r}; give an id: {', '.join(ids)}")
    if not ids:
        notes().print(f"no alert of a campaign {given!r} is known so far: it must be the campaign's id")
        return command
    return msgspec.structs.replace(command, campaign_id=ids[0])


# Routes


def try_route(
    route: Annotated[str, typer.Argument(metavar="ROUTE", help="A route of the settings; `alerts routes` lists them.")],
    language: Annotated[str | None, typer.Option(help="en or zh; without: the route's, or en.")] = None,
) -> None:
    """Send a message that is clearly marked as a test through a route, and say what happened.

    One attempt; needs no broker. Exit code 1 when it was not taken. It counts against no cap and leaves no receipt.
    With delivery.dry_run nothing is sent.
    """
    settings = load_settings()
    found = _route(settings, route)
    chosen = language or found.language or "en"
    if chosen not in ("en", "zh"):
        raise ConfigurationError(f"--language: {chosen!r} is neither en nor zh")
    attempt = run(_try(settings, route, chosen))
    from streams.adapters.delivery_channels import Delivered, Refused

    if isinstance(attempt, Delivered):
        out().print(f"{route}: delivered, {attempt.detail}")
        return
    what = "refused for good" if isinstance(attempt, Refused) else "not delivered, it would be tried again"
    notes().print(f"{route}: {what}: {attempt.detail}")
    raise typer.Exit(1)


async def _try(settings: Settings, name: str, language: str) -> "Attempt":
    from streams.adapters.delivery_routes import channel_of
    from streams.stages.delivery.text import trial_message

    channel = channel_of(name, settings.delivery.routes[name], settings.delivery)
    try:
        return await channel.send(trial_message(name, language, time_ms("now", "now")))
    finally:
        await channel.close()


def _route(settings: Settings, name: str) -> RouteSettings:
    found = settings.delivery.routes.get(name)
    if found is None:
        known = ", ".join(sorted(settings.delivery.routes))
        remedy = f"known are {known}" if known else f"write it as [delivery.routes.{name}], with url and secret"
        raise ConfigurationError(f"there is no route {name}; {remedy}")
    return found


def routes() -> None:
    """List the routes with whom they serve, their addresses and secrets masked."""
    from streams.adapters.delivery_routes import masked_url, plan_of

    delivery = load_settings().delivery
    if not delivery.routes:
        out().print("no routes: nobody is told. Write one as [delivery.routes.NAME], with url and secret")
        return
    table = plain_table("route", "kind", "to", "serves", "language", "an hour", "digest")
    for plan in plan_of(delivery).routes:
        route = delivery.routes[plan.name]
        digest = f"daily at {plan.digest_hour}:00 {plan.time_zone}" if plan.digest == "daily" else plan.digest
        cells = (plan.name, route.kind, masked_url(route.url.get_secret_value()), _served(plan.name, route))
        table.add_row(*map(Text, (*cells, plan.language or "campaigns'", f"≤ {plan.hourly_cap}", digest)))
    off = ["delivery.enabled is false: nothing is delivered. "] * (not delivery.enabled)
    off += ["delivery.dry_run is true: messages are only logged."] * delivery.dry_run
    table.caption = "".join(off) or None
    out().print(table)


def _served(name: str, route: RouteSettings) -> str:
    parts = [f"{kind} {', '.join(ids)}" for kind, ids in _ids(route) if ids]
    parts += ["operations"] * route.operations + ["all others"] * (name == "default")
    return "; ".join(parts) or "campaigns that name it"


def _ids(route: RouteSettings) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return ("advertisers", route.advertisers), ("agencies", route.agencies)


app.command("tail", help=prose(tail.__doc__), epilog=prose(EPILOG))(tail)
app.command("ack", help=prose(ack.__doc__), epilog=prose(EPILOG))(ack)
app.command("snooze", help=prose(snooze.__doc__), epilog=prose(EPILOG))(snooze)
app.command("test", help=prose(try_route.__doc__))(try_route)
app.command("routes", help=prose(routes.__doc__))(routes)
