"""`campaign-streams sessions start | end`: live sessions, over which campaigns may be paced."""

from typing import Annotated

import msgspec
import typer
from rich.text import Text

from streams.campaigns import CampaignSettings
from streams.commands.campaigns import publish, read_campaigns
from streams.commands.options import length_text, notes, out, prose, run, time_ms, time_text
from streams.errors import ConfigurationError
from streams.events import Rejected
from streams.settings import KafkaSettings, load_settings
from streams.signals import LiveSession, SessionState, decode_session
from streams.stages.pacing.periods import SessionClock
from streams.state.live_sessions import refusal
from streams.terms import PacingPeriod
from streams.topics import SESSIONS

app = typer.Typer(
    no_args_is_help=True,
    help="Live sessions: when they begin and end, for campaigns that are paced over them.",
    rich_markup_mode="rich",
)

Campaigns = Annotated[list[str], typer.Argument(metavar="CAMPAIGN…", help="Campaigns that promote the session.")]
Session = Annotated[str, typer.Option("--session", help="The live session's id.")]
Creator = Annotated[
    str | None, typer.Option("--creator", help="Its host: earlier sessions of the same host are the baseline.")
]
At = Annotated[
    str, typer.Option("--at", help="When it happened: a time, no further ahead than clocks may differ, or now.")
]


def start(
    campaigns: Campaigns,
    session: Session,
    creator: Creator = None,
    planned_end: Annotated[str | None, typer.Option("--planned-end", help="When it is planned to end.")] = None,
    at: At = "now",
) -> None:
    """Tell that a live session has begun, for each campaign that promotes it.

    A campaign with `pacing.period: live_session` spends `budget.session_micros` from now until the session ends, as
    soon as possible unless its pacing mode says otherwise. Times are ISO 8601, UTC where they name no offset.
    """
    begins_ms = time_ms("--at", at)
    planned_end_ms = None if planned_end is None else time_ms("--planned-end", planned_end)
    if planned_end_ms is not None and planned_end_ms <= begins_ms:
        raise ConfigurationError(
            f"--planned-end: {time_text(planned_end_ms)} is not after the begin; give a later time"
        )
    _tell(campaigns, SessionState.STARTED, session, creator, begins_ms, planned_end_ms)


def end(campaigns: Campaigns, session: Session, creator: Creator = None, at: At = "now") -> None:
    """Tell that a live session has ended, for each campaign that promoted it.

    What is left of the session's budget is not spent. An end that comes late is told with `--at TIME`. It ends this
    session only: where it never began, or another has begun since, nothing changes, and that is said.
    """
    _tell(campaigns, SessionState.ENDED, session, creator, time_ms("--at", at), None)


def _tell(
    campaigns: list[str],
    state: SessionState,
    session: str,
    creator: str | None,
    at_ms: int,
    planned_end_ms: int | None,
) -> None:
    settings = load_settings()
    told = [_checked(campaign, state, session, creator, at_ms, planned_end_ms) for campaign in dict.fromkeys(campaigns)]
    skew_ms = settings.parsed_rules().future_skew_ms
    _refuse_future(at_ms, skew_ms)
    doubts = run(_publish(settings.kafka, told, skew_ms))
    count = f"{len(told):,} campaign{'' if len(told) == 1 else 's'}"
    out().print(f"{session} {state} at {time_text(at_ms)} UTC, told to {count} ({SESSIONS})")
    for doubt in doubts:
        notes().print(Text(doubt, style="yellow"))


async def _publish(kafka: KafkaSettings, told: list[LiveSession], skew_ms: int) -> list[str]:
    """Publishes the records; returns what may be wrong with them, by what was known before."""
    from streams.jobs.generate import session_messages

    settings = {known.settings.campaign_id: known.settings for known in (await read_campaigns(kafka))[0]}
    earlier = await _read_sessions(kafka, {session.campaign_id for session in told}, skew_ms)
    await publish(kafka, session_messages(told))
    found = (doubt_of(s, settings.get(s.campaign_id), earlier.get(s.campaign_id, [])) for s in told)
    return [doubt for doubt in found if doubt]


async def _read_sessions(kafka: KafkaSettings, campaigns: set[str], skew_ms: int) -> dict[str, list[LiveSession]]:
    """What ads.sessions holds of these campaigns and workers have taken, in the order of their logs."""
    from streams.commands.topic_reading import whole_topic

    found: dict[str, list[LiveSession]] = {}
    async with whole_topic(kafka, SESSIONS) as records:
        async for _, record in records:
            session = decode_session(record.value)
            if isinstance(session, Rejected) or session.campaign_id not in campaigns:
                continue
            if refusal(session, record.timestamp, skew_ms) is None:
                found.setdefault(session.campaign_id, []).append(session)
    return found


def doubt_of(session: LiveSession, settings: CampaignSettings | None, earlier: list[LiveSession]) -> str:
    """Why a record will change nothing, with the remedy; empty: it will.

    `settings` is the campaign's latest version, None where it has none; `earlier` are the records before, as they
    were appended.
    """
    campaign, name = session.campaign_id, session.live_session_id
    if settings is None:
        return f"{campaign}: no campaign has this id; see `campaigns list`, or put its settings with `campaigns put`"
    if settings.pacing.period is not PacingPeriod.LIVE_SESSION:
        return f"{campaign}: not paced over live sessions; put pacing.period: live_session and budget.session_micros"
    clock = SessionClock()
    for each in sorted(earlier, key=lambda each: each.event_time_ms):
        clock.tell(each)
    is_latest = name == clock.session_id
    if session.state is SessionState.ENDED:
        if is_latest and clock.began_ms is not None:
            return ""
        if any(each.live_session_id == name and each.state is SessionState.STARTED for each in earlier):
            return f"{campaign}: {name} was over already, for {clock.session_id} has begun since"
        others = f" (the latest is {clock.session_id})" if clock.began_ms is not None else ""
        return f"{campaign}: {name} has not begun, so nothing ends{others}; check --session"
    if is_latest and clock.ended_ms is not None:
        return f"{campaign}: {name} has ended and does not begin again; give the session another id"
    if not is_latest and clock.began_ms is not None and session.event_time_ms < clock.began_ms:
        return (
            f"{campaign}: {clock.session_id} began later, at {time_text(clock.began_ms)} UTC, and goes on; check --at"
        )
    return ""


def _refuse_future(at_ms: int, skew_ms: int) -> None:
    if at_ms > time_ms("--at", "now") + skew_ms:
        raise ConfigurationError(
            f"--at: {time_text(at_ms)} UTC is further ahead than {length_text(skew_ms)} (rules.future_skew_ms), so "
            "workers would refuse it; tell of a session when it begins or ends"
        )


def _checked(
    campaign: str, state: SessionState, session: str, creator: str | None, at_ms: int, planned_end_ms: int | None
) -> LiveSession:
    document = {
        "campaign_id": campaign,
        "live_session_id": session,
        "creator_id": creator,
        "state": state,
        "event_time_ms": at_ms,
        "planned_end_ms": planned_end_ms,
    }
    try:
        return msgspec.convert(document, LiveSession)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"sessions: {error}; mend the option or argument") from None


app.command("start", help=prose(start.__doc__))(start)
app.command("end", help=prose(end.__doc__))(end)
