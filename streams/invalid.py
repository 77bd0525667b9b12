"""Invalid traffic in the field's terms: what is judged, by which rules, under which thresholds, and what is told.

Part of `streams.rules.Rules`: what counts as invalid is journaled, so that history is judged by the rules of its time
and a replay can ask what other rules would have found. Classes after the MRC's Invalid Traffic Detection and Filtration
Standards (2020): general (GIVT) by lists and parameters, sophisticated (SIVT) by evidence from many events.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from streams.events import ClickType, ConversionType

Positive = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Window = Annotated[int, Meta(ge=1_000, le=86_400_000)]
Delay = Annotated[int, Meta(ge=0, le=86_400_000)]
MAX_REPEATS: Final = 10
"""So many clicks on one impression can be told apart."""
Repeats = Annotated[int, Meta(ge=1, le=MAX_REPEATS)]
MAX_NETWORKS: Final = 100_000
MAX_PATTERNS: Final = 5_000
MAX_LIST_BYTES: Final = 700_000
"""Of the packed list of data centres: it must fit a record of the journal, base64-encoded."""


class Validity(StrEnum):
    """What an event counts as. Gross is the sum over all three."""

    VALID = "valid"
    GIVT = "givt"
    SIVT = "sivt"


class Mode(StrEnum):
    """What a rule's flag does: excludes from valid figures, is only told, or is not made."""

    ON = "on"
    OBSERVE = "observe"
    OFF = "off"


class Rule(StrEnum):
    """Every rule, in the order of the bits in which events carry their flags."""

    DECLARED_BOT = "declared_bot"
    NON_BROWSER_AGENT = "non_browser_agent"
    DATA_CENTRE = "data_centre"
    PREFETCH = "prefetch"
    HIDDEN_PLACEMENT = "hidden_placement"
    DOUBLE_CLICK = "double_click"
    ACTIVITY_CAP = "activity_cap"
    CLICK_WITHOUT_IMPRESSION = "click_without_impression"
    CLICK_BEFORE_IMPRESSION = "click_before_impression"
    CLICK_TOO_SOON = "click_too_soon"
    REPEATED_CLICK = "repeated_click"
    CONVERSION_WITHOUT_CLICK = "conversion_without_click"
    CONVERSION_TOO_SOON = "conversion_too_soon"
    ORDER_REPEATED = "order_repeated"
    USER_VELOCITY = "user_velocity"
    DEVICE_VELOCITY = "device_velocity"
    ADDRESS_VELOCITY = "address_velocity"
    DEVICE_FAN_OUT = "device_fan_out"
    ADDRESS_FAN_OUT = "address_fan_out"
    PUBLISHER_FLOODING = "publisher_flooding"
    PUBLISHER_TIMING = "publisher_timing"
    REVIEW = "review"


BIT: Final = {rule: 1 << at for at, rule in enumerate(Rule)}
GENERAL: Final = (
    *(Rule.DECLARED_BOT, Rule.NON_BROWSER_AGENT, Rule.DATA_CENTRE, Rule.PREFETCH, Rule.HIDDEN_PLACEMENT),
    *(Rule.DOUBLE_CLICK, Rule.ACTIVITY_CAP),
)
"""GIVT. The others are SIVT; a reviewer's word outranks both."""


def class_of(rule: Rule) -> Validity:
    """GIVT or SIVT."""
    return Validity.GIVT if rule in GENERAL else Validity.SIVT


class SourceKind(StrEnum):
    """What evidence is keyed by."""

    USER = "user"
    DEVICE = "device"
    ADDRESS = "address"
    PUBLISHER = "publisher"


_DEFAULT_MODES: Final = {rule: Mode.ON if rule in GENERAL else Mode.OBSERVE for rule in Rule} | {
    Rule.NON_BROWSER_AGENT: Mode.OBSERVE,
    Rule.ACTIVITY_CAP: Mode.OBSERVE,
    Rule.REVIEW: Mode.ON,
}


class Counted(NamedTuple):
    """Click types that are counted together, and how many of their clicks are too many."""

    types: tuple[ClickType, ...]
    clicks: int


class Velocity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many distinct clicks in a sliding window of event time, and every click of the window is flagged."""

    clicks: Positive
    window_ms: Window
    clicks_by_type: dict[ClickType, Positive] = {}
    """Of click types that differ: each of them is counted by itself, the others are counted together."""

    def counted(self, types: Iterable[ClickType]) -> list[Counted]:
        """What is counted apart, of these types: first those without a number of their own."""
        asked = tuple(types)
        others = tuple(each for each in asked if each not in self.clicks_by_type)
        own = [Counted((each,), self.clicks_by_type[each]) for each in asked if each in self.clicks_by_type]
        return [Counted(others, self.clicks), *own] if others else own


class FanOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many distinct campaigns and users in a sliding window, or very many of either: all its clicks are flagged."""

    campaigns: Positive
    window_ms: Window
    users: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """0: users do not matter."""
    campaigns_alone: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """So many campaigns, however few the users; 0: no number of them is enough."""
    users_alone: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """So many users, however few the campaigns; 0: no number of them is enough."""


