"""Invalid traffic: what the rules find of each attack, what they flag of honest traffic, and what judging costs.

Generated traffic (hours of event time, every attacker and every oddity) goes through the real pure pipeline on four
partitions with all rules set to exclude. How flags are attributed: `bench.invalid_scores`. `SEED` varies the attackers.
"""

import importlib
import os
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from random import Random
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from bench.invalid_judging import Judging, PipelineJudging
from bench.invalid_limits import Limits
from bench.invalid_scores import Figures, Scores
from bench.pipeline import DENSE_PER_S, pipeline
from bench.workload import Workload
from streams.events import Input
from streams.invalid import InvalidRules, Lists, Mode, Rule
from streams.jobs.generate import generate, traffic_profile
from streams.jobs.traffic_networks import data_centre_networks
from streams.jobs.traffic_profile import USUAL_SHARES, Attack, Oddity, TrafficProfile
from streams.jobs.traffic_simulation import GeneratedEvent
from streams.rules import Rules

PARTITIONS: Final = 4
TICK_MS: Final = 10_000
"""Of event time: ticks are as frequent as the machine allows in a replay, too."""
SETTLE_TICKS: Final = 30
"""Ticks after the last event, for what is on its way between partitions."""
HOURS: Final = 3.0
QUICK_HOURS: Final = 1.0
SHARES: Final = (0.01, 0.05)
"""Of all clicks, of each attacker; drawn."""
STATE_EVENTS: Final = 1_000_000
"""Events after which the state is measured."""


async def run(quick: bool) -> Figures:
    """All figures of this benchmark."""
    seed = int(os.environ.get("SEED", "1"))
    profile = attacked(seed, QUICK_HOURS if quick else HOURS)
    began = time.monotonic()
    limits = Limits()
    stream = _seen(generate(profile, seed), limits)
    scores, events = judge(stream, PipelineJudging(all_on(profile), PARTITIONS))
    figures: Figures = {"events": events, "judged_events_per_s": events / (time.monotonic() - began)}
    figures |= scores.figures() | limits.figures()
    _show(scores)
    figures["bytes_per_million_clicks"] = bytes_per_million_clicks(profile, seed, STATE_EVENTS // (4 if quick else 1))
    figures |= _publishers(quick)
    dense = Workload(400_000 if quick else 4_000_000, DENSE_PER_S)
    figures["pipeline_events_per_s"] = await pipeline(dense, _as_settings(all_on(profile)))
    return figures


def attacked(seed: int, hours: float) -> TrafficProfile:
    """Clicks enough for hours, with few other events: every attacker and every oddity, in shares by the seed."""
    random = Random(f"shares {seed}")
    attacks = {attack: random.uniform(*SHARES) for attack in Attack} | {Attack.DOUBLE_CLICK: 0.005}
    return traffic_profile(
        rate=250.0,
        duration_ms=int(hours * 3_600_000),
        cycle=False,
        campaigns=250,
        users=100_000,  # few enough that thousands of one carrier's click in an hour
        ctr=0.1,
        video_share=0.1,
        attacks=attacks,
        oddities={oddity: USUAL_SHARES[oddity] for oddity in Oddity},
    )


def all_on(profile: TrafficProfile, mode: Mode = Mode.ON) -> Rules:
    """Every rule excludes; the lists are those of the profile's world."""
    networks = zlib.compress("\n".join(data_centre_networks(profile)).encode())
    lists = Lists(crawler_patterns(), "package", networks, "2026-11-01")
    return Rules(invalid=InvalidRules(modes=dict.fromkeys(Rule, mode), lists=lists))


@cache
def crawler_patterns() -> tuple[str, ...]:
    """Of the package crawler-user-agents, or else, told so, some that are well known."""
    try:
        package = importlib.import_module("crawleruseragents")
    except ImportError:
        _note("the package crawler-user-agents is absent: a few well-known patterns take its place")
        return ("[bB]ot[/;) ~]", "[sS]pider", "facebookexternalhit")
    return tuple(entry["pattern"] for entry in package.CRAWLER_USER_AGENTS_DATA)


def _seen(events: Iterable[GeneratedEvent], limits: Limits) -> Iterator[GeneratedEvent]:
    for event in events:
        limits.saw(event)
        yield event


def judge(events: Iterable[GeneratedEvent], judging: Judging, tick_ms: int = TICK_MS) -> tuple[Scores, int]:
    """Feeds and ticks until the stream ends and has settled; how many events there were."""
    scores, count, next_ms = Scores(), 0, 0
    for event in events:
        while event.deliver_at_ms >= next_ms:
            if next_ms:
                scores.take(judging.tick(next_ms))
            next_ms = event.deliver_at_ms + tick_ms if not next_ms else next_ms + tick_ms
        judging.feed(event)
        scores.saw(event)
        count += 1
    for _ in range(SETTLE_TICKS):
        scores.take(judging.tick(next_ms))
        next_ms += tick_ms
    return scores, count


def bytes_per_million_clicks(profile: TrafficProfile, seed: int, events: int) -> float:
    """What a checkpoint takes more with all rules on than with all off, after the same traffic."""
    sizes = []
    clicks = 0
    for mode in (Mode.ON, Mode.OFF):
        judging = PipelineJudging(all_on(profile, mode), PARTITIONS)
        clicks = 0
        for event in _ticking(islice(generate(profile, seed), events), judging):
            clicks += event.input is Input.CLICKS and not event.duplicate
        sizes.append(judging.state_bytes())
    return (sizes[0] - sizes[1]) * 1e6 / clicks


def _ticking(events: Iterable[GeneratedEvent], judging: Judging) -> Iterator[GeneratedEvent]:
    last_ms = 0
    for event in events:
        if event.deliver_at_ms - last_ms >= TICK_MS:
            last_ms = event.deliver_at_ms
            judging.tick(last_ms)
        judging.feed(event)
        yield event
    judging.tick(last_ms + TICK_MS)


def _publishers(quick: bool) -> Figures:
    """`fdma_average_precision` and `fdma_one_feature`."""
    try:
        labelled = importlib.import_module("bench.publisher_labels")
    except ImportError as error:
        _note(f"fdma figures are left out: {error}")
        return {}
    found: Figures = labelled.fdma_figures(quick)
    return found


def _as_settings(rules: Rules) -> dict[str, str]:
    """For a worker's environment; it has its own lists."""
    modes = {rule.value: mode.value for rule, mode in rules.invalid.modes.items()}
    return {"RULES": msgspec.json.encode({"invalid": {"modes": modes}}).decode()}


def _show(scores: Scores) -> None:
    """Whose events each rule flags, on the standard error stream."""
    table = Table("input", "rule", "whose events", title="flags by rule")
    for (source, rule), found in scores.by_rule().items():
        table.add_row(source.value, rule.value, ", ".join(f"{name} {count:,}" for name, count in found.most_common()))
    Console(stderr=True).print(table)


def _note(text: str) -> None:
    print(f"bench invalid: {text}", file=sys.stderr)
