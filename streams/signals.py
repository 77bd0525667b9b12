"""What the loop around a campaign exchanges: controls and alerts go out, allowances and live sessions come in.

Everything that goes out at a tick carries its `sequence`, the tick's place in the journal: consumers keep the highest.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from streams.documents import Fault, decode_document
from streams.events import AmountMicros, Id, Rejected, SignedAmountMicros, TimeMs
from streams.terms import AlertKind

Sequence64 = Annotated[int, Meta(ge=0)]


# In


class SessionState(StrEnum):
    STARTED = "started"
    ENDED = "ended"


class LiveSession(msgspec.Struct, frozen=True, kw_only=True):
    """A live session began or ended (topic ads.sessions): one record for each campaign that promotes it."""

    campaign_id: Annotated[Id, Meta(description="Campaign. The record's key.")]
    live_session_id: Annotated[Id, Meta(description="Live session.")]
    creator_id: Annotated[Id | None, Meta(description="Host: earlier sessions of the same host are the baseline.")] = (
        None
    )
    state: Annotated[SessionState, Meta(description="started or ended.")]
    event_time_ms: Annotated[TimeMs, Meta(description="When, the collector's time, epoch ms UTC.")]
    planned_end_ms: Annotated[
        TimeMs | None, Meta(description="When it is planned to end, epoch ms UTC; null: unknown.")
    ] = None


class PoolKind(StrEnum):
    BALANCE = "balance"
    SHARED_BUDGET = "shared_budget"


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What a campaign may draw on a pool (topic ads.allowances, keyed by campaign): an absolute limit of its spend."""

    campaign_id: Id
    pool: PoolKind
    pool_id: Id
    currency: str
    limit_micros: SignedAmountMicros
    """The campaign's spend may reach this: of the day that begins at `day_start_ms`, or, without one, since ever."""
    day_start_ms: int | None = None
    left_micros: SignedAmountMicros
    """What the pool has left for all of its campaigns."""
    burn_micros_per_h: AmountMicros = 0
    """What its campaigns spent together in the last hour."""
    baseline_micros: SignedAmountMicros = 0
    """The campaign's spend since ever that `as_of_ms` stands for: told back in its reports."""
    as_of_ms: int = 0
    """Of the balance; 0 for a shared budget."""
    sequence: Sequence64
    """Later is higher."""


_SESSION: Final = msgspec.json.Decoder(LiveSession)
_ALLOWANCE: Final = msgspec.json.Decoder(Allowance)


def _nothing(_document: object) -> Sequence[Fault]:
    return ()


def decode_session(raw: bytes | None) -> LiveSession | Rejected:
    """Decodes a value of ads.sessions. Never raises."""
    return decode_document(_SESSION, raw, _nothing)


def decode_allowance(raw: bytes | None) -> Allowance | Rejected:
    """Decodes a value of ads.allowances. Never raises."""
    return decode_document(_ALLOWANCE, raw, _nothing)


# Out


class RateReason(StrEnum):
    """Why a pass-through rate is what it is."""

    NOT_STARTED = "not_started"
    ENDED = "ended"
    SLOW_START = "slow_start"
    ON_PLAN = "on_plan"
    BEHIND = "behind"
    AHEAD = "ahead"
    AS_SOON_AS_POSSIBLE = "as_soon_as_possible"
    CLOSING = "closing"
    EXHAUSTED = "exhausted"
    ALLOWANCE = "allowance"
    UNKNOWN_INPUT = "unknown_input"


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a campaign's traffic the ad server lets through (topic ads.pacing, keyed by campaign)."""

    campaign_id: str
    rate: float
    """Share of auctions or requests to take part in, 0 to 1, in steps of a millionth."""
    reason: RateReason
    valid_until_ms: int
    """Wall time, epoch ms UTC. Behind it, assume `rate_when_stale`."""
    rate_when_stale: float
    """What to assume when no newer control has come by then: never more than `rate`."""
    spend_micros: int
    """Spend of the period that this control reflects, valid, micros."""
    period_start_ms: int
    decided_ms: int
    """The tick's wall time, epoch ms UTC."""
    sequence: int = 0


class AlertState(StrEnum):
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Audience(StrEnum):
    ADVERTISER = "advertiser"
    OPERATIONS = "operations"


class Text(msgspec.Struct, frozen=True):
    """One sentence that a person understands, in both languages."""

    en: str
    zh: str


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One change in the life of an alert (topic ads.alerts, keyed by campaign; operations': by partition)."""

    alert_id: str
    """Of this occurrence: derived from kind, campaign, and the event time at which it began."""
    kind: AlertKind
    state: AlertState
    audience: Audience
    is_pushed: bool
    """Pushed; otherwise told in the digest."""
    campaign_id: str = ""
    campaign_name: str = ""
    advertiser_id: str = ""
    agency_id: str = ""
    account_id: str = ""
    routes: tuple[str, ...] = ()
    language: str = "en"
    quiet_begins: str = ""
    quiet_ends: str = ""
    time_zone: str = "UTC"
    cause: str
    """What alerts of one cause share, for example `account:a-7`: one message tells of all of them."""
    seen: float | None = None
    expected: float | None = None
    unit: str = ""
    """Of `seen` and `expected`: micros, ratio, percent, hours, ms."""
    began_ms: int
    """Event time, epoch ms UTC."""
    changed_ms: int
    """Event time of this change."""
    decided_ms: int
    """Wall time of the tick that decided it."""
    text: Text
    sequence: int = 0


class SpendReport(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign's absolute spend, for the pools that it draws on (topic ads.spends, keyed by pool)."""

    campaign_id: str
    advertiser_id: str
    currency: str
    pool: PoolKind
    pool_id: str
    spend_micros: int
    """Valid spend since ever, in flight included."""
    day_start_ms: int
    day_spend_micros: int
    """Valid spend of the day that begins at `day_start_ms`, in flight included."""
    demand_micros_per_h: int
    """What it would spend an hour unthrottled, as estimated."""
    spend_last_hour_micros: int
    baseline_micros: int = 0
    """As the latest allowance of this pool told it."""
    baseline_as_of_ms: int = 0
    at_ms: int
    """Event time of the partition, epoch ms UTC."""
    sequence: int = 0


Signal = Alert | Control | SpendReport

LEAST_RATE: Final = 1e-6
"""Rates are multiples of this."""
