"""What comes in: one frozen struct per input topic, and `Rejected` for what is none of them.

The topic decides the type, so no event carries a tag. Unknown fields are tolerated and left out.
Units stand last in the names: `_ms` epoch milliseconds UTC, `_micros` millionths of a currency unit,
`_millimicros` thousandths of a micro (so that a price per mille is exact per impression).
JSON Schemas in schemas/events are generated from these types (`streams.jobs.schemas`).
"""

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

MAX_RECORD_BYTES = 65_536
"""A larger record is rejected as `too_large` before it is decoded."""

Id = Annotated[str, Meta(min_length=1, max_length=128)]
Label = Annotated[str, Meta(max_length=128)]
TimeMs = Annotated[int, Meta(ge=0, le=4_102_444_800_000)]  # up to the year 2100
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
DurationMs = Annotated[int, Meta(ge=0, le=86_400_000_000)]
AmountMicros = Annotated[int, Meta(ge=0, le=10**15)]
SignedAmountMicros = Annotated[int, Meta(ge=-(10**15), le=10**15)]
PriceMillimicros = Annotated[int, Meta(ge=0, le=10**15)]
UserAgent = Annotated[str, Meta(max_length=2048)]
Currency = Annotated[str, Meta(min_length=3, max_length=3)]
Pixels = Annotated[int, Meta(ge=0, le=100_000)]


class Input(StrEnum):
    """The event inputs, in the order in which tables list them."""

    IMPRESSIONS = "impressions"
    PLAYS = "plays"
    CLICKS = "clicks"
    CONVERSIONS = "conversions"
    ADJUSTMENTS = "adjustments"
    ENGAGEMENTS = "engagements"


class Reason(StrEnum):
    """Why a record was not counted: at once the dead letter's field and the metric's label."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    NOT_UTF8 = "not_utf8"
    MALFORMED_JSON = "malformed_json"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_VALUE = "unknown_value"
    OUT_OF_RANGE = "out_of_range"
    PAID_WITHOUT_CAMPAIGN = "paid_without_campaign"
    MONEY_WITHOUT_CURRENCY = "money_without_currency"
    FUTURE = "future"
    INTERNAL_ERROR = "internal_error"


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A record that is no event: why, and where in the document (`$.ts`; `$` is the whole)."""

    reason: Reason
    path: str = "$"


class Traffic(StrEnum):
    PAID = "paid"
    ORGANIC = "organic"


class Milestone(StrEnum):
    START = "start"
    THREE_SECONDS = "3s"
    FIVE_SECONDS = "5s"
    COMPLETE = "complete"


class ClickType(StrEnum):
    CARD = "card"
    BUTTON = "button"
    COVER = "cover"
    LIVE_ROOM_ENTRY = "live_room_entry"
    PROFILE = "profile"
    OTHER = "other"


class ConversionType(StrEnum):
    LEAD = "lead"
    ADD_TO_CART = "add_to_cart"
    ORDER = "order"
    PAID = "paid"
    INSTALL = "install"
    OTHER = "other"


class TouchType(StrEnum):
    CLICK = "click"
    VIEW = "view"
    PLAY = "play"
    NONE = "none"


class AdjustmentType(StrEnum):
    CANCEL = "cancel"
    REFUND = "refund"
    CHARGEBACK = "chargeback"
    REJECTED_LEAD = "rejected_lead"


class EngagementType(StrEnum):
    LIKE = "like"
    COMMENT = "comment"
    SHARE = "share"
    FOLLOW = "follow"
    UNFOLLOW = "unfollow"
    NEGATIVE_FEEDBACK = "negative_feedback"


class Experiment(msgspec.Struct, frozen=True, gc=False):
    """One experiment that the request took part in."""

    id: Annotated[Id, Meta(description="Experiment.")]
    arm: Annotated[Id, Meta(description="Arm of the experiment; the first experiment's `id=arm` is the variant.")]


class Item(msgspec.Struct, frozen=True, gc=False):
    """One order line."""

    product_id: Annotated[Id, Meta(description="Product.")]
    quantity: Annotated[Count, Meta(description="Pieces.")] = 1
    value_micros: Annotated[AmountMicros, Meta(description="Value of the line, micros of `currency`.")] = 0


