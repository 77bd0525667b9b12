"""What one receiver has been told, and what it is to be told now.

Pushes wait for their like (`group_wait_ms`), for the end of the campaign's quiet hours and of snoozes; one message
tells of one cause. Beyond the hourly cap they wait for the next hour, and then are one summary of all causes. The rest
is told in the digest. An alert that ended before it was told is told in the digest only, whatever made it wait.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from streams.signals import Alert, AlertState
from streams.stages.delivery.local_time import HOUR_MS, next_slot_ms, quiet_until_ms
from streams.stages.delivery.messages import (
    Message,
    MessageKind,
    Outcome,
    Receipt,
    message_id,
    receipt_of,
)
from streams.stages.delivery.plan import DeliveryPlan, RoutePlan
from streams.stages.delivery.silences import Silences
from streams.stages.delivery.text import language_of, written

FIRING, RESOLVED, PUSHED = 1, 2, 4
"""What was told of an alert, as bits: that it fires, that it resolved, and whether the first was pushed."""
NEVER_MS: Final = 2**62
PUSHES: Final = (MessageKind.PUSH, MessageKind.SUMMARY)
_BIT: Final[Mapping[AlertState, int]] = {AlertState.FIRING: FIRING, AlertState.RESOLVED: RESOLVED}


@dataclass(slots=True)
class Life:
    """What is known of one alert."""

    latest: Alert
    firing: Alert | None
    """The record of its beginning, to be told again in the same words."""
    routes: tuple[str, ...]


class _Group(NamedTuple):
    ready_ms: int
    cause: str
    alerts: list[Alert]


class Receiver:
    """The state of one route. `counts` is shared with the dispatcher."""

    def __init__(
        self,
        plan: DeliveryPlan,
        route: RoutePlan,
        lives: Mapping[str, Life],
        silences: Silences,
        counts: Counter[str],
    ) -> None:
        self.plan = plan
        self.route = route
        self.lives = lives
        self.silences = silences
        self.counts = counts
        self.pending: dict[str, None] = {}
        """Alerts of which something may be untold."""
        self.under_way: dict[str, Receipt] = {}
        """Messages composed, and neither delivered nor refused."""
        self.handed: set[str] = set()
        """Those of them that somebody is sending."""
        self.next_ms = 0
        """Before this, nothing becomes due unless something arrives."""
        self.held_by_cap = 0
        self._told: dict[str, tuple[int, int]] = {}
        """Bits, and when they were last changed."""
        self._done: dict[str, int] = {}
        self._composed_in: Counter[int] = Counter()
        """Pushed messages by hour of the clock."""
        self._left_out = 0

    # In

    def expect(self, alert_id: str) -> None:
        """Something about this alert is new."""
        self.pending[alert_id] = None
        self.next_ms = 0

    def take(self, receipt: Receipt) -> None:
        """Learns what became of a message, once for each outcome."""
        identity = receipt.message_id
        if identity in self._done:
            return
        self._mark(receipt)
        is_known = identity in self.under_way
        if receipt.kind in PUSHES and not is_known:
            self._composed_in[receipt.composed_ms // HOUR_MS] += 1
        if receipt.outcome is Outcome.COMPOSED:
            self.under_way.setdefault(identity, receipt)
        else:
            self.under_way.pop(identity, None)
            self.handed.discard(identity)
            self._done[identity] = receipt.at_ms
        self.next_ms = 0

    def _mark(self, receipt: Receipt) -> None:
        pushed = PUSHED if receipt.kind in PUSHES else 0
        for ids, bits in ((receipt.firing, FIRING | pushed), (receipt.resolved, RESOLVED)):
            for alert_id in ids:
                before, _ = self._told.get(alert_id, (0, 0))
                self._told[alert_id] = before | bits, receipt.composed_ms

    def told(self, alert_id: str) -> int:
        """Bits of what was told, or is under way."""
        return self._told.get(alert_id, (0, 0))[0]

    # Out

    def due(self, now_ms: int) -> list[Message]:
        """Messages to be sent now, each handed out once: those that were under way first."""
        if now_ms < self.next_ms:
            return []
        self.next_ms = NEVER_MS
        pushes, digest = self._sorted_out(now_ms)
        return [*self._revived(), *self._pushes(pushes, now_ms), *self._digest(digest, now_ms)]

    def _wake(self, at_ms: int) -> None:
        self.next_ms = min(self.next_ms, at_ms)

    def _revived(self) -> Iterator[Message]:
        for identity, receipt in self.under_way.items():
            if identity not in self.handed:
                self.handed.add(identity)
                yield self._message(receipt.kind, receipt.cause, self._records(receipt), receipt.composed_ms, identity)

    def _records(self, receipt: Receipt) -> list[Alert]:
        """The changes that a message told of, as far as they are still known."""
        known = [life.firing for life in self._lives(receipt.firing) if life.firing is not None]
        known += [life.latest for life in self._lives(receipt.resolved) if life.latest.state is AlertState.RESOLVED]
        return sorted(known, key=_age)

    def _lives(self, ids: Iterable[str]) -> list[Life]:
        return [self.lives[alert_id] for alert_id in ids if alert_id in self.lives]

    def _sorted_out(self, now_ms: int) -> tuple[dict[str, list[Alert]], list[Alert]]:
        """What is untold and may be told now: pushes by cause, and what is for the digest."""
        pushes: dict[str, list[Alert]] = {}
        digest: list[Alert] = []
        quiet: dict[tuple[str, str, str], int] = {}
        for alert_id in list(self.pending):
            alert = self._untold(alert_id)
            if alert is None:
                del self.pending[alert_id]
                continue
            until_ms = self.silences.snoozed_until_ms(alert, self.route.name, now_ms)
            if not until_ms and self._is_push(alert):
                until_ms = _quiet_until(alert, now_ms, quiet)
                if not until_ms:
                    pushes.setdefault(alert.cause, []).append(alert)
            elif not until_ms:
                digest.append(alert)
            if until_ms:
                self._wake(until_ms)
        return pushes, self._bounded(digest)

    def _untold(self, alert_id: str) -> Alert | None:
        """The latest change, unless it was told, or somebody has acknowledged that the alert fires."""
        life = self.lives.get(alert_id)
        if life is None or self.told(alert_id) & _BIT[life.latest.state]:
            return None
        if life.latest.state is AlertState.FIRING and self._is_acknowledged(life.latest):
            self.counts["acknowledged"] += 1
            return None
        return life.latest

    def _is_push(self, alert: Alert) -> bool:
        is_fresh = alert.decided_ms - alert.changed_ms <= self.plan.push_within_ms
        if not alert.is_pushed or not is_fresh:
            return False
        if alert.state is AlertState.FIRING:
            return True
        was_pushed = self.told(alert.alert_id) & PUSHED
        return bool(was_pushed) and self.plan.push_resolved and not self._is_acknowledged(alert)

    def _is_acknowledged(self, alert: Alert) -> bool:
        firing = self.lives[alert.alert_id].firing
        fired_ms = alert.began_ms if firing is None else firing.decided_ms
        return self.silences.is_acknowledged(alert, self.route.name, fired_ms)

    def _bounded(self, digest: list[Alert]) -> list[Alert]:
        """Without a digest nothing; else the newest, and the others are a number in it."""
        limit = 0 if self.route.digest == "off" else self.plan.max_digest_alerts
        if len(digest) <= limit:
            return digest
        digest.sort(key=_age)
        kept = digest[len(digest) - limit :]
        for alert in digest[: len(digest) - limit]:
            before, _ = self._told.get(alert.alert_id, (0, 0))
            self._told[alert.alert_id] = before | _BIT[alert.state], alert.decided_ms
            del self.pending[alert.alert_id]
        left_out = len(digest) - len(kept)
        if limit:
            self._left_out += left_out
        self.counts["left_out" if limit else "digest_off"] += left_out
        return kept

    def _pushes(self, by_cause: Mapping[str, list[Alert]], now_ms: int) -> Iterator[Message]:
        ready = self._ready(by_cause, now_ms)
        hour = now_ms // HOUR_MS
        self.held_by_cap = 0
        waited = [group for group in ready if group.ready_ms < hour * HOUR_MS]
        if len(waited) > 1 and self._composed_in[hour - 1] >= self.route.hourly_cap:
            together = sorted((alert for group in waited for alert in group.alerts), key=_age)
            ready = [_Group(waited[0].ready_ms, "", together), *(group for group in ready if group not in waited)]
        for group in ready:
            kind = MessageKind.PUSH if group.cause else MessageKind.SUMMARY
            for alerts in self._parts(group.alerts):
                if len(self.under_way) >= self.plan.max_under_way:
                    return
                if self._composed_in[hour] >= self.route.hourly_cap:
                    self.held_by_cap += len(alerts)
                    self._wake((hour + 1) * HOUR_MS)
                    continue
                yield self._composed(kind, group.cause, alerts, now_ms)

    def _ready(self, by_cause: Mapping[str, list[Alert]], now_ms: int) -> list[_Group]:
        """Groups that have waited for their like, the oldest first. A time in the future does not delay anything."""
        ready = []
        for cause, alerts in by_cause.items():
            alerts.sort(key=_age)
            ready_ms = alerts[0].decided_ms + self.plan.group_wait_ms
            if ready_ms - now_ms > self.plan.group_wait_ms:
                ready_ms = now_ms
            if ready_ms > now_ms:
                self._wake(ready_ms)
            else:
                ready.append(_Group(ready_ms, cause, alerts))
        return sorted(ready, key=lambda group: (group.ready_ms, group.cause))

    def _digest(self, alerts: list[Alert], now_ms: int) -> Iterator[Message]:
        if not alerts:
            return
        alerts.sort(key=_age)
        route = self.route
        slot_ms = next_slot_ms(min(alerts[0].decided_ms, now_ms), route.digest, route.digest_hour, route.time_zone)
        if slot_ms > now_ms:
            self._wake(slot_ms)
            return
        for part in self._parts(alerts):
            if len(self.under_way) < self.plan.max_under_way:
                yield self._composed(MessageKind.DIGEST, "", part, now_ms)

    def _parts(self, alerts: Sequence[Alert]) -> Iterator[Sequence[Alert]]:
        size = self.plan.max_message_alerts
        return (alerts[start : start + size] for start in range(0, len(alerts), size))

    def _composed(self, kind: MessageKind, cause: str, alerts: Sequence[Alert], now_ms: int) -> Message:
        message = self._message(kind, cause, alerts, now_ms)
        self._left_out = 0 if kind is MessageKind.DIGEST else self._left_out
        next_ms = self.next_ms
        self.take(receipt_of(message, Outcome.COMPOSED, now_ms))
        self.next_ms = next_ms
        self.handed.add(message.message_id)
        for alert in alerts:
            self.pending.pop(alert.alert_id, None)
        return message

    def _message(
        self, kind: MessageKind, cause: str, alerts: Sequence[Alert], composed_ms: int, identity: str = ""
    ) -> Message:
        """A new message, or, with its identity, one that was under way."""
        language = language_of(alerts, self.route.language)
        words = written(kind, alerts, language, self._left_out if kind is MessageKind.DIGEST else 0)
        name = self.route.name
        return Message(
            message_id=identity or message_id(name, ((alert.alert_id, alert.state) for alert in alerts)),
            route=name,
            kind=kind,
            cause=cause,
            language=language,
            title=words.title,
            text=words.text,
            composed_ms=composed_ms,
            alerts=tuple(alerts),
            is_recorded=bool(identity),
        )

    # Bounds

    def forget(self, before_ms: int) -> None:
        """Forgets what was told, and which messages were done, before a time, unless the alert is still known."""
        self._done = {identity: at_ms for identity, at_ms in self._done.items() if at_ms >= before_ms}
        self._told = {
            alert_id: told for alert_id, told in self._told.items() if told[1] >= before_ms or alert_id in self.lives
        }
        self._composed_in = Counter({h: n for h, n in self._composed_in.items() if (h + 2) * HOUR_MS > before_ms})


def _age(alert: Alert) -> tuple[int, str]:
    return alert.decided_ms, alert.alert_id


def _quiet_until(alert: Alert, now_ms: int, known: dict[tuple[str, str, str], int]) -> int:
    hours = alert.quiet_begins, alert.quiet_ends, alert.time_zone
    if not hours[0]:
        return 0
    if hours not in known:
        known[hours] = quiet_until_ms(*hours, now_ms)
    return known[hours]
