"""Traffic paced by a clock: due when it is due, nothing dropped, and reproducible from its start."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest

from streams.errors import BrokerUnavailable
from streams.jobs.generate import (
    GeneratorReport,
    campaign_messages,
    generate,
    generate_campaigns,
    run_generator,
    session_messages,
    traffic_profile,
)
from streams.ports import Outgoing
from streams.signals import LiveSession, SessionState
from streams.topics import CAMPAIGNS, INPUT_TOPICS, SESSIONS

NOW_MS = 1_800_000_000_000
CHOICES: dict[str, object] = {"cycle": False, "duplicate_share": 0.05, "max_redelivery_ms": 2_000}
PROFILE = traffic_profile(rate=300, duration_ms=10_000, **CHOICES)


class SimulatedTime:
    """A clock that only sleeping and publishing advance, and an outbox on it."""

    def __init__(self, publish_takes_ms: int = 0) -> None:
        self.now = NOW_MS
        self.publish_takes_ms = publish_takes_ms
        self.batches: list[tuple[int, list[Outgoing]]] = []

    def now_ms(self) -> int:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1000)

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        self.batches.append((self.now, list(messages)))
        self.now += self.publish_takes_ms

    @property
    def records(self) -> list[Outgoing]:
        return [record for _, batch in self.batches for record in batch]


def expected(start_ms: int = NOW_MS) -> list[Outgoing]:
    profile = traffic_profile(rate=300, duration_ms=10_000, **CHOICES, start_ms=start_ms)
    return [
        Outgoing(INPUT_TOPICS[e.input], None, e.key.encode(), e.value, e.deliver_at_ms) for e in generate(profile, 5)
    ]


async def test_what_is_published_is_what_generate_gives_for_that_start() -> None:
    world = SimulatedTime()
    report = await run_generator(PROFILE, 5, world, world, sleep=world.sleep)
    assert world.records == expected()
    assert report.start_ms == NOW_MS
    assert report.delivered == len(world.records) == sum(report.events.values())
    assert report.duplicates > 0


async def test_nothing_is_published_before_its_time_nor_long_after() -> None:
    world = SimulatedTime()
    await run_generator(PROFILE, 5, world, world, sleep=world.sleep, batch_ms=20)
    for at_ms, batch in world.batches:
        assert all(0 <= at_ms - (record.timestamp_ms or 0) <= 20 for record in batch)


async def test_batches_begin_their_time_apart_however_long_a_broker_takes_for_one() -> None:
    world = SimulatedTime(publish_takes_ms=6)
    await run_generator(PROFILE, 5, world, world, sleep=world.sleep, batch_ms=20)
    assert world.records == expected()
    begun = [at_ms for at_ms, _ in world.batches]
    assert all(later - earlier >= 20 for earlier, later in pairwise(begun))
    assert len(begun) > 10_000 / 20 * 0.9


async def test_a_slow_broker_makes_it_late_but_loses_nothing() -> None:
    world = SimulatedTime(publish_takes_ms=2_000)
    report = await run_generator(PROFILE, 5, world, world, sleep=world.sleep, max_batch=200)
    assert world.records == expected()
    assert max(len(batch) for _, batch in world.batches) == 200
    assert report.behind_ms > 1_000


async def test_a_start_in_the_past_is_paced_like_now() -> None:
    world = SimulatedTime()
    profile = traffic_profile(rate=300, duration_ms=10_000, **CHOICES, start_ms=1_000_000)
    report = await run_generator(profile, 5, world, world, sleep=world.sleep)
    assert report.start_ms == 1_000_000
    assert world.records == expected(1_000_000)
    assert 9_000 < world.now - NOW_MS <= 10_100


async def test_rate_and_duration_given_to_the_run_take_the_profiles_place() -> None:
    world = SimulatedTime()
    report = await run_generator(
        traffic_profile(**CHOICES), 5, world, world, rate=300, duration_ms=10_000, sleep=world.sleep
    )
    assert report.delivered == len(expected())


async def test_a_stop_is_obeyed_before_the_next_batch() -> None:
    world = SimulatedTime()
    report = GeneratorReport()
    await run_generator(
        PROFILE, 5, world, world, sleep=world.sleep, stop=lambda: report.delivered >= 100, report=report
    )
    assert 100 <= report.delivered < 150
    assert world.records == expected()[: report.delivered]


async def test_a_stop_is_noticed_while_there_is_nothing_to_do() -> None:
    world = SimulatedTime()
    asked: list[int] = []

    def stop() -> bool:
        asked.append(world.now)
        return len(asked) > 3

    await run_generator(traffic_profile(rate=0.00001, cycle=False), 5, world, world, sleep=world.sleep, stop=stop)
    assert world.records == []
    assert asked[-1] - NOW_MS <= 1_500


async def test_progress_is_told_after_each_batch() -> None:
    world = SimulatedTime()
    told: list[int] = []
    await run_generator(PROFILE, 5, world, world, sleep=world.sleep, progress=lambda r: told.append(r.delivered))
    assert len(told) == len(world.batches)
    assert told == sorted(told)
    assert told[-1] == len(world.records)


async def test_a_broker_that_stays_away_ends_the_run() -> None:
    class Away:
        async def publish(self, messages: Sequence[Outgoing]) -> None:
            raise BrokerUnavailable("no answer; start the broker")

    world = SimulatedTime()
    with pytest.raises(BrokerUnavailable):
        await run_generator(PROFILE, 5, Away(), world, sleep=world.sleep, give_up_after_s=0)


async def test_the_report_is_whole_after_a_cancellation() -> None:
    world = SimulatedTime()
    report = GeneratorReport()
    begun = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await world.sleep(seconds)
        await asyncio.sleep(0)

    run = asyncio.create_task(
        run_generator(PROFILE, 5, world, world, sleep=sleep, report=report, progress=lambda _: begun.set())
    )
    await begun.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert report.delivered == len(world.records) > 0


async def test_live_sessions_are_published_when_they_happen_and_not_before() -> None:
    world = SimulatedTime()
    live = generate_campaigns(PROFILE)[0]
    sessions = [
        LiveSession(campaign_id=live.campaign_id, live_session_id="l", state=state, event_time_ms=NOW_MS + at_ms)
        for state, at_ms in ((SessionState.STARTED, 0), (SessionState.ENDED, 4_000), (SessionState.STARTED, 60_000))
    ]
    report = await run_generator(PROFILE, 5, world, world, sleep=world.sleep, sessions=iter(sessions))
    told = [(at - NOW_MS, record) for at, batch in world.batches for record in batch if record.topic == SESSIONS]
    assert [record._replace(timestamp_ms=None) for _, record in told] == session_messages(sessions[:2])
    assert [record.timestamp_ms for _, record in told] == [NOW_MS, NOW_MS + 4_000]  # or workers would refuse the future
    assert told[0][0] == 0
    assert 4_000 <= told[1][0] <= 4_600
    assert [record for record in world.records if record.topic != SESSIONS] == expected()
    assert report.delivered == len(expected())


def test_campaign_records_are_keyed_by_campaign() -> None:
    messages = campaign_messages(generate_campaigns(PROFILE))
    assert {message.topic for message in messages} == {CAMPAIGNS}
    assert [message.key for message in messages][:2] == [b"c0001", b"c0002"]
