"""Live sessions that overlap, that are announced, that are ended by mistake, and those of a wrong year."""

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.events import Reason
from streams.records import Entry
from streams.signals import LiveSession, RateReason, SessionState
from streams.stages.pacing.periods import SessionClock
from streams.state import live_sessions
from streams.state.checkpoint import capture, restore
from streams.state.live_sessions import LiveSessions
from streams.state.partition import PartitionState
from streams.terms import Pacing, PacingMode, PacingPeriod
from streams.topics import SESSIONS
from tests.unit.evening import STEP, Evening, rate_of
from tests.unit.given import HOUR, MINUTE, T0, Document, batch, quick_rules, record
from tests.unit.pacing_world import MONDAY, Loop, campaign, live

LIVE: Document = {"budget": {"session_micros": 10_000_000}, "pacing": {"period": "live_session"}}


def told(evening: Evening, name: str, state: str, at_ms: int | None = None) -> None:
    """A record that is appended now; it tells of now unless told otherwise."""
    document = {
        "campaign_id": evening.campaign,
        "live_session_id": name,
        "state": state,
        "event_time_ms": evening.at_ms if at_ms is None else at_ms,
    }
    at = evening.state.position(SESSIONS)
    evening.state.apply(batch(SESSIONS, at, [record(at, document, evening.at_ms)]))


def steps(evening: Evening, count: int = 3) -> float:
    for _ in range(count):
        evening.step()
    return rate_of(evening)


def running(name: str = "s1") -> Evening:
    """A campaign whose live session runs."""
    evening = Evening(**LIVE)
    assert steps(evening) == 0.0
    told(evening, name, "started")
    assert steps(evening) > 0.0
    return evening


# Whom a record is about


def test_the_end_of_another_session_does_not_stop_the_one_that_runs() -> None:
    evening = running()
    told(evening, "last-weeks-show", "ended")
    assert steps(evening) > 0.0
    told(evening, "s2", "started")
    told(evening, "s1", "ended")  # tonight's has begun; the earlier one is ended a little late
    assert steps(evening) > 0.0
    told(evening, "s2", "ended")
    assert steps(evening) == 0.0
    assert evening.controls[-1].reason is RateReason.ENDED


def test_a_begin_that_is_told_late_does_not_take_the_place_of_a_later_session() -> None:
    evening = running("s2")
    began_ms = evening.controls[-1].period_start_ms
    told(evening, "s1", "started", began_ms - MINUTE)
    assert steps(evening) > 0.0
    assert evening.controls[-1].period_start_ms == began_ms
    told(evening, "s1", "ended")
    assert steps(evening) > 0.0


def test_sessions_that_begin_and_end_between_two_looks_are_each_taken() -> None:
    evening = running("s1")
    for name, state in (("s1", "ended"), ("s2", "started"), ("s2", "ended")):
        told(evening, name, state)
    assert steps(evening) == 0.0
    assert evening.controls[-1].reason is RateReason.ENDED


def test_a_hosts_minutes_are_not_taken_for_those_of_the_next_host() -> None:
    even = Pacing(mode=PacingMode.EVEN, period=PacingPeriod.LIVE_SESSION)
    loop = Loop(campaign(daily=None, session=50, pacing=even))
    loop.more = {"session": live(MONDAY)}
    loop.run(30 * MINUTE)
    loop.more = {"session": msgspec.structs.replace(live(loop.now, name="live-2"), creator_id="h-2")}
    loop.run(5 * MINUTE)
    assert loop.shape.sessions.is_known("h-1")
    assert not loop.shape.sessions.is_known("h-2")


# Ahead of its time


def test_a_session_that_is_announced_changes_nothing_before_its_time() -> None:
    evening = running()
    began_ms = evening.at_ms + 4 * MINUTE
    told(evening, "s2", "started", began_ms)
    while evening.at_ms < began_ms - STEP:
        assert steps(evening, 1) > 0.0
        assert evening.controls[-1].period_start_ms < began_ms
    assert steps(evening) > 0.0
    assert evening.controls[-1].period_start_ms == began_ms


@pytest.mark.parametrize("state", ["started", "ended"])
def test_a_record_of_a_wrong_year_is_refused_with_its_reason_and_blocks_nothing(state: str) -> None:
    evening = running()
    told(evening, "s1" if state == "ended" else "typo", state, T0 + 36 * 365 * 24 * HOUR)
    letters = evening.step().dead_letters
    assert [(letter.reason, letter.path) for letter in letters] == [(Reason.FUTURE.value, "$.event_time_ms")]
    assert evening.state.notices[SESSIONS].ledger == {(Entry.COUNTED.value, ""): 1, (Entry.REJECTED.value, "future"): 1}
    assert steps(evening) > 0.0
    told(evening, "s2", "started")
    assert steps(evening) > 0.0
    told(evening, "s2", "ended")
    assert steps(evening) == 0.0


