"""A market of publishers as columns of clicks and conversions: honest ones that differ, and bad ones among them."""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.invalid import SourceKind
from streams.rules import HOUR_MS
from streams.stages.invalid.holding import entries_of
from streams.verdicts import Clicks, EvidenceBatch

T0: Final = 1_700_000_000_000 // HOUR_MS * HOUR_MS
Floats = npt.NDArray[np.float64]


class Publisher(NamedTuple):
    """What one publisher sends."""

    clicks: int
    rate: float
    """Conversions per click."""
    delay: str = "usual"
    """usual; glut: most within 3 to 10 s; flat: even over 24 h."""


def delays_ms(rng: np.random.Generator, count: int, kind: str) -> Floats:
    """From click to conversion: 35% within an hour, 50% within a day, of 30 days (Criteo)."""
    part = rng.random(count)
    low = np.select([part < 0.35, part < 0.5], [1e4, 3.6e6], 8.64e7)
    high = np.select([part < 0.35, part < 0.5], [3.6e6, 8.64e7], 2.592e9)
    usual = low * (high / low) ** rng.random(count)
    if kind == "glut":
        return np.where(rng.random(count) < 0.7, rng.uniform(3e3, 1e4, count), usual)
    if kind == "flat":
        return rng.uniform(6e5, 8.64e7, count)
    return usual


def honest(rng: np.random.Generator, count: int, variation: float, most: int = 20_000) -> list[Publisher]:
    """Sizes after Zipf, small ones included; rates after a log-normal distribution of this variation."""
    sizes = (most / np.arange(1, count + 1)).astype(int) + rng.integers(1, 60, count)
    sigma = np.sqrt(np.log(1 + variation**2))
    rates = 0.03 * np.exp(rng.normal(-(sigma**2) / 2, sigma, count))
    return [Publisher(int(size), float(min(rate, 0.5))) for size, rate in zip(sizes, rates, strict=True)]


def traffic(rng: np.random.Generator, publishers: list[Publisher], hours: float, campaigns: int = 20) -> Clicks:
    """Clicks and conversions as they are forwarded, those of the first publisher with source 1. No order."""
    effects = rng.lognormal(-0.2, 0.6, campaigns)
    effects /= effects.mean()
    parts = []
    for source, each in enumerate(publishers, start=1):
        mix = rng.dirichlet(np.full(campaigns, 0.7))
        campaign = rng.choice(campaigns, each.clicks, p=mix)
        columns = {
            "source": np.full(each.clicks, source << 32, dtype="<u8"),
            "high": rng.integers(1, 2**63, each.clicks),
            "low": rng.integers(1, 2**63, each.clicks),
            "at_ms": T0 + rng.integers(0, int(hours * HOUR_MS), each.clicks),
            "campaign": campaign + 1,
            "user": rng.integers(1, 2**63, each.clicks),
        }
        bought = rng.random(each.clicks) < each.rate * effects[campaign]
        delay_ms = delays_ms(rng, int(bought.sum()), each.delay).astype(np.int64)
        conversions = {name: column[bought] for name, column in columns.items()}
        parts.append(entries_of(SourceKind.PUBLISHER, **columns))
        parts.append(entries_of(SourceKind.PUBLISHER, **conversions, delay_ms=delay_ms))
    return np.concatenate(parts)


def batches(entries: Clicks, every_ms: int = 60_000, until_ms: int | None = None) -> list[EvidenceBatch]:
    """As one partition sends them: clicks when they happen, conversions when they do."""
    told_ms = entries["at_ms"] + np.maximum(entries["delay_ms"], 0)
    entries, told_ms = entries[np.argsort(told_ms)], np.sort(told_ms)
    end = until_ms or int(entries["at_ms"].max()) + every_ms
    made = []
    for sequence, at_ms in enumerate(range(T0, end + 1, every_ms), start=1):
        low, high = np.searchsorted(told_ms, (at_ms - every_ms if at_ms > T0 else 0, at_ms))
        part = entries[low:high]
        made.append(
            EvidenceBatch(
                from_partition=0,
                sequence=sequence,
                watermark_ms=at_ms,
                credited_ms=at_ms,
                is_idle=False,
                clicks=part.tobytes(),
            )
        )
    return made
