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
    """What a campaign may draw on a pool (topic ads.allowances, keyed by campaign): an absolute limit of its spend.

    `baseline_micros` and `as_of_ms` are told back in the campaign's reports, so that whoever adds them up needs to
    remember nothing.
    """

    campaign_id: Annotated[Id, Meta(description="Campaign. The record's key.")]
    pool: Annotated[PoolKind, Meta(description="balance or shared_budget.")]
    pool_id: Annotated[Id, Meta(description="Account, or shared budget.")]
    currency: Annotated[str, Meta(description="ISO 4217 code of the pool, and of the campaign.")]
    limit_micros: Annotated[
        SignedAmountMicros,
        Meta(
            description="The campaign's spend may reach this, micros: of the day that begins at day_start_ms, "
            "or, without one, since ever."
        ),
    ]
    day_start_ms: Annotated[
        int | None, Meta(description="Begin of the day that the limit is for, epoch ms UTC; null: it has none.")
    ] = None
    left_micros: Annotated[
        SignedAmountMicros, Meta(description="What the pool has left for all of its campaigns, micros.")
    ]
    pool_micros: Annotated[
        AmountMicros,
        Meta(description="Of a shared budget: what all of its campaigns may spend of the day, micros; 0: not told."),
    ] = 0
    burn_micros_per_h: Annotated[
        AmountMicros, Meta(description="What its campaigns spent together in the last hour, micros.")
    ] = 0
    baseline_micros: Annotated[
        SignedAmountMicros,
        Meta(
            description="Of a balance: the campaign's spend since ever as of as_of_ms, micros. "
            "Of a shared budget: the limit."
        ),
    ] = 0
    as_of_ms: Annotated[
        int,
        Meta(
            description="Of a balance: the time that it is stated for, epoch ms UTC. "
            "Of a shared budget: when the limit was reckoned, wall time, epoch ms UTC; its sequence."
        ),
    ] = 0
    sequence: Annotated[Sequence64, Meta(description="Later is higher; consumers keep the highest of each pool.")]


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
    NO_ALLOWANCE = "no_allowance"
    UNKNOWN_INPUT = "unknown_input"
    UNPACED = "unpaced"
    """Nothing limits its spend any more: the last control, and it holds for good."""


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a campaign's traffic the ad server lets through (topic ads.pacing, keyed by campaign)."""

    campaign_id: Annotated[str, Meta(description="Campaign. The record's key.")]
    rate: Annotated[
        float, Meta(description="Share of auctions or requests to take part in, 0 to 1, in steps of a millionth.")
    ]
    reason: Annotated[RateReason, Meta(description="Why the rate is what it is.")]
    valid_until_ms: Annotated[int, Meta(description="Wall time, epoch ms UTC. Behind it, assume rate_when_stale.")]
    rate_when_stale: Annotated[
        float,
        Meta(description="What to assume when no newer control has come by then, 0 to 1: never more than rate."),
    ]
    spend_micros: Annotated[int, Meta(description="Valid spend of the period that this control reflects, micros.")]
    period_start_ms: Annotated[int, Meta(description="Begin of that period, epoch ms UTC.")]
    decided_ms: Annotated[int, Meta(description="Wall time of the tick that decided it, epoch ms UTC.")]
    sequence: Annotated[int, Meta(description="Later is higher; consumers keep the highest of each campaign.")] = 0


class AlertState(StrEnum):
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Audience(StrEnum):
    ADVERTISER = "advertiser"
    OPERATIONS = "operations"