def test_the_skew_guard_of_events_is_that_of_sessions() -> None:
    evening = running()
    skew_ms = evening.state.rules.future_skew_ms
    told(evening, "s2", "started", evening.at_ms + skew_ms)
    told(evening, "s3", "started", evening.at_ms + skew_ms + 1)
    assert len(evening.step().dead_letters) == 1


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_changed_skew_guard_holds_for_sessions_too_and_after_a_restart(is_restarted: bool) -> None:
    evening = running()
    skew_ms = evening.state.rules.future_skew_ms * 2
    evening.fed.tick(rules=quick_rules(future_skew_ms=skew_ms))
    if is_restarted:
        again = PartitionState(0, 1, 0, quick_rules())
        restore(again, capture(evening.state, [], {}).changed)
        evening.fed.state = again
    told(evening, "s2", "started", evening.at_ms + skew_ms)
    told(evening, "s3", "started", evening.at_ms + skew_ms + 1)
    assert len(evening.step().dead_letters) == 1


def test_what_waits_survives_a_restart() -> None:
    evening = running()
    began_ms = evening.at_ms + 2 * MINUTE
    told(evening, "s2", "started", began_ms)
    steps(evening, 1)
    again = PartitionState(0, 1, 0, quick_rules())
    restore(again, capture(evening.state, [], {}).changed)
    evening.fed.state = again
    assert steps(evening, 15) > 0.0
    assert evening.controls[-1].period_start_ms == began_ms


# The records that wait


def test_beyond_their_number_the_earliest_gives_way_and_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_sessions, "MAX_WAITING", 2)
    sessions = LiveSessions()
    assert [sessions.take(live(at, name=f"s{at}")) for at in (30, 10, 20)] == [True, True, False]
    assert [session.event_time_ms for session in sessions.happened("c-1", 100)] == [20, 30]


def test_beyond_their_number_no_more_campaigns_have_anything_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_sessions, "MAX_CAMPAIGNS", 1)
    sessions = LiveSessions()
    assert sessions.take(live(10))
    assert not sessions.take(msgspec.structs.replace(live(10), campaign_id="c-2"))
    assert sessions.happened("c-1", 10)
    assert sessions.take(msgspec.structs.replace(live(10), campaign_id="c-2"))


def history(random: Random) -> list[LiveSession]:
    """Sessions that overlap, with their ends, wrong ones too; in the order of their times."""
    found, at = [], MONDAY
    for _ in range(30):
        at += random.choice((0, 1, MINUTE))
        name = f"s{random.randint(1, 5)}"
        found.append(live(at, at, is_over=True, name=name) if random.random() < 0.5 else live(at, name=name))
    return found


def clocks(records: list[LiveSession], ahead: Random | None, restart_at: int = -1) -> list[object]:
    """The clock at the time of each record, where each is told when it happens, or anywhere before that."""
    sessions, clock, seen = LiveSessions(), SessionClock(), []
    told = 0
    for number, happening in enumerate(records):
        if number == restart_at:
            packed, sessions = msgspec.msgpack.encode(sessions.snapshot()), LiveSessions()
            sessions.restore(msgspec.msgpack.decode(packed))
        until = max(told, number + 1 if ahead is None else ahead.randint(number + 1, len(records)))
        for each in records[told:until]:
            sessions.take(each)
        told = until
        for each in sessions.happened("c-1", happening.event_time_ms):
            clock.tell(each)
        seen.append((happening.event_time_ms, clock.snapshot()))
    return [kept for (at, kept), (after, _) in zip(seen, [*seen[1:], (-1, [])], strict=True) if at != after]


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 29))
def test_when_it_is_told_makes_no_difference_as_long_as_it_is_not_late(seed: int, restart_at: int) -> None:
    records = history(Random(seed))
    assert clocks(records, None) == clocks(records, Random(seed + 1), restart_at)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_the_latest_begin_is_the_session_and_only_its_own_end_ends_it(seed: int) -> None:
    clock, began, ended = SessionClock(), "", False
    for session in history(Random(seed)):
        clock.tell(session)
        name = session.live_session_id
        if session.state is SessionState.STARTED and name != began:
            began, ended = name, False
        elif session.state is SessionState.ENDED and name == (began or name):
            began, ended = name, True
        assert (clock.session_id, clock.ended_ms is not None) == (began, ended)
