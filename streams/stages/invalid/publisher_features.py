"""What a publisher's clicks look like: the columns that a risk score reads, what each means, and what follows of them.

A column is a statistic of one publisher's clicks over some days (three in the labelled set), as a stream can keep it:
counts of distinct values, the largest share of one value, entropies, and clicks in slots of 1 and 5 min, 3 and 6 h.
Names are those of the labelled set of FDMA 2012 (Phua et al., "Feature Engineering for Click Fraud Detection", ACML
workshop on Fraud Detection in Mobile Advertising, 2012), so that its files can be scored as they are.

| columns | meaning (unit) |
|---|---|
| `TotalClicks` | clicks of the publisher (clicks) |
| `MaxSame…Count` | clicks of the most frequent address, agent, campaign (`Cid`) or country (`Cntr`) (clicks) |
| `NoOfUnique…` | distinct addresses, agents, campaigns, countries, referrers (values) |
| `…ClickRatio` | distinct values / clicks (share); `NonRefererClickRatio`: clicks without a referrer / clicks |
| `…Variance` | variance of the clicks per address, agent, campaign, country (clicks²; the set cuts it at 10⁶) |
| `AvgClickPer…`, `MaxClickPer…` | mean and highest number of clicks in slots that have any (clicks) |
| `TimeatVariance…`, `Skew…` | variance (clicks²) and skewness (no unit) of the clicks in such slots |
| `Entropy…` | Shannon entropy of clicks over addresses (`Iplong`), campaigns, agents, countries (bits) |

Derived features relate columns to each other, so that they say how clicks come and not how many there are:

* clicks per distinct address, agent, campaign, country and referrer (clicks);
* occupancy: slots with clicks / the slots that as many clicks would fill if they fell at random. n clicks in s slots
  fill s·(1 − e^(−n/s)) of them on average; below 1 they come in bursts, which people rarely do and scripts often;
* occupancy within the busy 3 h: the same, but only over those 3-hour slots that have clicks at all. A site that is
  visited in the evening only is not held to be bursty.

No identifier and nothing about the account is read: a score is about traffic. `CategoryPrior` of the set only repeats
`TotalClicks` and is left out.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

OBSERVED_DAYS: Final = 3
"""Days of the labelled set (9 to 11 February 2012). Statistics over another span are comparable only in part."""


class Group(StrEnum):
    """What a part of the score is about."""

    VOLUME = "volume"
    ADDRESSES = "addresses"
    AGENTS = "agents"
    CAMPAIGNS = "campaigns"
    COUNTRIES = "countries"
    REFERRERS = "referrers"
    BURSTS = "bursts"
    RHYTHM = "rhythm"


class Gap(StrEnum):
    """Why a column has no value."""

    ABSENT = "absent"
    NOT_A_NUMBER = "not_a_number"
    OUT_OF_RANGE = "out_of_range"


class Feature(NamedTuple):
    """One input of the model."""

    name: str
    group: Group
    words: str


def _of_values(key: str, entropy: str, group: Group, one: str, many: str) -> tuple[Feature, ...]:
    return (
        Feature(f"MaxSame{key}Count", group, f"clicks of the busiest {one}"),
        Feature(f"NoOfUnique{key}", group, f"distinct {many}"),
        Feature(f"{key}ClickRatio", group, f"distinct {many} per click"),
        Feature(f"{key}Variance", group, f"variance of clicks per {one}"),
        Feature(f"Entropy{entropy}", group, f"entropy over {many} (bits)"),
    )


def _of_slots(slot: str, words: str, group: Group) -> tuple[Feature, ...]:
    return (
        Feature(f"AvgClickPer{slot}", group, f"mean clicks in a busy {words}"),
        Feature(f"MaxClickPer{slot}", group, f"most clicks in {words}"),
        Feature(f"TimeatVariance{slot}", group, f"variance of clicks per {words}"),
        Feature(f"Skew{slot}", group, f"skewness of clicks per {words}"),
    )


COLUMNS: Final = (
    Feature("TotalClicks", Group.VOLUME, "clicks"),
    *_of_values("Ip", "Iplong", Group.ADDRESSES, "address", "addresses"),
    *_of_values("Agent", "Agent", Group.AGENTS, "user agent", "user agents"),
    *_of_values("Cid", "Cid", Group.CAMPAIGNS, "campaign", "campaigns"),
    *_of_values("Cntr", "Cntr", Group.COUNTRIES, "country", "countries"),
    Feature("NoOfUniqueReferer", Group.REFERRERS, "distinct referrers"),
    Feature("RefererClickRatio", Group.REFERRERS, "distinct referrers per click"),
    Feature("NonRefererClickRatio", Group.REFERRERS, "share of clicks without a referrer"),
    *_of_slots("1Min", "minute", Group.BURSTS),
    *_of_slots("5Min", "5 minutes", Group.BURSTS),
    *_of_slots("3Hr", "3 hours", Group.RHYTHM),
    *_of_slots("6Hr", "6 hours", Group.RHYTHM),
)
"""The columns of a file, in the order of the model's inputs."""
_PER: Final = {
    "address": ("NoOfUniqueIp", Group.ADDRESSES),
    "agent": ("NoOfUniqueAgent", Group.AGENTS),
    "campaign": ("NoOfUniqueCid", Group.CAMPAIGNS),
    "country": ("NoOfUniqueCntr", Group.COUNTRIES),
    "referrer": ("NoOfUniqueReferer", Group.REFERRERS),
}
_SLOT_MINUTES: Final = {"1Min": 1, "5Min": 5, "3Hr": 180, "6Hr": 360}
_BUSY: Final = "3Hr"
_SHORT: Final = ("1Min", "5Min")
DERIVED: Final = (
    *(Feature(f"clicks_per_{name}", group, f"clicks per {name}") for name, (_, group) in _PER.items()),
    *(
        Feature(f"occupancy_{slot}", Group.BURSTS if slot in _SHORT else Group.RHYTHM, words)
        for slot, words in (
            ("1Min", "minutes used, against random clicks"),
            ("5Min", "5-minute slots used, against random clicks"),
            ("3Hr", "3-hour slots used, against random clicks"),
            ("6Hr", "6-hour slots used, against random clicks"),
        )
    ),
    Feature("busy_occupancy_1Min", Group.BURSTS, "minutes used within busy hours, against random clicks"),
    Feature("busy_occupancy_5Min", Group.BURSTS, "5-minute slots used within busy hours, against random clicks"),
)
FEATURES: Final = (*COLUMNS, *DERIVED)
COLUMN_NAMES: Final = tuple(column.name for column in COLUMNS)
_MAY_BE_NEGATIVE: Final = frozenset(name for name in COLUMN_NAMES if name.startswith("Skew"))
_AT_LEAST_ONE: Final = frozenset(
    name for name in COLUMN_NAMES if name.startswith(("TotalClicks", "MaxSame", "NoOfUnique", "AvgClick", "MaxClick"))
)


