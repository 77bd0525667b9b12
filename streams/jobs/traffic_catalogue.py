"""Who advertises and who watches: campaigns with their creatives, and users, each with rates and traits of their own.

The catalogue is a function of the profile alone; the seed of the traffic does not touch it. Fragments of JSON that
every event of a creative, a user or a placement carries are written once and joined per event, which is what makes
the generator fast. All identifiers are invented.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Final

import orjson
import xxhash

from streams.accounts import Account
from streams.campaigns import CampaignSettings
from streams.events import ConversionType
from streams.jobs.traffic_agents import agent_of
from streams.jobs.traffic_money import CPM, ON_ACCOUNT, shared_money, supply_of, with_money
from streams.jobs.traffic_networks import Whereabouts
from streams.jobs.traffic_profile import TrafficProfile

PUBLISHERS: Final = 40
CREATORS: Final = 200
CACHED_USERS: Final = 200_000

_FOREIGN: Final = (("USD", "America/New_York"), ("EUR", "Europe/Berlin"), ("JPY", "Asia/Tokyo"))
_GOALS: Final = (ConversionType.ORDER, ConversionType.ORDER, ConversionType.LEAD, ConversionType.INSTALL)
_REGIONS: Final = (
    *("CN-GD", "CN-ZJ", "CN-JS", "CN-SH", "CN-BJ", "CN-SD", "CN-SC", "CN-HN", "CN-HB", "CN-FJ", "CN-HA", "CN-LN"),
    *("US-CA", "US-NY", "DE-BE", "JP-13"),
)
_PLACEMENTS: Final = (
    ("feed", "feed-card", 1080, 1920),
    ("feed", "feed-banner", 640, 320),
    ("search", "search-top", 720, 240),
    ("shop", "shop-shelf", 480, 480),
)


@dataclass(frozen=True, slots=True)
class Attention:
    """What viewers do with a creative; shares of 1."""

    engagement_rate: float
    video_ms: int
    """0: no video."""
    play_rates: tuple[float, float, float, float]
    """Start per impression, then 3 s, 5 s and completion, each per milestone before."""
    loop_rate: float
    """Further loops per completion."""
    viewable_rate: float

    @property
    def plays_per_impression(self) -> float:
        """Expected events of plays."""
        if not self.video_ms:
            return 0.0
        start, three, five, complete = self.play_rates
        again = three * five * complete * self.loop_rate
        return start * (1 + three * (1 + five * (1 + complete))) / (1 - again)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a paid creative costs and sells; money of the campaign's currency."""

    goal: ConversionType
    cvr: float
    value_micros: int
    """Of one piece."""
    impression_price_millimicros: int
    click_price_millimicros: int


@dataclass(frozen=True, slots=True)
class Creative:
    """A creative, or what stands for one in organic traffic."""

    key: str
    """The records' key."""
    fragment: str
    """`,"campaign_id":…`: what all of its events carry."""
    ctr: float
    click_type: str
    attention: Attention
    offer: Offer | None = None
    """None: organic."""
    arms: tuple[str, str] | None = None
    """`,"experiments":…` of the control and of the treatment; None: no experiment."""

    @property
    def events_per_impression(self) -> float:
        """Expected events that one impression leads to, itself included, soon and later."""
        per_click = 1 + (1.5 * self.offer.cvr if self.offer else 0.0)
        return 1 + self.attention.plays_per_impression + self.ctr * per_click + self.attention.engagement_rate


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that requests choose from."""

    campaigns: tuple[tuple[Creative, ...], ...]
    """By campaign, its creatives; the first campaign has the live shop."""
    live: tuple[Creative, ...]
    """The first campaign's creatives while it is on air."""
    organic: tuple[Creative, ...]
    placements: tuple[str, ...]
    live_placements: tuple[str, ...]


def catalogue_of(profile: TrafficProfile) -> Catalogue:
    """The catalogue that a profile describes."""
    campaigns = tuple(_campaign(profile, index) for index in range(profile.campaigns))
    live = tuple(replace(creative, click_type="live_room_entry") for creative in campaigns[0])
    on_air = {"channel": "live", "live_session_id": f"live-{campaign_id(0)}"}
    return Catalogue(campaigns, live, _organic(profile), _placements(profile, {}), _placements(profile, on_air))


