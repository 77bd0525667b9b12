"""Decides which messages are due: a function of the alerts, commands and receipts that were taken, and of the time.

`take_…` may be called in any order across the three logs and again for what was taken before; so the state is rebuilt
by reading the logs, and nothing is lost by a crash: what is neither told nor silenced is pending.

Bounds (law 8), each counted:
* alerts kept: `max_alerts`. Beyond it those of which everything is told are forgotten, then the oldest that only the
  digest would tell; if all wait to be pushed, a new one is refused, and `is_incomplete` asks for a rebuild later;
* messages under way to a receiver: `max_under_way`. Beyond it nothing is composed: alerts wait, and group;
* alerts of a digest: `max_digest_alerts`. The oldest beyond are a number in its text;
* alerts decided longer ago than `lookback_ms` are told no more.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from streams.signals import Alert, AlertState
from streams.stages.delivery.messages import AlertCommand, Message, MessageKind, Receipt
from streams.stages.delivery.plan import DeliveryPlan, Routing
from streams.stages.delivery.receiver import Life, Receiver
from streams.stages.delivery.silences import Silences

RECEIPTS_KEPT_MS: Final = 7 * 86_400_000
"""What was told is remembered this long: the retention of ads.deliveries."""
COMMANDS_KEPT_MS: Final = 30 * 86_400_000
_ROOM: Final = 20
"""A twentieth of the alerts is forgotten at once, so that it is not done for each."""
_RANK: Final = {AlertState.PENDING: 0, AlertState.FIRING: 1, AlertState.RESOLVED: 2}


class Dispatcher:
    """All receivers. Time is what the caller says it is."""

    def __init__(self, plan: DeliveryPlan) -> None:
        self.plan = plan
        self.routing = Routing(plan.routes)
        self.silences = Silences(plan.max_commands)
        self.counts: Counter[str] = Counter()
        self.lives: dict[str, Life] = {}
        self.is_incomplete = False
        self.receivers = {
            route.name: Receiver(plan, route, self.lives, self.silences, self.counts) for route in plan.routes
        }

    # In

    def take_alert(self, alert: Alert, now_ms: int) -> None:
        """One change in an alert's life; of each alert the highest sequence holds."""
        if alert.state is AlertState.PENDING:
            return
        if alert.decided_ms < now_ms - self.plan.lookback_ms:
            self.counts["too_old"] += 1
            return
        life = self.lives.get(alert.alert_id)
        if life is None:
            self._begin(alert)
            return
        if alert.state is AlertState.FIRING and life.firing is None:
            life.firing = alert
        if _order(alert) <= _order(life.latest):
            self.counts["repeated"] += 1
            return
        if life.latest.state is AlertState.RESOLVED:
            self.counts["reopened"] += 1
        life.latest = alert
        self._expect(life)

    def _begin(self, alert: Alert) -> None:
        routes = self.routing.routes_of(alert)
        self.counts["unknown_routes"] += self.routing.unknown_in(alert)
        if not routes:
            self.counts["without_route"] += 1
            return
        if len(self.lives) >= self.plan.max_alerts and not self._has_room_for(alert):
            return
        life = Life(alert, alert if alert.state is AlertState.FIRING else None, routes)
        self.lives[alert.alert_id] = life
        self._expect(life)

    def _expect(self, life: Life) -> None:
        for name in life.routes:
            self.receivers[name].expect(life.latest.alert_id)

    def take_command(self, command: AlertCommand) -> None:
        """An acknowledgement or a snooze; of each target the latest holds."""
        self.silences.take(command)
        for receiver in self.receivers.values():
            receiver.next_ms = 0

    def take_receipt(self, receipt: Receipt) -> None:
        """What became of a message. Tests, and routes that the settings no longer name, are passed over."""
        receiver = self.receivers.get(receipt.route)
        if receiver is not None and receipt.kind is not MessageKind.TEST:
            receiver.take(receipt)

    # Out

    def due(self, now_ms: int) -> list[Message]:
        """Messages to be sent now. Each is handed out once, until a rebuild finds it under way."""
        return [message for receiver in self.receivers.values() for message in receiver.due(now_ms)]

    def is_in_hand(self, messages: Iterable[tuple[str, str]]) -> None:
        """After a rebuild: these (route, message id) are being sent already."""
        for route, identity in messages:
            if route in self.receivers:
                self.receivers[route].handed.add(identity)

    # Bounds

    def prune(self, now_ms: int) -> None:
        """Forgets what is too old to matter; to be called now and then."""
        oldest_ms = now_ms - self.plan.lookback_ms
        for alert_id in [key for key, life in self.lives.items() if life.latest.decided_ms < oldest_ms]:
            self.counts["too_old"] += self._forget(alert_id)
        for receiver in self.receivers.values():
            receiver.forget(now_ms - RECEIPTS_KEPT_MS)
        self.silences.prune(now_ms, now_ms - COMMANDS_KEPT_MS)

    def _has_room_for(self, alert: Alert) -> bool:
        """Makes room for many at once, in the order that the module tells."""
        wanted = max(1, self.plan.max_alerts // _ROOM)
        waiting = {alert_id for receiver in self.receivers.values() for alert_id in receiver.pending}
        under_way = {i for r in self.receivers.values() for m in r.under_way.values() for i in (*m.firing, *m.resolved)}
        told = [alert_id for alert_id in self.lives if alert_id not in waiting and alert_id not in under_way]
        for alert_id in told[:wanted]:
            self._forget(alert_id)
        if told:
            return True
        lesser = [key for key, life in self.lives.items() if not life.latest.is_pushed and key not in under_way]
        for alert_id in lesser[:wanted] if alert.is_pushed else ():
            self.counts["left_out"] += self._forget(alert_id)
        if lesser and alert.is_pushed:
            return True
        self.is_incomplete = self.is_incomplete or alert.is_pushed
        self.counts["refused" if alert.is_pushed else "left_out"] += 1
        return False

    def _forget(self, alert_id: str) -> int:
        """For how many receivers something was still untold."""
        life = self.lives.pop(alert_id)
        return sum(self.receivers[name].pending.pop(alert_id, self) is None for name in life.routes)


def _order(alert: Alert) -> tuple[int, int, int]:
    return alert.sequence, alert.changed_ms, _RANK[alert.state]