def read_column(name: str, value: object) -> "float | Gap":
    """A column's value as a number, or why it has none. Text is read as a number where it is one."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return Gap.ABSENT
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return Gap.NOT_A_NUMBER
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return Gap.NOT_A_NUMBER
    if math.isnan(number):
        return Gap.NOT_A_NUMBER
    least = -math.inf if name in _MAY_BE_NEGATIVE else 1.0 if name in _AT_LEAST_ONE else 0.0
    return number if least <= number < math.inf else Gap.OUT_OF_RANGE


def read_columns(row: Mapping[str, object]) -> tuple[Floats, dict[str, Gap]]:
    """The columns of one publisher in their order, NaN where there is no value, and why there is none."""
    values = np.full(len(COLUMNS), np.nan)
    gaps: dict[str, Gap] = {}
    for at, name in enumerate(COLUMN_NAMES):
        found = read_column(name, row.get(name))
        if isinstance(found, Gap):
            gaps[name] = found
        else:
            values[at] = found
    return values, gaps


def features_of(columns: Floats) -> Floats:
    """The model's inputs, publishers × `FEATURES`, of publishers × `COLUMNS`. What is derived of NaN is NaN."""
    of = {name: columns[:, at] for at, name in enumerate(COLUMN_NAMES)}
    clicks = of["TotalClicks"]
    used = {slot: clicks / of[f"AvgClickPer{slot}"] for slot in _SLOT_MINUTES}
    slots = {slot: OBSERVED_DAYS * 1440 / minutes for slot, minutes in _SLOT_MINUTES.items()}
    busy_minutes = used[_BUSY] * _SLOT_MINUTES[_BUSY]
    derived = [
        *(clicks / of[column] for column, _ in _PER.values()),
        *(used[slot] / _filled_at_random(clicks, np.full_like(clicks, slots[slot])) for slot in _SLOT_MINUTES),
        *(used[slot] / _filled_at_random(clicks, busy_minutes / _SLOT_MINUTES[slot]) for slot in _SHORT),
    ]
    return np.column_stack([columns, *derived])


def _filled_at_random(clicks: Floats, slots: Floats) -> Floats:
    """Slots that have any of so many clicks, if each falls into one at random (Poisson)."""
    filled: Floats = -slots * np.expm1(-clicks / slots)
    return filled
