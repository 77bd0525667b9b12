"""`sessions start | end`: what is refused, and what is said of records that change nothing."""

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.commands.sessions import doubt_of
from streams.errors import ConfigurationError
from streams.signals import LiveSession
from streams.terms import Pacing, PacingPeriod
from tests.unit.pacing_world import HOUR, MONDAY, campaign, live


@pytest.mark.parametrize("word", ["start", "end"])
def test_a_time_that_workers_would_refuse_is_refused_with_its_remedy(word: str) -> None:
    """Nothing is published: nobody is asked for a broker."""
    result = CliRunner().invoke(app, ("sessions", word, "c1", "--session", "s1", "--at", "2099-01-01"))
    assert isinstance(result.exception, ConfigurationError)
    assert "2099-01-01 00:00:00 UTC is further ahead than 5 min" in str(result.exception)
    assert "when it begins or ends" in str(result.exception)


# What changes nothing

OVER_SESSIONS = campaign(daily=None, session=50, pacing=Pacing(period=PacingPeriod.LIVE_SESSION))
EARLIER = [live(MONDAY, name="s1"), live(MONDAY + 2 * HOUR, MONDAY + 2 * HOUR, is_over=True, name="s1")]
"""The campaign c-1 had a session."""


def started(name: str, hour: int) -> LiveSession:
    return live(MONDAY + hour * HOUR, name=name)


def ended(name: str, hour: int) -> LiveSession:
    return live(MONDAY, MONDAY + hour * HOUR, is_over=True, name=name)


def test_a_record_that_changes_something_raises_no_doubt() -> None:
    assert doubt_of(started("s1", 0), OVER_SESSIONS, []) == ""
    assert doubt_of(ended("s1", 1), OVER_SESSIONS, EARLIER[:1]) == ""
    assert doubt_of(started("s1", 1), OVER_SESSIONS, EARLIER[:1]) == ""  # another planned end
    assert doubt_of(started("s2", 3), OVER_SESSIONS, EARLIER) == ""


def test_a_campaign_that_is_unknown_or_not_paced_over_sessions_is_told() -> None:
    assert doubt_of(started("s1", 0), None, []).startswith("c-1: no campaign has this id; see `campaigns list`")
    assert doubt_of(started("s1", 0), campaign(), []).startswith("c-1: not paced over live sessions; put pacing.period")


@pytest.mark.parametrize(
    ("record", "earlier", "told"),
    [
        (ended("s1", 1), [], "c-1: s1 has not begun, so nothing ends; check --session"),
        (ended("typo", 1), EARLIER[:1], "c-1: typo has not begun, so nothing ends (the latest is s1); check --session"),
        (ended("s1", 4), [*EARLIER[:1], started("s2", 3)], "c-1: s1 was over already, for s2 has begun since"),
        (started("s1", 3), EARLIER, "c-1: s1 has ended and does not begin again; give the session another id"),
        (
            started("s0", 1),
            [started("s2", 3)],
            "c-1: s2 began later, at 2026-03-02 03:00:00 UTC, and goes on; check --at",
        ),
    ],
)
def test_a_session_that_is_not_as_it_is_told_is_named(
    record: LiveSession, earlier: list[LiveSession], told: str
) -> None:
    assert doubt_of(record, OVER_SESSIONS, earlier) == told
    assert doubt_of(record, OVER_SESSIONS, earlier[::-1]) == told  # times decide, not the order of the log
