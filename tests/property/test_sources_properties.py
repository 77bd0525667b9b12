"""Window rules over sources equal a count over all intervals, whatever the order of batches and of looks."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

import msgspec
import numpy as np
from hypothesis import given

from streams.events import ClickType
from streams.invalid import FanOut, InvalidRules, Mode, Rule, SourceKind, Velocity
from streams.stages.invalid.crowding import person_clicks
from streams.stages.invalid.holding import entries_of
from streams.stages.invalid.sources import SourceDesk
from streams.verdicts import CLICK, EvidenceBatch, Verdict
from tests.property.histories import BOUNDED, seeds

T0 = 1_700_000_000_000
TYPES = tuple(ClickType)
WINDOWED = (
    *(Rule.USER_VELOCITY, Rule.DEVICE_VELOCITY, Rule.ADDRESS_VELOCITY),
    *(Rule.DEVICE_FAN_OUT, Rule.ADDRESS_FAN_OUT),
)
KIND_OF = {rule: SourceKind(rule.value.split("_")[0]) for rule in WINDOWED}
Flags = dict[Rule, set[str]]


class Tap(NamedTuple):
    """A click as the oracle sees it."""

    digest: str
    partition: int
    at_ms: int
    sources: dict[SourceKind, int]
    campaign: int
    user: int
    click_type: ClickType


def rules_of(rng: Random) -> InvalidRules:
    """Thresholds that small histories reach now and then."""

    def window() -> int:
        return rng.choice([1_000, 5_000, 20_000])

    def by_type(most: int) -> dict[ClickType, int]:
        return {each: rng.randint(1, most) for each in rng.sample(TYPES[:3], rng.choice([0, 0, 1, 3]))}

    def alone() -> int:
        return rng.choice([0, 0, rng.randint(1, 6)])

    return InvalidRules(
        modes={rule: rng.choice([Mode.ON, Mode.ON, Mode.OBSERVE, Mode.OFF]) for rule in WINDOWED},
        user_velocity=Velocity(rng.randint(1, 6), window(), by_type(6)),
        device_velocity=Velocity(rng.randint(1, 6), window(), by_type(6)),
        address_velocity=Velocity(rng.randint(1, 12), window(), by_type(12)),
        velocity_types=TYPES if rng.random() < 0.5 else TYPES[:3],
        device_fan_out=FanOut(rng.randint(1, 4), window(), rng.randint(0, 3), alone(), alone()),
        address_fan_out=FanOut(rng.randint(1, 5), window(), rng.randint(0, 4), alone(), alone()),
    )


def taps_of(rng: Random, partitions: int) -> list[Tap]:
    """Clicks in bursts; sources whose hashes share their upper half, and unknown users, among them."""
    few, step = rng.choice([1, 2, 5]), rng.choice([50, 700, 3_000])
    taps, at_ms = [], T0
    for number in range(rng.randrange(120)):
        at_ms += rng.choice([0, 0, rng.randrange(step), 20 * step if rng.random() < 0.05 else 1])
        high = rng.choice([number, 7]) << rng.choice([0, 33])
        user = rng.randrange(few + 1)
        sources = {kind: 5 << 32 | rng.randint(1, few) for kind in SourceKind}
        if rng.random() < 0.3:
            sources[SourceKind.ADDRESS] = rng.randint(1, few) << 40
        taps.append(
            Tap(
                digest=np.array([high, number], dtype="<u8").tobytes().hex(),
                partition=rng.randrange(partitions),
                at_ms=at_ms - rng.choice([0, 0, 0, rng.randrange(20 * step)]),
                sources=sources,
                campaign=rng.randint(1, 6),
                user=user << 33 if rng.random() < 0.5 else user,
                click_type=rng.choice(TYPES),
            )
        )
    return taps


def records_of(taps: list[Tap]) -> bytes:
    """As they are forwarded: one record for each kind."""
    parts = [np.zeros(0, dtype=CLICK)]
    for kind in SourceKind:
        pairs = np.frombuffer(bytes.fromhex("".join(tap.digest for tap in taps)), dtype="<u8").reshape(-1, 2)
        columns = {
            "source": [tap.sources[kind] for tap in taps],
            "at_ms": [tap.at_ms for tap in taps],
            "campaign": [tap.campaign for tap in taps],
            "user": [tap.user for tap in taps],
            "click_type": [TYPES.index(tap.click_type) for tap in taps],
        }
        if taps:
            parts.append(entries_of(kind, high=pairs[:, 0], low=pairs[:, 1], **columns))
    return np.concatenate(parts).tobytes()


def batches_of(rng: Random, taps: list[Tap], partitions: int) -> Iterator[EvidenceBatch]:
    """Each partition's clicks in its order, cut and interleaved by chance; some batches come again; all fall idle."""
    queues: dict[int, list[EvidenceBatch]] = defaultdict(list)
    for partition in range(partitions):
        mine, newest, sequence = [tap for tap in taps if tap.partition == partition], -1, 0
        while mine:
            part, mine = mine[: (size := rng.randint(1, 15))], mine[size:]
            newest, sequence = max(newest, *(tap.at_ms for tap in part)), sequence + 1
            queues[partition].append(_batch(partition, sequence, newest, rng.random() < 0.1, part))
        queues[partition].append(_batch(partition, sequence + 1, newest, True, []))
    sent: list[EvidenceBatch] = []
    while any(queues.values()):
        sent.append(queues[rng.choice([each for each, queue in queues.items() if queue])].pop(0))
        yield sent[-1]
        if rng.random() < 0.3:
            yield rng.choice(sent)