def generate_campaigns(profile: TrafficProfile) -> list[CampaignSettings]:
    """Settings of the profile's campaigns, for the topic ads.campaigns; they hold from when they are appended."""
    supply = supply_of(profile)
    return [
        with_money(profile, supply, index, _cpm_micros(_random_of(profile, index), settings), settings)
        for index in range(profile.campaigns)
        for settings in [_settings(profile, index)]
    ]


def generate_accounts(profile: TrafficProfile, as_of_ms: int) -> list[Account]:
    """What these campaigns share, for the topic ads.accounts: a budget, and a balance as of a time."""
    return shared_money(profile, generate_campaigns(profile), as_of_ms)


def campaign_id(index: int) -> str:
    """The id of the campaign at this rank, from 0; the first has the most traffic."""
    return f"c{index + 1:04d}"


class Audience:
    """Users and what their events carry; fragments of the first `CACHED_USERS` asked for are kept."""

    def __init__(self, profile: TrafficProfile) -> None:
        self._seed = profile.catalogue_seed
        self._lean = profile.detail == "lean"
        self._places = Whereabouts(profile)
        self._fragments: dict[int, tuple[str, str]] = {}

    def fragments(self, user: int, at_ms: int) -> tuple[str, str]:
        """JSON of the user at this rank at a time: for every event, and the user agent for those that carry it."""
        found = self._fragments.get(user)
        if found is None:
            found = self._make(user)
            if len(self._fragments) < CACHED_USERS:
                self._fragments[user] = found
        if self._lean:
            return found
        return found[0] + self._places.fragment(user, at_ms), found[1]

    def _make(self, user: int) -> tuple[str, str]:
        mixed = xxhash.xxh3_64_intdigest(f"{self._seed}:{user}".encode())
        device, agent = agent_of(mixed >> 1)
        # Populous regions come first: the smaller of two draws is taken.
        region = _REGIONS[min((mixed >> 8) % len(_REGIONS), (mixed >> 16) % len(_REGIONS))]
        fields = {"user_id": f"u{user:07d}", "region": region, "device_class": device}
        if self._lean:
            return fragment(fields), ""
        fields["device_id"] = f"d{mixed >> 12:013x}"
        return fragment(fields), fragment({"user_agent": agent})


def _settings(profile: TrafficProfile, index: int) -> CampaignSettings:
    currency, zone = _money_and_zone(profile, index)
    return CampaignSettings(
        campaign_id=campaign_id(index),
        name=f"Live shop {index + 1}" if index == 0 else f"Campaign {index + 1}",
        advertiser_id=f"adv-{index // 2 + 1:04d}",
        agency_id=f"agency-{index % 3 + 1}",
        account_id=_account(index) if index in ON_ACCOUNT else None,  # one without a balance would be held at a tenth
        currency=currency,
        time_zone=zone,
        goal=_GOALS[index % len(_GOALS)],
    )


def _account(index: int) -> str:
    """Whose money the campaign at this rank spends, as its events say."""
    return f"acc-{index // 2 + 1:04d}"


