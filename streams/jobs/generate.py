"""Seeded, realistic traffic: as a pure iterator (`generate`), and paced by the clock into a broker (`run_generator`).

The same profile and seed give the same events, byte for byte and in the same order of delivery. A history goes into
topics through `streams.jobs.load.load(generate(profile, seed), outbox)`, as fast as the broker takes it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from streams.accounts import Account, encode_account, key_of
from streams.campaigns import CampaignSettings, encode_campaign
from streams.events import Input
from streams.jobs.attacks import MixedTraffic
from streams.jobs.load import GIVE_UP_AFTER_S, publish_patiently
from streams.jobs.traffic_catalogue import generate_accounts, generate_campaigns
from streams.jobs.traffic_money import live_sessions
from streams.jobs.traffic_profile import TrafficProfile, traffic_profile
from streams.jobs.traffic_simulation import GeneratedEvent
from streams.ports import Clock, Outbox, Outgoing
from streams.signals import LiveSession
from streams.topics import ACCOUNTS, CAMPAIGNS, INPUT_TOPICS, SESSIONS

BATCH_MS: Final = 20
MAX_BATCH: Final = 2_000
LONGEST_SLEEP_MS: Final = 500  # so that a stop is noticed soon

__all__ = [
    "GeneratedEvent",
    "GeneratorReport",
    "TrafficProfile",
    "account_messages",
    "campaign_messages",
    "generate",
    "generate_accounts",
    "generate_campaigns",
    "generate_sessions",
    "run_generator",
    "session_messages",
    "traffic_profile",
]


@dataclass
class GeneratorReport:
    """What was delivered so far."""

    start_ms: int = 0
    """The first event time, epoch ms UTC: with the profile and the seed it reproduces the run."""
    delivered: int = 0
    duplicates: int = 0
    events: dict[Input, int] = field(default_factory=lambda: dict.fromkeys(Input, 0))
    behind_ms: int = 0
    """How far the last batch was behind the clock: large where the broker or this machine is too slow."""
    attacks: dict[str, int] = field(default_factory=dict)
    """Events by attack, duplicates included."""
    cut: int = 0
    """Later events given up because `max_pending` were waiting."""

    def add(self, event: GeneratedEvent) -> None:
        """Counts a delivery."""
        self.delivered += 1
        self.duplicates += event.duplicate
        self.events[event.input] += 1
        if event.attack:
            self.attacks[event.attack] = self.attacks.get(event.attack, 0) + 1


def generate(profile: TrafficProfile, seed: int) -> Iterator[GeneratedEvent]:
    """The traffic, in order of delivery. Endless where the profile has no duration."""
    return MixedTraffic(profile, seed).events()


def generate_sessions(profile: TrafficProfile, since_ms: int, *, opens_at_once: bool = False) -> Iterator[LiveSession]:
    """The live shop's sessions from a time on, for the topic ads.sessions: endless, in order, each when it happens.

    With `opens_at_once` the first begins then, whatever the hour.
    """
    return live_sessions(profile, generate_campaigns(profile)[0], since_ms, opens_at_once=opens_at_once)


def campaign_messages(campaigns: list[CampaignSettings]) -> list[Outgoing]:
    """Records of ads.campaigns, to be published before the first event."""
    return [Outgoing(CAMPAIGNS, None, c.campaign_id.encode(), encode_campaign(c)) for c in campaigns]


def account_messages(accounts: Iterable[Account]) -> list[Outgoing]:
    """Records of ads.accounts."""
    return [Outgoing(ACCOUNTS, None, key_of(a).encode(), encode_account(a)) for a in accounts]


def session_messages(sessions: Iterable[LiveSession]) -> list[Outgoing]:
    """Records of ads.sessions."""
    return [Outgoing(SESSIONS, None, s.campaign_id.encode(), msgspec.json.encode(s)) for s in sessions]


async def run_generator(
    profile: TrafficProfile,
    seed: int,
    outbox: Outbox,
    clock: Clock,
    *,
    rate: float | None = None,
    duration_ms: int | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    batch_ms: int = BATCH_MS,
    max_batch: int = MAX_BATCH,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[GeneratorReport], object] | None = None,
    report: GeneratorReport | None = None,
    give_up_after_s: float = GIVE_UP_AFTER_S,
    sessions: Iterator[LiveSession] | None = None,
    sent: Callable[[list[GeneratedEvent]], object] | None = None,
) -> GeneratorReport:
    """Publishes traffic in real time until its end, or until `stop()`, which is asked before each batch.

    Event times begin now (or at `profile.start_ms`) and advance with the clock; `rate` and `duration_ms` take the
    profile's place. Every `batch_ms` what is due is published, at most `max_batch` at a time: many small batches cost
    a broker much more than a few. A generator that falls behind publishes without pause and drops nothing. Records
    carry the time of delivery. `report` is filled as it goes, so that it is whole after a cancellation too. `sessions`
    (`generate_sessions`) are published when they happen. `sent` is told each batch, with the truth about it.

    Raises:
        Unavailable: the broker did not answer for `give_up_after_s`.
    """
    began_ms = clock.now_ms()
    chosen = _chosen(profile, began_ms, rate, duration_ms)
    filled = report if report is not None else GeneratorReport()
    filled.start_ms = chosen.first_ms
    traffic = MixedTraffic(chosen, seed)
    events = traffic.events()
    waiting = next(events, None)
    coming = _Sessions(sessions, outbox, give_up_after_s)
    while waiting is not None and not stop():
        now_ms = clock.now_ms() - began_ms + chosen.first_ms
        next_ms = now_ms + batch_ms
        await coming.publish_due(now_ms)
        if waiting.deliver_at_ms > now_ms:
            await sleep(min(max(batch_ms, waiting.deliver_at_ms - now_ms), LONGEST_SLEEP_MS) / 1000)
            continue
        batch: list[GeneratedEvent] = []
        while waiting is not None and waiting.deliver_at_ms <= now_ms and len(batch) < max_batch:
            batch.append(waiting)
            waiting = next(events, None)
        await publish_patiently(outbox, [_record(event) for event in batch], give_up_after_s)
        _count(filled, batch, now_ms, traffic.cut)
        if sent is not None:
            sent(batch)
        if progress is not None:
            progress(filled)
        rest_ms = next_ms - (clock.now_ms() - began_ms + chosen.first_ms)
        await sleep(max(rest_ms, 0) / 1000 if len(batch) < max_batch else 0)
    return filled


class _Sessions:
    """Publishes live sessions when their time has come."""

    def __init__(self, sessions: Iterator[LiveSession] | None, outbox: Outbox, give_up_after_s: float) -> None:
        self._sessions = sessions if sessions is not None else iter(())
        self._outbox = outbox
        self._give_up_after_s = give_up_after_s
        self._waiting = next(self._sessions, None)

    async def publish_due(self, now_ms: int) -> None:
        """Those that have happened by then."""
        while self._waiting is not None and self._waiting.event_time_ms <= now_ms:
            at_ms = self._waiting.event_time_ms  # the traffic's own time, like that of its events
            messages = [each._replace(timestamp_ms=at_ms) for each in session_messages([self._waiting])]
            await publish_patiently(self._outbox, messages, self._give_up_after_s)
            self._waiting = next(self._sessions, None)


def _chosen(profile: TrafficProfile, now_ms: int, rate: float | None, duration_ms: int | None) -> TrafficProfile:
    return msgspec.structs.replace(
        profile,
        start_ms=now_ms if profile.start_ms is None else profile.start_ms,
        rate=profile.rate if rate is None else rate,
        duration_ms=profile.duration_ms if duration_ms is None else duration_ms,
    )


def _record(event: GeneratedEvent) -> Outgoing:
    return Outgoing(INPUT_TOPICS[event.input], None, event.key.encode(), event.value, event.deliver_at_ms)


def _count(report: GeneratorReport, batch: list[GeneratedEvent], now_ms: int, cut: int) -> None:
    for event in batch:
        report.add(event)
    report.behind_ms = now_ms - batch[0].deliver_at_ms
    report.cut = cut