def _batch(partition: int, sequence: int, newest: int, is_idle: bool, taps: list[Tap]) -> EvidenceBatch:
    return EvidenceBatch(
        from_partition=partition, sequence=sequence, watermark_ms=newest, is_idle=is_idle, clicks=records_of(taps)
    )


def naive(taps: list[Tap], rules: InvalidRules) -> Flags:
    """Every interval that begins at a click, one by one."""
    flags: Flags = {}
    for rule, kind in KIND_OF.items():
        if rules.mode(rule) is Mode.OFF:
            continue
        bound = getattr(rules, rule.value)
        counted = [tap for tap in taps if isinstance(bound, FanOut) or tap.click_type in rules.velocity_types]
        flags[rule] = set()
        for start in counted:
            inside = [tap for tap in counted if 0 <= tap.at_ms - start.at_ms <= bound.window_ms]
            inside = [tap for tap in inside if tap.sources[kind] == start.sources[kind]]
            if isinstance(bound, Velocity):
                inside = [tap for tap in inside if apart(tap, bound) == apart(start, bound)]
                least = bound.clicks_by_type.get(start.click_type, bound.clicks)
                passes = len({tap.digest for tap in inside}) >= least
            else:
                campaigns, users = {tap.campaign for tap in inside}, {tap.user for tap in inside} - {0}
                passes = len(campaigns) >= bound.campaigns and len(users) >= bound.users
                passes |= 0 < bound.campaigns_alone <= len(campaigns) or 0 < bound.users_alone <= len(users)
            if passes and kind is SourceKind.ADDRESS:
                inside = unlike_people(inside, bound.window_ms, rules)
            flags[rule] |= {tap.digest for tap in inside} if passes else set()
    return {rule: found for rule, found in flags.items() if found}


def apart(tap: Tap, bound: Velocity) -> ClickType | None:
    """The type by which it is counted, if that has a number of its own."""
    return tap.click_type if tap.click_type in bound.clicks_by_type else None


def unlike_people(inside: list[Tap], window_ms: int, rules: InvalidRules) -> list[Tap]:
    """Clicks of users who alone have half of what convicts a user, by what is counted apart of users."""
    bound = rules.user_velocity
    each = Counter((tap.user, apart(tap, bound)) for tap in inside)
    return [
        tap
        for tap in inside
        if tap.user
        and each[tap.user, kind := apart(tap, bound)]
        >= person_clicks(rules, window_ms, bound.clicks_by_type[kind] if kind else bound.clicks)
    ]


def told_by(verdicts: list[Verdict], taps: list[Tap]) -> Flags:
    """What was told; each once, to the click's partition, about its source."""
    by_digest = {tap.digest: tap for tap in taps}
    flags: Flags = defaultdict(set)
    for verdict in verdicts:
        assert verdict.source_kind is KIND_OF[verdict.rule]
        for digest in verdict.clicks:
            assert digest not in flags[verdict.rule]
            flags[verdict.rule].add(digest)
            assert by_digest[digest].partition == verdict.to_partition
            assert f"{by_digest[digest].sources[verdict.source_kind]:016x}" == verdict.source
    return dict(flags)


def again(desk: SourceDesk, rules: InvalidRules) -> SourceDesk:
    """What a checkpoint gives back."""
    fresh = SourceDesk(rules)
    fresh.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(desk.snapshot())))
    return fresh


@given(seeds)
@BOUNDED
def test_final_flags_are_a_function_of_the_set_of_clicks(seed: int) -> None:
    rng = Random(seed)
    partitions, rules = rng.randint(1, 4), rules_of(rng)
    taps = taps_of(rng, partitions)
    for _ in range(2):
        desk, verdicts = SourceDesk(rules), []
        for batch in batches_of(rng, taps, partitions):
            desk.take(batch)
            verdicts += desk.decide() if rng.random() < 0.5 else []
        verdicts += desk.decide()
        assert told_by(verdicts, taps) == naive(taps, rules)


@given(seeds)
@BOUNDED
def test_a_restored_desk_goes_on_alike(seed: int) -> None:
    rng = Random(seed)
    rules = rules_of(rng)
    desk, other = SourceDesk(rules), SourceDesk(rules)
    for batch in batches_of(rng, taps_of(rng, 3), 3):
        desk.take(batch)
        other.take(batch)
        if rng.random() < 0.5:
            assert desk.decide() == other.decide()
        if rng.random() < 0.3:
            other = again(other, rules)
    assert desk.decide() == other.decide()
    assert desk.snapshot() == other.snapshot()