def _money_and_zone(profile: TrafficProfile, index: int) -> tuple[str, str]:
    """Every fifth campaign sells abroad."""
    return _FOREIGN[index // 5 % len(_FOREIGN)] if index % 5 == 4 else ("CNY", profile.time_zone)


def _random_of(profile: TrafficProfile, index: int) -> Random:
    return Random(f"campaign {profile.catalogue_seed} {index}")


def _cpm_micros(random: Random, settings: CampaignSettings) -> float:
    """What a campaign's auctions cost per mille: the first number drawn."""
    return CPM[settings.currency] * random.uniform(0.6, 1.6) * 1_000_000


def _campaign(profile: TrafficProfile, index: int) -> tuple[Creative, ...]:
    settings = _settings(profile, index)
    random = _random_of(profile, index)
    cpm_micros = _cpm_micros(random, settings)
    value_micros = int(CPM[settings.currency] * random.uniform(2, 12)) * 1_000_000
    creatives = []
    for number in range(profile.ad_units_per_campaign * profile.creatives_per_ad_unit):
        unit = f"{settings.campaign_id}-a{number // profile.creatives_per_ad_unit + 1}"
        creatives.append(
            Creative(
                key=settings.campaign_id,
                fragment=_creative_fragment(profile, settings, index, unit, f"{unit}-v{number + 1}"),
                ctr=profile.ctr * random.uniform(0.3, 1.7),
                click_type="card" if number % 2 else "button",
                attention=_attention(profile, random, number),
                offer=_offer(profile, random, index, cpm_micros, value_micros),
                arms=_arms(f"exp-{settings.campaign_id}") if index % 2 == 0 else None,
            )
        )
    return tuple(creatives)


def _offer(profile: TrafficProfile, random: Random, index: int, cpm_micros: float, value_micros: int) -> Offer:
    # Every fourth campaign pays per click. One impression's price in millimicros is the price per mille in micros.
    per_click = index % 4 == 3 and profile.ctr > 0
    return Offer(
        goal=_GOALS[index % len(_GOALS)],
        cvr=profile.cvr * random.uniform(0.3, 1.7),
        value_micros=value_micros,
        impression_price_millimicros=0 if per_click else int(cpm_micros),
        click_price_millimicros=int(cpm_micros / profile.ctr) if per_click else 0,
    )


def _attention(profile: TrafficProfile, random: Random, number: int) -> Attention:
    # Videos are spread evenly over the creatives, so that their share holds in every campaign.
    is_video = int((number + 1) * profile.video_share) > int(number * profile.video_share)
    return Attention(
        engagement_rate=random.uniform(0.002, 0.02),
        video_ms=random.randrange(8, 45) * 1000 if is_video else 0,
        play_rates=(
            random.uniform(0.8, 0.98),
            random.uniform(0.45, 0.8),
            random.uniform(0.6, 0.9),
            random.uniform(0.2, 0.6),
        ),
        loop_rate=random.uniform(0.1, 0.4),
        viewable_rate=random.uniform(0.5, 0.85),
    )


def _arms(experiment: str) -> tuple[str, str]:
    control, treatment = (fragment({"experiments": [{"id": experiment, "arm": arm}]}) for arm in "AB")
    return control, treatment


def _creative_fragment(
    profile: TrafficProfile, settings: CampaignSettings, index: int, unit: str, creative: str
) -> str:
    fields = {
        "campaign_id": settings.campaign_id,
        "ad_unit_id": unit,
        "creative_id": creative,
        "currency": settings.currency,
    }
    if profile.detail == "full":
        fields["account_id"] = _account(index)
        fields["advertiser_id"] = settings.advertiser_id or ""
        fields["shop_id"] = f"shop-{index // 2 + 1:04d}"
        fields["product_id"] = f"product-{settings.campaign_id}"
        fields["creator_id"] = f"creator-{index * 7 % CREATORS + 1}"
    return fragment(fields)


def _organic(profile: TrafficProfile) -> tuple[Creative, ...]:
    random = Random(f"organic {profile.catalogue_seed}")
    return tuple(_organic_content(profile, random, number) for number in range(CREATORS))


def _organic_content(profile: TrafficProfile, random: Random, number: int) -> Creative:
    owner = ("shop_id", f"shop-{number // 2 + 1:04d}") if number % 2 else ("creator_id", f"creator-{number + 1}")
    fields = {"traffic": "organic", owner[0]: owner[1], "video_id": f"video-{number + 1}"}
    return Creative(
        key=owner[1],
        fragment=fragment(fields),
        ctr=random.uniform(0.005, 0.03),
        click_type="profile",
        attention=_attention(profile, random, number),
    )


def _placements(profile: TrafficProfile, instead: dict[str, str]) -> tuple[str, ...]:
    return tuple(placement(profile, number, instead) for number in range(PUBLISHERS))


def placement(profile: TrafficProfile, number: int, instead: dict[str, str]) -> str:
    """`,"publisher_id":…`: where the publisher at this rank shows ads; `instead` takes the place of what it says."""
    channel, name, width, height = _PLACEMENTS[number % len(_PLACEMENTS)]
    fields: dict[str, object] = {"publisher_id": f"pub-{number + 1}", "channel": channel}
    if profile.detail == "full":
        fields |= {"placement": name, "placement_width_px": width, "placement_height_px": height}
    return fragment({**fields, **instead})


def fragment(fields: Mapping[str, object]) -> str:
    """`,"a":1,"b":"x"`: the inside of a JSON object with a comma before it."""
    return "," + orjson.dumps(dict(fields)).decode()[1:-1]
