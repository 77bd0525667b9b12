"""Publishers' risk from the stream against the generator's truth: `HOURS=2 SEED=2 python -m bench.publisher_risks`.

The traffic of `bench.invalid` (every attacker, every oddity) goes through the real pure pipeline on four partitions.
A publisher **earns by fraud** if at least a tenth of its clicks were injected or are a flood: those attacks have a
publisher behind them. Figures: `risk_average_precision` of the order by score (average over the publishers that earn
by fraud), `risk_by_chance` (their share of all), `risk_least_fraud` and `risk_most_honest` (the lowest score of theirs,
the highest of others). Botnets, farms and replays spread over publishers who did nothing: they count as honest, with
whatever their visitors do.

Less than an hour of traffic tells nothing of missing conversions: clicks must be an hour old.
"""

import os
from collections import Counter, defaultdict
from typing import Final

import msgspec
import numpy as np

from bench.invalid import SETTLE_TICKS, TICK_MS, all_on, attacked
from bench.invalid_judging import PipelineJudging
from streams.events import Input
from streams.invalid import Mode
from streams.jobs.generate import generate
from streams.jobs.traffic_profile import Attack
from streams.stages.invalid.publisher_risk import average_precision

PARTITIONS: Final = 4
PAID: Final = (Attack.INJECTION, Attack.FLOODING)
LEAST_SHARE: Final = 0.1


def figures(hours: float, seed: int) -> dict[str, float]:
    """The figures of one run of so many hours of event time."""
    profile = attacked(seed, hours)
    judging = PipelineJudging(all_on(profile, Mode.OBSERVE), PARTITIONS)
    sent: defaultdict[str, Counter[bool]] = defaultdict(Counter)
    next_ms = 0
    for event in generate(profile, seed):
        next_ms = next_ms or event.deliver_at_ms
        while event.deliver_at_ms >= next_ms:
            judging.tick(next_ms)
            next_ms += TICK_MS
        judging.feed(event)
        if event.input is Input.CLICKS and not event.duplicate:
            publisher = msgspec.json.decode(event.value).get("publisher_id")
            if publisher:
                sent[publisher][event.attack in PAID] += 1
    for _ in range(SETTLE_TICKS):
        judging.tick(next_ms)
        next_ms += TICK_MS
    return _judged(_scores(judging), {p: counts[True] >= LEAST_SHARE * counts.total() for p, counts in sent.items()})


def _scores(judging: PipelineJudging) -> dict[str, float]:
    """The highest score of each publisher that has one."""
    found: dict[str, float] = {}
    for state in judging.states:
        desk = state.judging.sources
        for risk in desk.assessment.risks:
            if risk.score is not None:
                name = desk.name_of(risk.source)
                found[name] = max(found.get(name, 0.0), risk.score)
    return found


def _judged(scores: dict[str, float], is_paid: dict[str, bool]) -> dict[str, float]:
    names = sorted(scores)
    truth, found = np.array([is_paid.get(name, False) for name in names]), np.array([scores[name] for name in names])
    precision = average_precision(truth, found)
    if precision is None:
        return {"risk_publishers": float(len(names))}
    return {
        "risk_publishers": float(len(names)),
        "risk_average_precision": precision,
        "risk_by_chance": float(truth.mean()),
        "risk_least_fraud": float(found[truth].min()),
        "risk_most_honest": float(found[~truth].max()),
    }


def main() -> None:
    """Prints the figures."""
    for name, value in figures(float(os.environ.get("HOURS", "2")), int(os.environ.get("SEED", "2"))).items():
        print(f"{name} {value:.3f}")


if __name__ == "__main__":
    main()
