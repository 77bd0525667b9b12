"""What can be asked: the parameters of every operation, as types, and cursors.

Values are judged by these types and nothing else; a name that no type has is refused. They reach ClickHouse as bound
values only.
"""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from streams.invalid import Rule
from streams.terms import AlertKind

MAX_PAGE: Final = 200
MAX_MINUTES: Final = 1_500
Window = Literal["1m", "5m", "15m", "1h", "day", "total"]
Order = Literal["asc", "desc"]
SortKey = Literal["name", "spend", "impressions", "clicks", "conversions", "ctr", "cvr", "invalid"]
AnId = Annotated[str, Meta(min_length=1, max_length=128)]
Cursor = Annotated[str, Meta(min_length=1, max_length=1_000, description="next_cursor of the page before. Opaque.")]
Search = Annotated[str, Meta(max_length=100, description="Part of an id or a name.")]
Moment = Annotated[datetime, Meta(tz=True)]
Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE, description="Entries of a page, at most.")]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of a query string. What is absent is UNSET: `null` is a text there, and no number or kind."""


class Nothing(Parameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No parameters."""


class CampaignsAsked(Parameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of campaigns."""

    window: Annotated[Window, Meta(description="Window that the figures are of.")] = "day"
    search: Search | UnsetType = UNSET
    sort: Annotated[SortKey, Meta(description="What the page is ordered by.")] = "spend"
    order: Annotated[Order, Meta(description="asc or desc.")] = "desc"
    limit: Limit = 25
    cursor: Cursor | UnsetType = UNSET


class DaysAsked(Parameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Days of a campaign."""

    limit: Annotated[int, Meta(ge=1, le=400, description="Newest days, at most.")] = 14


class MinutesAsked(Parameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A time series of a campaign."""

    begins: Annotated[
        Moment | UnsetType, Meta(description="First minute, included; absent: two hours before the end.")
    ] = UNSET
    ends: Annotated[Moment | UnsetType, Meta(description="End, excluded; absent: the newest minute.")] = UNSET
    step_s: Annotated[
        Literal[60, 300, 900, 3600], Meta(description="Length of a step. At most 1,500 steps are answered.")
    ] = 60


class AlertsAsked(Parameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of alerts."""

    campaign_id: AnId | UnsetType = UNSET
    state: Literal["pending", "firing", "resolved", "lost"] | UnsetType = UNSET
    kind: AlertKind | UnsetType = UNSET
    limit: Limit = 50
    cursor: Cursor | UnsetType = UNSET


class FlagsAsked(Parameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of flags."""

    campaign_id: AnId | UnsetType = UNSET
    rule: Rule | UnsetType = UNSET
    invalid_class: Literal["givt", "sivt"] | UnsetType = UNSET
    state: Literal["raised", "withdrawn", "overturned", "confirmed"] | UnsetType = UNSET
    limit: Limit = 50
    cursor: Cursor | UnsetType = UNSET


class EventsAsked(Parameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stream of live updates."""

    window: Window = "day"


class BadCursor(ValueError):
    """A cursor that is none, or of another list."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a page ended: what it was ordered by, the last value, and the last id."""

    order: str
    value: float | str
    entry_id: str


def encode_cursor(place: Place) -> str:
    """As text for a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def decode_cursor(text: str | UnsetType | None, order: str) -> Place | None:
    """Where to go on, or None at the begin.

    Raises:
        BadCursor: it is none, or of a list in another order.
    """
    if not text:
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        place = msgspec.json.decode(raw, type=Place)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise BadCursor("is no cursor of this list; begin without one") from None
    if place.order != order:
        raise BadCursor("is the cursor of a list in another order; begin without one")
    return place
