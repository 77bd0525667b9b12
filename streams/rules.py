"""The rules that decide numbers: pane sizes, lateness, what counts. Journaled, so that history is judged by its own.

A worker that starts with other rules first replays the journal's ticks under the rules that were in force, and
then writes its own into the next tick. Rows carry the fingerprint.
"""

from typing import Annotated, Final

import msgspec
import xxhash
from msgspec import Meta

from streams.events import ClickType, ConversionType, Input
from streams.invalid import InvalidRules
from streams.records import DIMENSIONS

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
LIMIT: Final = (1 << 62) - 1
"""Totals of one key stop here, for they would not fit the tables. No honest sum comes near it."""

Positive = Annotated[int, Meta(ge=1)]


class Horizon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long an input waits for late events and remembers ids. Lateness never exceeds memory."""

    lateness_ms: Positive
    dedupe_ms: Positive
    max_ids: Positive = 20_000_000
    """Ids kept per topic-partition; beyond it the oldest bucket goes, and what is older than memory is late."""


DEFAULT_HORIZONS: Final[dict[Input, Horizon]] = {
    Input.IMPRESSIONS: Horizon(10 * MINUTE_MS, 10 * MINUTE_MS),
    Input.PLAYS: Horizon(10 * MINUTE_MS, 10 * MINUTE_MS),
    Input.CLICKS: Horizon(DAY_MS, DAY_MS),
    Input.CONVERSIONS: Horizon(30 * DAY_MS, 30 * DAY_MS),
    Input.ADJUSTMENTS: Horizon(30 * DAY_MS, 30 * DAY_MS),
    Input.ENGAGEMENTS: Horizon(DAY_MS, DAY_MS),
}


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything besides the logs that the numbers depend on."""

    pane_ms: Annotated[int, Meta(ge=1_000, le=MINUTE_MS, multiple_of=1_000)] = 10_000
    """Divides a minute, so that windows are as long as they are called."""
    report_pane_ms: Annotated[int, Meta(ge=10_000, le=HOUR_MS, multiple_of=1_000)] = MINUTE_MS
    report_every_ms: Positive = 10_000
    """Wall time between two publications of an open report pane; a closed one is published at the next tick."""
    future_skew_ms: Positive = 5 * MINUTE_MS
    """An event time beyond its record's own timestamp by more than this is rejected as `future`."""
    horizons: dict[Input, Horizon] = msgspec.field(default_factory=DEFAULT_HORIZONS.copy)
    ctr_click_types: tuple[ClickType, ...] = tuple(ClickType)
    cvr_conversion_types: tuple[ConversionType, ...] = (
        ConversionType.LEAD,
        ConversionType.ORDER,
        ConversionType.INSTALL,
    )
    """An order that is placed and then paid is one conversion: `paid` is counted apart."""
    dimensions: tuple[str, ...] = ("region", "channel", "device_class")
    max_pane_keys: Positive = 50_000
    """Decision keys per topic-partition and effect pane; beyond it a key folds into `other`."""
    max_report_keys: Positive = 5_000
    """Report keys per topic-partition and effect pane; beyond it a key folds into `other`."""
    reach_sample: Annotated[int, Meta(ge=16, le=4096)] = 256
    """Smallest user hashes kept per report key (KMV sketch): exact below, relative error 1/sqrt(n-2) above."""

    invalid: InvalidRules = msgspec.field(default_factory=InvalidRules)
    """What counts as invalid traffic."""

    def __post_init__(self) -> None:
        unknown = [d for d in self.dimensions if d not in DIMENSIONS]
        if unknown:
            raise ValueError(f"dimensions: {', '.join(unknown)} unknown; known are {', '.join(DIMENSIONS)}")
        missing = [i.value for i in Input if i not in self.horizons]
        if missing:
            raise ValueError(f"horizons: {', '.join(missing)} missing")
        for name, horizon in self.horizons.items():
            if horizon.lateness_ms > horizon.dedupe_ms:
                raise ValueError(f"horizons.{name}: lateness_ms exceeds dedupe_ms; duplicates would count")
        if MINUTE_MS % self.pane_ms:
            raise ValueError("pane_ms: must divide a minute: 1000, 5000, 10000, 30000, 60000, …")
        if self.report_pane_ms % self.pane_ms:
            raise ValueError("report_pane_ms: must be a multiple of pane_ms")

    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when anything here does."""
        return xxhash.xxh3_64_hexdigest(msgspec.json.encode(self, order="sorted"))