class Text(msgspec.Struct, frozen=True):
    """One sentence that a person understands, in both languages."""

    en: Annotated[str, Meta(description="English.")]
    zh: Annotated[str, Meta(description="Chinese.")]


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One change in the life of an alert (topic ads.alerts, keyed by campaign; operations': by partition)."""

    alert_id: Annotated[
        str, Meta(description="Of this occurrence: of kind, campaign, and the event time at which it began.")
    ]
    kind: Annotated[AlertKind, Meta(description="What it tells about.")]
    state: Annotated[AlertState, Meta(description="pending, firing or resolved.")]
    audience: Annotated[Audience, Meta(description="advertiser or operations.")]
    is_pushed: Annotated[bool, Meta(description="Pushed; otherwise told in the digest.")]
    campaign_id: Annotated[str, Meta(description="Campaign; empty: it is about none.")] = ""
    campaign_name: Annotated[str, Meta(description="Name for people.")] = ""
    advertiser_id: Annotated[str, Meta(description="Advertiser.")] = ""
    agency_id: Annotated[str, Meta(description="Agency.")] = ""
    account_id: Annotated[str, Meta(description="Account that is billed.")] = ""
    routes: Annotated[
        tuple[str, ...], Meta(description="Names of the routes that it takes; none: the advertiser's.")
    ] = ()
    language: Annotated[str, Meta(description="en or zh: what the receiver reads.")] = "en"
    quiet_begins: Annotated[str, Meta(description="HH:MM, when nothing is pushed from; empty: never.")] = ""
    quiet_ends: Annotated[str, Meta(description="HH:MM, when nothing is pushed until.")] = ""
    time_zone: Annotated[str, Meta(description="IANA time zone of the quiet hours, and of times in texts.")] = "UTC"
    cause: Annotated[
        str,
        Meta(description="What alerts of one cause share, as account:a-7: one message tells of all of them."),
    ]
    seen: Annotated[float | None, Meta(description="What was seen, in unit; null: there is no number.")] = None
    expected: Annotated[float | None, Meta(description="What was expected, in unit; null: there is no number.")] = None
    unit: Annotated[str, Meta(description="Of seen and expected: micros, ratio, percent, hours, ms.")] = ""
    began_ms: Annotated[int, Meta(description="When it began, event time, epoch ms UTC.")]
    changed_ms: Annotated[int, Meta(description="When this change happened, event time, epoch ms UTC.")]
    decided_ms: Annotated[int, Meta(description="Wall time of the tick that decided it, epoch ms UTC.")]
    text: Annotated[Text, Meta(description="One sentence.")]
    sequence: Annotated[int, Meta(description="Later is higher; consumers keep the highest of each alert.")] = 0


class SpendReport(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign's absolute spend, for the pools that it draws on (topic ads.spends, keyed by pool)."""

    campaign_id: Annotated[str, Meta(description="Campaign.")]
    advertiser_id: Annotated[str, Meta(description="Advertiser; empty: unknown.")]
    currency: Annotated[str, Meta(description="ISO 4217 code of all amounts.")]
    pool: Annotated[PoolKind, Meta(description="balance or shared_budget.")]
    pool_id: Annotated[str, Meta(description="Account, or shared budget. The record's key.")]
    spend_micros: Annotated[
        int,
        Meta(
            description="Valid spend since ever, in flight included, micros. Credits that came after their day "
            "had closed are not taken off: they are for billing."
        ),
    ]
    day_start_ms: Annotated[int, Meta(description="Begin of the campaign's day, epoch ms UTC.")]
    day_spend_micros: Annotated[int, Meta(description="Valid spend of that day, in flight included, micros.")]
    demand_micros_per_h: Annotated[
        int, Meta(description="What it would spend an hour unthrottled, as estimated, micros; 0: unknown.")
    ]
    spend_last_hour_micros: Annotated[int, Meta(description="Valid spend of the last hour, micros.")]
    baseline_micros: Annotated[
        int, Meta(description="As the latest allowance of this pool told it, micros; 0: there was none.")
    ] = 0
    baseline_as_of_ms: Annotated[
        int, Meta(description="as_of_ms of the latest allowance of this pool, epoch ms UTC; 0: there was none.")
    ] = 0
    at_ms: Annotated[int, Meta(description="Event time of the partition, epoch ms UTC.")]
    sequence: Annotated[int, Meta(description="Later is higher; consumers keep the highest of each campaign.")] = 0


Signal = Alert | Control | SpendReport

LEAST_RATE: Final = 1e-6
"""Rates are multiples of this."""
