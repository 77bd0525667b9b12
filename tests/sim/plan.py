"""What a seed knows: which faults there are and how often, which rules hold, how much is produced."""

import zlib
from dataclasses import dataclass, field, replace
from random import Random

import msgspec

from streams.events import ClickType, ConversionType, Input
from streams.invalid import FanOut, InvalidRules, Lists, Mode, Rule, Velocity
from streams.records import Table
from streams.rules import Horizon, Rules
from streams.state.pins import NO_PINS, Pins
from tests.sim.stories import ALONE, CAST
from tests.sim.world import Faults
from tests.support.events import HOSTED, MINUTE_MS

RECORDS = 220
PUBLISHERS = 9
"""Honest ones, with few clicks each: too few for any of them to be suspected, enough to be the flood's peers."""
SERVICES = (*(f"sink.insert {table}" for table in Table), "sink", "outbox", "store", "journal")


@dataclass
class Plan:
    """What a seed knows. Shares are per step."""

    workers: int = 1
    partitions: int = 1
    records: int = RECORDS
    crash: float = 0.004
    pause: float = 0.0
    move: float = 0.0
    corrupt: float = 0.0
    outage: float = 0.0
    retention: float = 0.0
    trim: float = 0.0
    poison: float = 0.0
    transient: float = 0.0
    new_rules: float = 0.0
    producer_dies: float = 0.0
    holes: float = 0.0
    faults: Faults = field(default_factory=Faults)
    services: tuple[str, ...] = SERVICES
    """What an outage may befall."""
    calm_steps: int = 60_000
    """Whoever has not settled in so many steps never will."""
    checkpoint_ms: int = 300
    garbage: float = 0.05
    duplicate: float = 0.08
    pack_at: int = 200_000
    max_run_ids: int = 4_000_000
    max_keys: int = 1_000_000
    rules: Rules = field(default_factory=Rules)
    pins: Pins = NO_PINS
    story: str = ""
    """One of `tests.sim.stories.STORIES`, told beside the ordinary traffic; empty: none."""
    behind: int = 10**9
    """With so many records unread a worker says that it catches up."""


def pins_of(rng: Random) -> Pins:
    """Days so short that a run outlives many."""
    return Pins(rng.choice([0, 1, 2, 4]), rng.choice([200, 1_000, 5_000]))


def plan_of(rng: Random) -> Plan:
    """Draws what may happen under a seed."""

    def perhaps(chance: float, most: float) -> float:
        return rng.uniform(0, most) if rng.random() < chance else 0.0

    failing = rng.choice([0.0, 0.03, 0.15])
    return Plan(
        workers=rng.choice([1, 1, 2, 3]),
        partitions=rng.choice([1, 1, 2]),
        crash=perhaps(0.8, rng.choice([0.002, 0.006, 0.02])),
        pause=perhaps(0.5, 0.006),
        move=perhaps(0.6, 0.006),
        corrupt=perhaps(0.5, 0.02),
        outage=perhaps(0.5, 0.02),
        retention=perhaps(0.25, 0.004),
        trim=perhaps(0.3, 0.01),
        poison=perhaps(0.3, 0.03),
        transient=perhaps(0.2, 0.03),
        new_rules=perhaps(0.4, 0.5),
        producer_dies=perhaps(0.3, 0.02),
        holes=perhaps(0.5, 0.2),
        faults=Faults(failing, failing, rng.choice([0, 1, 3])),
        checkpoint_ms=rng.choice([100, 300, 3_000]),
        garbage=rng.choice([0.05, 0.3]),
        pack_at=rng.choice([1, 5, 30, 200_000]),
        max_run_ids=rng.choice([10, 60, 4_000_000]),
        max_keys=rng.choice([3, 1_000_000]),
        rules=rules_of(rng),
    )


def cast(plan: Plan, seed: int) -> Plan:
    """A story for every other seed, drawn apart from everything else."""
    rng = Random(f"story {seed}")
    if rng.random() < 0.5:
        return plan
    return with_story(plan, rng.choice(CAST), rng)


