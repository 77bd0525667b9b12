"""What sources show is a function of the set of clicks: whatever the batches, their order, and when it was decided."""

from random import Random
from typing import NamedTuple

from hypothesis import given

from streams.events import ClickType
from streams.invalid import FanOut, InvalidRules, Mode, Rule, SourceKind, Velocity
from streams.stages.invalid import source_store
from streams.stages.invalid.sources import SourceDesk
from streams.verdicts import EvidenceBatch
from tests.property.histories import BOUNDED, seeds
from tests.support.sources import Seen, Told, batch_of, must_be_told, of_all_kinds, reloaded, told_by

SPAN_MS = 20 * 60_000
LATE_MS = 5 * 3_600_000
"""Within what the desk remembers behind its watermark."""
BURSTS_MS = (0, 3 * 3_600_000, 6 * 3_600_000)


def rules_of(rng: Random) -> InvalidRules:
    """Thresholds that some of the few sources reach."""
    return InvalidRules(
        modes={rule: Mode.OFF for rule in Rule if rng.random() < 0.1},
        user_velocity=Velocity(rng.randint(3, 9), rng.choice([60_000, 300_000])),
        device_velocity=Velocity(rng.randint(4, 12), rng.choice([30_000, 240_000])),
        address_velocity=Velocity(rng.randint(5, 20), rng.choice([60_000, 200_000])),
        velocity_types=rng.choice([tuple(ClickType), (ClickType.CARD,)]),
        device_fan_out=FanOut(rng.randint(2, 4), rng.choice([60_000, 200_000]), rng.randint(0, 3)),
        address_fan_out=FanOut(rng.randint(2, 5), rng.choice([60_000, 300_000]), rng.randint(0, 4)),
    )


class Way(NamedTuple):
    """One way through the evidence: what was told, in order, and the desk at its end."""

    told: list[Told]
    desk: SourceDesk


def batches_of(clicks: list[Seen], rng: Random, partitions: int = 3) -> list[EvidenceBatch]:
    """Cut at random. Most clicks come in time, some hours late, some batches twice; watermarks only follow."""
    found: list[tuple[float, EvidenceBatch]] = []
    for partition in range(partitions):
        own = [each for each in clicks if each.click % partitions == partition]
        own.sort(key=lambda each: each.at_ms + (LATE_MS if Random(each.click).random() < 0.1 else 0))
        newest, sequence, at = -1, 0, 0
        while at < len(own):
            size = rng.choice([1, 3, 10, 40])
            part, at, sequence = own[at : at + size], at + size, sequence + rng.randint(0, 1)
            newest = max(newest, *(each.at_ms for each in part))
            batch = batch_of(rng.sample(part, len(part)), sequence, newest, partition)
            place = rng.random() + sequence
            found.append((place, batch))
            if rng.random() < 0.2:
                found.append((place + 5 * rng.random(), batch))
    return [batch for _, batch in sorted(found, key=lambda each: each[0])]


def way_through(batches: list[EvidenceBatch], rules: InvalidRules, rng: Random, reload: float = 0.0) -> Way:
    """Decides now and then, and once more when every watermark has passed the end."""
    desk, told = SourceDesk(rules), []
    for batch in batches:
        desk.take(batch)
        if rng.random() < 0.3:
            told += told_by(desk.decide())
        if rng.random() < reload:
            desk = reloaded(desk)
    for partition in range(3):
        desk.take(batch_of([], 10**6, BURSTS_MS[-1] + SPAN_MS, partition))
    told += told_by(desk.decide())
    return Way(told, desk)


def expected(clicks: list[Seen], rules: InvalidRules) -> set[Told]:
    """Of the rules that are not off."""
    off = {rule.value for rule in Rule if rules.mode(rule) is Mode.OFF}
    return {told for told in must_be_told(clicks, rules) if told[0] not in off}


@given(seeds, seeds)
@BOUNDED
def test_what_is_told_in_the_end_is_what_the_definitions_say(seed: int, other: int) -> None:
    rng = Random(seed)
    clicks, rules = of_all_kinds(rng, rng.choice([10, 60, 200]), SPAN_MS, BURSTS_MS), rules_of(rng)
    told, desk = way_through(batches_of(clicks, Random(other)), rules, Random(other))
    assert set(told) == expected(clicks, rules)
    assert len(told) == len(set(told)), "each rule and click is told once"
    assert told_by(desk.decide()) == []


@given(seeds, seeds)
@BOUNDED
def test_a_desk_that_was_reloaded_now_and_then_tells_the_same(seed: int, other: int) -> None:
    rng = Random(seed)
    clicks, rules = of_all_kinds(rng, 40, SPAN_MS), rules_of(rng)
    batches = batches_of(clicks, Random(other))
    plain, again = SourceDesk(rules), SourceDesk(rules)
    for batch in batches:
        again = reloaded(again) if rng.random() < 0.3 else again
        verdicts = []
        for desk in (plain, again):
            desk.take(batch)
            verdicts.append(desk.decide())
        assert verdicts[0] == verdicts[1]


@given(seeds)
@BOUNDED
def test_small_runs_and_forgetting_for_want_of_room_do_not_depend_on_packing(seed: int) -> None:
    rng = Random(seed)
    batches = batches_of(of_all_kinds(rng, 120, 400 * 60_000), Random(seed))
    rules = rules_of(rng)
    desks = [SourceDesk(rules, max_entries=60) for _ in range(2)]
    for batch in batches:
        verdicts, kept = [], []
        for at, desk in enumerate(desks):
            desk.take(batch)
            if at:
                desk.store.pack()
            verdicts.append(desk.decide())
            kept.append((desk.store.floor_ms, desk.store.forgotten))
            assert len(desk.store) <= 60
        assert verdicts[0] == verdicts[1]
        assert kept[0] == kept[1]
    assert desks[0].store.forgotten > 0
    held = [desk.store.of_kind(list(SourceKind).index(SourceKind.USER)).tolist() for desk in desks]
    assert held[0] == held[1]


def test_runs_are_merged_and_found_in_all_of_them() -> None:
    rng = Random(1)
    clicks, rules = of_all_kinds(rng, 400, SPAN_MS), rules_of(Random(3))
    batches = batches_of(clicks, Random(2))
    before, source_store.PACK_AT = source_store.PACK_AT, 20
    try:
        told, desk = way_through(batches, rules, rng, reload=0.2)
    finally:
        source_store.PACK_AT = before
    assert len(desk.store.runs) > 1
    assert set(told) == expected(clicks, rules)
