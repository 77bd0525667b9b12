"""What delivery exchanges: commands come in (ads.alert-commands), messages go out, receipts say so (ads.deliveries).

A message is named by its route and the states of alerts that it tells of. Before it is first sent, a receipt with the
outcome `composed` is appended; so whoever takes over sends the very same message under the same id, and a receiver
recognises what it got before.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Final

import msgspec
import xxhash
from msgspec import Meta

from streams.documents import Fault, decode_document
from streams.events import Id, Reason, Rejected, TimeMs
from streams.signals import Alert, AlertState

MAX_NOTE: Final = 500


class Action(StrEnum):
    ACK = "ack"
    SNOOZE = "snooze"


class AlertCommand(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody silences alerts. What is named must all match; of one target, the latest command holds.

    `ack`: no more pushes of the alerts that had fired by `at_ms`, until each resolves; its end is told in the digest.
    `snooze`: nothing is told of what matches until `until_ms`; a time that has passed ends a snooze.
    """

    action: Action
    alert_id: Id | None = None
    campaign_id: Id | None = None
    cause: Id | None = None
    route: Id | None = None
    """Only for this receiver."""
    until_ms: TimeMs | None = None
    by: Annotated[str, Meta(min_length=1, max_length=128)]
    why: Annotated[str, Meta(max_length=MAX_NOTE)] = ""
    at_ms: TimeMs

    @property
    def target(self) -> tuple[str | None, ...]:
        """What it is about."""
        return self.alert_id, self.campaign_id, self.cause, self.route

    def covers(self, alert: Alert, route: str) -> bool:
        """Whether an alert, on its way to a receiver, is what it is about."""
        of_alert = (alert.alert_id, alert.campaign_id, alert.cause, route)
        return all(wanted in (None, found) for wanted, found in zip(self.target, of_alert, strict=True))


class MessageKind(StrEnum):
    PUSH = "push"
    """Alerts of one cause."""
    SUMMARY = "summary"
    """What the hourly cap held back, of all causes."""
    DIGEST = "digest"
    TEST = "test"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What one receiver is told at once."""

    message_id: str
    route: str
    kind: MessageKind
    cause: str = ""
    language: str
    title: str
    text: str
    composed_ms: int
    """Wall time, epoch ms UTC."""
    alerts: tuple[Alert, ...]
    """The changes that it tells of, oldest first; empty when they are too old to be told."""
    is_recorded: bool = False
    """Its receipt `composed` is in the log already."""


class Outcome(StrEnum):
    COMPOSED = "composed"
    """About to be sent: to be sent again by whoever takes over."""
    DELIVERED = "delivered"
    FAILED = "failed"
    """For good: the receiver refuses it, or it became too old."""
    DRY_RUN = "dry_run"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message (topic ads.deliveries, keyed by message)."""

    message_id: str
    route: str
    kind: MessageKind
    cause: str = ""
    outcome: Outcome
    detail: str = ""
    attempts: int = 0
    firing: tuple[str, ...] = ()
    """Alerts that it told of as firing."""
    resolved: tuple[str, ...] = ()
    composed_ms: int
    at_ms: int


def receipt_of(message: Message, outcome: Outcome, at_ms: int, detail: str = "", attempts: int = 0) -> Receipt:
    """The receipt of a message."""
    return Receipt(
        message_id=message.message_id,
        route=message.route,
        kind=message.kind,
        cause=message.cause,
        outcome=outcome,
        detail=detail[:MAX_NOTE],
        attempts=attempts,
        firing=ids_in(message.alerts, AlertState.FIRING),
        resolved=ids_in(message.alerts, AlertState.RESOLVED),
        composed_ms=message.composed_ms,
        at_ms=at_ms,
    )


def ids_in(alerts: Iterable[Alert], state: AlertState) -> tuple[str, ...]:
    """Ids of the alerts that are in a state."""
    return tuple(alert.alert_id for alert in alerts if alert.state is state)


def message_id(route: str, told: Iterable[tuple[str, str]]) -> str:
    """The same for the same route and set of (alert id, state), whatever its order."""
    return xxhash.xxh3_128_hexdigest(msgspec.json.encode((route, sorted(told))))


# Decoding

MAX_RECEIPT_BYTES: Final = 1_000_000
_ALERT: Final = msgspec.json.Decoder(Alert)
_COMMAND: Final = msgspec.json.Decoder(AlertCommand)
_RECEIPT: Final = msgspec.json.Decoder(Receipt)


def _nothing(_document: object) -> Sequence[Fault]:
    return ()


def decode_alert(raw: bytes | None) -> Alert | Rejected:
    """Decodes a value of ads.alerts. Never raises."""
    return decode_document(_ALERT, raw, _nothing)


def decode_command(raw: bytes | None) -> AlertCommand | Rejected:
    """Decodes a value of ads.alert-commands. Never raises."""
    return decode_document(_COMMAND, raw, command_faults)


def command_faults(command: AlertCommand) -> Sequence[Fault]:
    """What the types cannot express."""
    if command.target == (None, None, None, None):
        return [Fault(Reason.MISSING_FIELD, "alert_id", "names neither an alert, a campaign, a cause nor a route")]
    if command.action is Action.SNOOZE and command.until_ms is None:
        return [Fault(Reason.MISSING_FIELD, "until_ms", "a snooze needs its end")]
    return []


def decode_receipt(raw: bytes | None) -> Receipt | Rejected:
    """Decodes a value of ads.deliveries, which are larger than events. Never raises."""
    if not raw or len(raw) > MAX_RECEIPT_BYTES:
        return Rejected(Reason.TOO_LARGE if raw else Reason.EMPTY)
    try:
        return _RECEIPT.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Rejected(Reason.MALFORMED_JSON)