class Lists(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What general rules look up. Journaled whole: the same list judges again in recovery and replay."""

    crawler_patterns: tuple[str, ...] = ()
    """Regular expressions of declared bots, from the package crawler-user-agents."""
    crawlers_version: str = ""
    networks: bytes = b""
    """Data centres' networks, CIDR, one a line, zlib-compressed."""
    networks_as_of: str = ""
    """The list's date, ISO 8601."""


class InvalidRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Switches, thresholds and lists. Sophisticated rules ship in `observe`.

    Sources: ClickCease's defaults (3 clicks in 10 minutes) fit search ads; a flash sale's users tap twenty cards, so
    the thresholds here are for a short-video platform. Injection: under 2 s from click to conversion (AppsFlyer,
    Adjust).
    """

    modes: dict[Rule, Mode] = msgspec.field(default_factory=dict)
    """Of rules that differ from their defaults."""
    lists: Lists = msgspec.field(default_factory=Lists)

    double_click_ms: Delay = 1_000
    """A second click of one user on one creative within this is the second half of a double click (MRC)."""
    double_click_by_type_ms: dict[ClickType, Delay] = {}
    """Of click types that differ: for one that people repeat at once on purpose, a shorter time or 0."""
    activity_clicks: Positive = 200
    """Clicks of one user or device on one campaign in one clock hour; those beyond it are flagged."""
    activity_clicks_by_type: dict[ClickType, Positive] = {}
    """Of click types that differ: each of them is counted by itself, the others are counted together."""
    hidden_below_px: Annotated[int, Meta(ge=0, le=100)] = 2
    """A placement with a side below this is hidden: 0×0 and 1×1."""

    impression_wait_ms: Window = 60_000
    """A click's impression is missed once impressions have been read so far beyond the click."""
    click_after_ms: Delay = 300
    """Nobody sees and clicks within less: human reaction takes 200 to 250 ms."""
    click_after_by_type_ms: dict[ClickType, Delay] = {}
    """Of click types that differ: a swipe into a live room that is on its way lands at once."""
    max_clicks_per_impression: Repeats = 3
    """Distinct clicks on one impression; those beyond it are replayed."""
    max_clicks_per_impression_by_type: dict[ClickType, Repeats] = {}
    """Of click types that differ: a shelf of cards is one impression. Counted as for the activity cap."""
    click_wait_ms: Window = 60_000
    """A conversion's click is missed once clicks have been read so far beyond the conversion."""
    conversion_after_ms: dict[ConversionType, Delay] = msgspec.field(
        default_factory=lambda: {ConversionType.INSTALL: 2_000, ConversionType.LEAD: 1_000, ConversionType.OTHER: 1_000}
    )
    """Sooner after its click it was injected. Types left out have no bound: one-tap orders take seconds."""

    user_velocity: Velocity = Velocity(60, 600_000)
    device_velocity: Velocity = Velocity(60, 600_000)
    address_velocity: Velocity = Velocity(2_000, 600_000)
    """An address alone never convicts: this rule only speaks where users or devices of the address also click unlike
    people (see its description)."""
    velocity_types: tuple[ClickType, ...] = tuple(ClickType)
    """Click types that the three velocities count."""
    device_fan_out: FanOut = FanOut(20, 3_600_000, 5, users_alone=30)
    address_fan_out: FanOut = FanOut(200, 3_600_000, 500)

    flooding_min_clicks: Positive = 500
    flooding_window_ms: Window = 6 * 3_600_000
    flooding_ratio: Annotated[float, Meta(ge=1.0, le=1e6)] = 5.0
    """A source's click-to-conversion rate is below its peers' by at least this factor, and by chance only …"""
    flooding_p: Annotated[float, Meta(gt=0.0, le=0.1)] = 1e-4
    """… with less than this probability, beta-binomial over its peers."""
    timing_min_conversions: Positive = 50
    timing_p: Annotated[float, Meta(gt=0.0, le=0.1)] = 1e-6
    """Distribution of click-to-conversion times against its peers' on the same campaigns: chi-square, per source."""

    def __post_init__(self) -> None:
        for name in ("user_velocity", "device_velocity", "address_velocity"):
            idle = [each for each in getattr(self, name).clicks_by_type if each not in self.velocity_types]
            if idle:
                raise ValueError(f"{name}.clicks_by_type: {', '.join(idle)} not counted; add to velocity_types")

    def mode(self, rule: Rule) -> Mode:
        """What the rule's flags do."""
        return self.modes.get(rule, _DEFAULT_MODES[rule])

    def click_after(self, click_type: ClickType) -> int:
        """How soon after its impression a click of this type may come, ms."""
        return self.click_after_by_type_ms.get(click_type, self.click_after_ms)

    def double_click(self, click_type: ClickType) -> int:
        """How soon after the last a click of this type is the second half of a double click, ms."""
        return self.double_click_by_type_ms.get(click_type, self.double_click_ms)

    def most_active(self, click_type: ClickType) -> int:
        """Clicks of this type, of one person on one campaign in an hour."""
        return self.activity_clicks_by_type.get(click_type, self.activity_clicks)

    def most_repeats(self, click_type: ClickType) -> int:
        """Clicks of this type on one impression."""
        return self.max_clicks_per_impression_by_type.get(click_type, self.max_clicks_per_impression)

    @property
    def active(self) -> int:
        """Bits of the rules that are not off."""
        return sum(BIT[rule] for rule in Rule if self.mode(rule) is not Mode.OFF)

    @property
    def excluding(self) -> int:
        """Bits of the rules whose flags exclude."""
        return sum(BIT[rule] for rule in Rule if self.mode(rule) is Mode.ON)


GENERAL_BITS: Final = sum(BIT[rule] for rule in GENERAL)


def validity_of(bits: int, excluding: int) -> Validity:
    """What an event with these flags counts as: general rules are told first, for they need no further evidence."""
    found = bits & excluding
    if not found:
        return Validity.VALID
    return Validity.GIVT if found & GENERAL_BITS else Validity.SIVT