class Attribution(msgspec.Struct, frozen=True, gc=False):
    """Decided upstream and carried: which touch this conversion is credited to."""

    touch_type: Annotated[TouchType, Meta(description="click, view, play, or none (unattributed).")]
    touch_id: Annotated[Id | None, Meta(description="Event id of the touch.")] = None
    touch_time_ms: Annotated[TimeMs | None, Meta(description="Event time of the touch, epoch ms UTC.")] = None
    model: Annotated[Label | None, Meta(description="Attribution model, for example last_click.")] = None
    window_ms: Annotated[DurationMs | None, Meta(description="Attribution window, ms.")] = None
    weight_ppm: Annotated[int, Meta(ge=0, le=1_000_000, description="Share credited, millionths; 1000000 is all.")] = (
        1_000_000
    )


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What every event carries. Optional identifiers are null where they do not apply."""

    event_id: Annotated[Id, Meta(description="Unique per topic: the id by which redeliveries are recognised.")]
    event_time_ms: Annotated[TimeMs, Meta(description="The collector's time, epoch ms UTC. It decides.")]
    schema_version: Annotated[int, Meta(ge=1, le=1000, description="Version of this document's schema.")] = 1
    client_time_ms: Annotated[
        int | None, Meta(description="The client's own clock, epoch ms UTC. Never decides anything.")
    ] = None
    traffic: Annotated[Traffic, Meta(description="paid (has a campaign) or organic (may have none).")] = Traffic.PAID
    request_id: Annotated[Id | None, Meta(description="Ad request.")] = None
    impression_id: Annotated[Id | None, Meta(description="Event id of the impression this belongs to.")] = None
    campaign_id: Annotated[Id | None, Meta(description="Campaign; null for organic traffic. The record's key.")] = None
    ad_unit_id: Annotated[Id | None, Meta(description="Ad unit (ad group).")] = None
    creative_id: Annotated[Id | None, Meta(description="Creative.")] = None
    account_id: Annotated[Id | None, Meta(description="Account that is billed.")] = None
    advertiser_id: Annotated[Id | None, Meta(description="Advertiser.")] = None
    agency_id: Annotated[Id | None, Meta(description="Agency.")] = None
    publisher_id: Annotated[Id | None, Meta(description="Publisher.")] = None
    creator_id: Annotated[Id | None, Meta(description="Creator of the video or host of the live session.")] = None
    live_session_id: Annotated[Id | None, Meta(description="Live session.")] = None
    video_id: Annotated[Id | None, Meta(description="Video.")] = None
    shop_id: Annotated[Id | None, Meta(description="Shop.")] = None
    product_id: Annotated[Id | None, Meta(description="Product advertised.")] = None
    audience_id: Annotated[Id | None, Meta(description="Audience targeted.")] = None
    order_id: Annotated[Id | None, Meta(description="Order.")] = None
    user_id: Annotated[Id | None, Meta(description="User: a pseudonym, keyed by `identity_key_id`.")] = None
    device_id: Annotated[Id | None, Meta(description="Device: a pseudonym.")] = None
    address_id: Annotated[Id | None, Meta(description="Client address: a pseudonym.")] = None
    network: Annotated[Label | None, Meta(description="Derived from the address before it was hashed: prefix.")] = None
    identity_key_id: Annotated[Label | None, Meta(description="Key with which the pseudonyms were made.")] = None
    region: Annotated[Label | None, Meta(description="Region, ISO 3166-2 where known.")] = None
    channel: Annotated[Label | None, Meta(description="Channel, for example feed, search, live, exchange-1.")] = None
    placement: Annotated[Label | None, Meta(description="Placement.")] = None
    placement_width_px: Annotated[Pixels | None, Meta(description="Placement's width, CSS pixels.")] = None
    placement_height_px: Annotated[Pixels | None, Meta(description="Placement's height, CSS pixels.")] = None
    device_class: Annotated[Label | None, Meta(description="phone, tablet, desktop, tv, …")] = None
    user_agent: Annotated[UserAgent | None, Meta(description="User agent as sent by the client.")] = None
    experiments: Annotated[
        tuple[Experiment, ...], Meta(max_length=16, description="At most 16; the first is the variant.")
    ] = ()
    currency: Annotated[Currency | None, Meta(description="ISO 4217 code of every amount in this event.")] = None


class Priced(Event, frozen=True, gc=False, kw_only=True):
    """An event that may carry its own clearing price."""

    clearing_price_millimicros: Annotated[
        PriceMillimicros | None,
        Meta(description="Cost of this one event, thousandths of a micro; equals micros per mille for CPM."),
    ] = None


class Impression(Priced, frozen=True, gc=False, kw_only=True):
    """An ad began to render."""

    input: ClassVar[Input] = Input.IMPRESSIONS
    viewable: Annotated[bool | None, Meta(description="Met the MRC viewability threshold; null: unmeasured.")] = None
    prefetch: Annotated[bool, Meta(description="Rendered ahead of being shown.")] = False


class Play(Priced, frozen=True, gc=False, kw_only=True):
    """A video reached a milestone. Only the first loop counts towards rates."""

    input: ClassVar[Input] = Input.PLAYS
    milestone: Annotated[Milestone, Meta(description="start, 3s, 5s or complete.")]
    watched_ms: Annotated[DurationMs, Meta(description="Watched since the milestone before, ms.")] = 0
    video_ms: Annotated[DurationMs | None, Meta(description="Length of the video, ms.")] = None
    loop: Annotated[int, Meta(ge=1, le=100_000, description="Loop number, the first is 1.")] = 1
    viewable: Annotated[
        bool | None, Meta(description="True on the one milestone at which the MRC threshold was first met.")
    ] = None


class Click(Priced, frozen=True, gc=False, kw_only=True):
    """A user clicked."""

    input: ClassVar[Input] = Input.CLICKS
    click_type: Annotated[ClickType, Meta(description="What was clicked.")] = ClickType.OTHER


class Conversion(Event, frozen=True, gc=False, kw_only=True):
    """A user did what the advertiser wants, as attributed upstream."""

    input: ClassVar[Input] = Input.CONVERSIONS
    conversion_type: Annotated[ConversionType, Meta(description="lead, add_to_cart, order, paid, install, other.")]
    quantity: Annotated[Count, Meta(description="Pieces.")] = 1
    value_micros: Annotated[AmountMicros | None, Meta(description="Value, micros of `currency`.")] = None
    cost_of_goods_micros: Annotated[AmountMicros | None, Meta(description="Cost of goods, micros.")] = None
    discount_micros: Annotated[AmountMicros | None, Meta(description="Discount given, micros.")] = None
    items: Annotated[tuple[Item, ...], Meta(max_length=100, description="Order lines, at most 100.")] = ()
    attribution: Annotated[Attribution | None, Meta(description="Null: unattributed.")] = None


class Adjustment(Event, frozen=True, gc=False, kw_only=True):
    """Something was taken back: a later event of its own, never a rewriting of the first."""

    input: ClassVar[Input] = Input.ADJUSTMENTS
    adjustment_type: Annotated[AdjustmentType, Meta(description="cancel, refund, chargeback or rejected_lead.")]
    adjusted_event_id: Annotated[Id, Meta(description="Event id of the conversion adjusted.")]
    adjusted_event_time_ms: Annotated[TimeMs, Meta(description="Its event time, epoch ms UTC.")]
    order_line: Annotated[Label | None, Meta(description="Order line, where only one is adjusted.")] = None
    amount_micros: Annotated[SignedAmountMicros, Meta(description="Signed: a refund is negative, micros.")] = 0


class Engagement(Event, frozen=True, gc=False, kw_only=True):
    """A user reacted."""

    input: ClassVar[Input] = Input.ENGAGEMENTS
    engagement_type: Annotated[EngagementType, Meta(description="like, comment, share, follow, …")]


EVENT_TYPES: dict[Input, type[Event]] = {
    Input.IMPRESSIONS: Impression,
    Input.PLAYS: Play,
    Input.CLICKS: Click,
    Input.CONVERSIONS: Conversion,
    Input.ADJUSTMENTS: Adjustment,
    Input.ENGAGEMENTS: Engagement,
}
