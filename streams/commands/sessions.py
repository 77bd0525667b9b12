"""`campaign-streams sessions start | end`: live sessions, over which campaigns may be paced."""

from typing import Annotated

import msgspec
import typer

from streams.commands.campaigns import publish
from streams.commands.options import length_text, out, prose, run, time_ms, time_text
from streams.errors import ConfigurationError
from streams.settings import load_settings
from streams.signals import LiveSession, SessionState
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

    What is left of the session's budget is not spent. An end that comes late is told with `--at TIME`.
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
    from streams.jobs.generate import session_messages

    settings = load_settings()
    told = [_checked(campaign, state, session, creator, at_ms, planned_end_ms) for campaign in dict.fromkeys(campaigns)]
    _refuse_future(at_ms, settings.parsed_rules().future_skew_ms)
    run(publish(settings.kafka, session_messages(told)))
    count = f"{len(told):,} campaign{'' if len(told) == 1 else 's'}"
    out().print(f"{session} {state} at {time_text(at_ms)} UTC, told to {count} ({SESSIONS})")


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