def with_story(plan: Plan, story: str, rng: Random) -> Plan:
    """Less ordinary traffic, rarer faults (a story takes many steps), and room for its keys, which would be folded."""
    return replace(
        plan,
        story=story,
        records=0 if story in ALONE else 50,
        behind=rng.choice([30, *[10**9] * 4]),
        max_keys=1_000_000,
        rules=roomy(plan.rules),
        crash=min(plan.crash, 0.002),
        pause=min(plan.pause, 0.001),
        move=min(plan.move, 0.001),
        outage=min(plan.outage, 0.004),
        faults=Faults(min(plan.faults.before, 0.03), min(plan.faults.after, 0.03), min(plan.faults.delay, 1)),
    )


def roomy(rules: Rules) -> Rules:
    """No key of the decision grain is folded into `other`."""
    return msgspec.structs.replace(rules, max_pane_keys=50_000)


LATENESS_MS = 2 * MINUTE_MS
DEDUPE_MS = 3 * MINUTE_MS


def rules_of(rng: Random) -> Rules:
    """Small horizons, so that a run outlives them. The de-duplication horizon is the same for all."""
    pane_ms = rng.choice([5_000, 10_000, 15_000])
    return Rules(
        pane_ms=pane_ms,
        report_pane_ms=pane_ms * rng.choice([2, 3, 6]),
        report_every_ms=rng.choice([100, 1_000, 5_000]),
        horizons={i: Horizon(rng.choice([LATENESS_MS, LATENESS_MS // 2, DEDUPE_MS]), DEDUPE_MS) for i in Input},
        ctr_click_types=tuple(ClickType)[: rng.randint(1, 6)],
        dimensions=tuple(rng.sample(["region", "channel", "publisher_id", "device_class"], rng.randint(0, 4))),
        max_pane_keys=rng.choice([2, 6, 50_000]),
        max_report_keys=rng.choice([2, 6, 20_000]),
        invalid=invalid_of(rng),
    )


def invalid_of(rng: Random) -> InvalidRules:
    """Rules of invalid traffic. Those that remember are never off, and theirs are the same thresholds for all."""
    remember = (Rule.DOUBLE_CLICK, Rule.ACTIVITY_CAP, Rule.REPEATED_CLICK, Rule.ORDER_REPEATED, Rule.PUBLISHER_FLOODING)
    modes = {rule: rng.choice([Mode.ON, Mode.ON, Mode.OBSERVE, Mode.OFF]) for rule in Rule}
    modes |= {rule: rng.choice([Mode.ON, Mode.OBSERVE]) for rule in remember}
    modes[Rule.NON_BROWSER_AGENT] = rng.choice([Mode.OBSERVE, Mode.OFF])
    return InvalidRules(
        modes=modes,
        lists=Lists(crawler_patterns=("Googlebot",), networks=zlib.compress(HOSTED.encode())),
        double_click_ms=5_000,
        double_click_by_type_ms={ClickType.BUTTON: 1_000},
        activity_clicks=4,
        activity_clicks_by_type={ClickType.CARD: 2},
        max_clicks_per_impression=1,
        max_clicks_per_impression_by_type={ClickType.CARD: 2},
        impression_wait_ms=rng.choice([1_000, 10_000, 60_000]),
        click_after_ms=rng.choice([300, 2_000]),
        click_after_by_type_ms={ClickType.BUTTON: rng.choice([0, 5_000])},
        click_wait_ms=rng.choice([1_000, 10_000, 60_000]),
        conversion_after_ms={ConversionType.LEAD: rng.choice([1_000, 6_000]), ConversionType.INSTALL: 2_000},
        user_velocity=Velocity(3, 60_000, {ClickType.BUTTON: 2}),
        device_velocity=Velocity(4, 30_000),
        device_fan_out=FanOut(3, 60_000, 2),
        address_velocity=Velocity(4, 60_000),
        address_fan_out=FanOut(3, 120_000, 3),
        flooding_min_clicks=5,
        flooding_window_ms=4 * MINUTE_MS,
        flooding_ratio=1.2,
        flooding_p=0.1,
    )


def one_worker(seed: int) -> Plan:
    """The thinnest plan: one worker, one partition, few records, nothing that fails by itself."""
    rules = rules_of(Random(seed))
    return Plan(records=60, crash=0.0, faults=Faults(0.0, 0.0, 0), rules=rules, checkpoint_ms=100, pack_at=5)
