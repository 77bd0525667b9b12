"""What generated traffic is like: one frozen profile, of which (with a seed) the traffic is a function."""

from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from streams.documents import known_zones
from streams.errors import ConfigurationError

DEFAULT_START_MS: Final = 1_793_577_600_000
"""2026-11-02, a Monday, 00:00 UTC: where history begins unless told otherwise."""
DAY_MS: Final = 86_400_000

Share = Annotated[float, Meta(ge=0, le=1)]
Duration = Annotated[int, Meta(ge=1, le=10 * 366 * DAY_MS)]
Few = Annotated[int, Meta(ge=1, le=100)]
Hour = Annotated[int, Meta(ge=0, le=24)]


class Attack(StrEnum):
    """What is not honest. A double tap is nobody's attack, and yet invalid by the rules of the MRC."""

    CRAWLER = "crawler"
    DATA_CENTRE = "data_centre"
    CLICK_FARM = "click_farm"
    FLOODING = "flooding"
    INJECTION = "injection"
    REPLAY = "replay"
    BOTNET = "botnet"
    DOUBLE_CLICK = "double_click"


class Oddity(StrEnum):
    """What honest traffic does although it looks strange."""

    OFFICE = "office"
    CARRIER = "carrier"
    PREFETCH = "prefetch"
    VIRAL_BURST = "viral_burst"
    FLASH_SALE = "flash_sale"
    ONE_TAP = "one_tap"
    LATE_CONVERSION = "late_conversion"


USUAL_SHARES: Final[dict[str, float]] = {
    **dict.fromkeys(Attack, 0.02),
    Attack.DOUBLE_CLICK: 0.005,
    Oddity.OFFICE: 0.1,
    Oddity.CARRIER: 0.55,
    Oddity.PREFETCH: 0.02,
    Oddity.VIRAL_BURST: 0.03,
    Oddity.FLASH_SALE: 0.03,
    Oddity.ONE_TAP: 0.01,
    Oddity.LATE_CONVERSION: 0.002,
}
"""Where a kind is asked for without a share."""
MAX_ATTACKED: Final = 0.9


class TrafficProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shares are of 1, times are event times. Make one with `traffic_profile`, which checks it."""

    start_ms: Annotated[int, Meta(ge=0, le=32_000_000_000_000)] | None = None
    """First event time, epoch ms UTC. None: now where the traffic is paced by the clock, else `DEFAULT_START_MS`."""
    duration_ms: Duration | None = None
    """Nothing is delivered that long after the start, or later; None: endless."""
    rate: Annotated[float, Meta(gt=0, le=10_000_000)] = 2_000.0
    """Events of all inputs per second of event time, in the mean over a week (at any time with `cycle` off)."""
    cycle: bool = True
    """Busy evenings and week-ends, quiet nights; off: the rate is flat."""
    time_zone: str = "Asia/Shanghai"
    """IANA zone of that cycle and of most campaigns."""

    campaigns: Annotated[int, Meta(ge=1, le=100_000)] = 20
    campaign_skew: Annotated[float, Meta(ge=0, le=3)] = 1.0
    """Exponent of the Zipf distribution of traffic over campaigns."""
    ad_units_per_campaign: Few = 2
    creatives_per_ad_unit: Few = 3
    users: Annotated[int, Meta(ge=1, le=100_000_000)] = 50_000
    user_skew: Annotated[float, Meta(ge=0, lt=1)] = 0.3
    """Exponent of the Zipf distribution of traffic over users. Much above this the first of them clicks like a bot."""
    catalogue_seed: int = 0
    """Decides the campaigns' own rates and prices, so that several seeds can run on the same campaigns."""

    ctr: Annotated[float, Meta(ge=0, le=0.2)] = 0.03
    """Clicks per impression, in the mean over creatives; each has its own between 0.3 and 1.7 times this."""
    cvr: Annotated[float, Meta(ge=0, le=0.5)] = 0.04
    """Conversions of the campaign's goal per click, in the mean over creatives."""
    video_share: Share = 0.6
    """Share of creatives that are videos."""
    organic_share: Share = 0.12
    refund_share: Share = 0.08
    """Of paid orders."""

    live_share: Share = 0.5
    """Share of all traffic that the first campaign's live shop has while it is on; 0: there is none."""
    live_from_hour: Hour = 20
    live_to_hour: Hour = 22
    """Local hours of the live shop, each evening; 0 to 24: always."""

    duplicate_share: Share = 0.005
    """Delivered twice: mostly the very same bytes, one in three times the same id with a later event time."""
    out_of_order_share: Share = 0.01
    """Delivered late, by at most `max_disorder_ms`."""
    max_disorder_ms: Duration = 20_000
    max_redelivery_ms: Duration = 60_000
    """A duplicate comes at most that long after the first delivery."""
    compress: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Scales what takes long (conversions, payments, refunds): with 0.001 an hour becomes 3.6 s."""
    detail: Literal["full", "lean"] = "full"
    """lean leaves out what counts nothing (account, product, device, network, user agent, placement, …)."""
    max_pending: Annotated[int, Meta(ge=1_000, le=50_000_000)] = 500_000
    """Events kept for later at most (about 250 B each); beyond it the long tail of conversions is cut."""

    attacks: dict[Attack, Share] = {}
    """Share of all clicks that each attacker makes. The honest events are the same with any."""
    oddities: dict[Oddity, Share] = msgspec.field(
        default_factory=lambda: {kind: USUAL_SHARES[kind] for kind in (Oddity.OFFICE, Oddity.CARRIER)}
    )
    """office, carrier: of users; prefetch: of impressions that were seen; viral_burst, flash_sale: further clicks, of
    the others; one_tap: clicks that lead to an order at once; late_conversion: for each click, a conversion that is
    credited to a click of the days before the start."""

    @property
    def first_ms(self) -> int:
        """The first event time."""
        return DEFAULT_START_MS if self.start_ms is None else self.start_ms

    @property
    def end_ms(self) -> float:
        """Where delivery ends, excluded; infinite without a duration."""
        return float("inf") if self.duration_ms is None else self.first_ms + self.duration_ms


def traffic_profile(**choices: object) -> TrafficProfile:
    """A checked profile.

    Raises:
        ConfigurationError: a name is unknown, or a value out of bounds; the message names it.
    """
    try:
        profile = msgspec.convert(choices, TrafficProfile)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"traffic: {error}; mend the option") from None
    if profile.time_zone not in known_zones():
        raise ConfigurationError(f"traffic: time_zone {profile.time_zone!r} is no IANA zone; use one such as UTC")
    if profile.live_from_hour > profile.live_to_hour:
        raise ConfigurationError("traffic: live_from_hour is after live_to_hour; exchange them")
    if sum(profile.attacks.values()) > MAX_ATTACKED:
        raise ConfigurationError(f"traffic: attacks make more than {MAX_ATTACKED} of all clicks; lower their shares")
    return profile
