"""Clicks of sources for tests, and what their windows must show: written another way than the code under test."""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import xxhash

from streams.events import ClickType
from streams.invalid import InvalidRules, SourceKind
from streams.stages.invalid.sources import SourceDesk
from streams.verdicts import CLICK, NOT_CONVERTED, EvidenceBatch, Verdict

KINDS: Final = {kind: at for at, kind in enumerate(SourceKind)}
TYPES: Final = {kind: at for at, kind in enumerate(ClickType)}
Told = tuple[str, str]
"""A rule, and a click's digest in hexadecimal."""


class Seen(NamedTuple):
    """One click of one source, or a conversion that is credited to it."""

    kind: SourceKind
    source: int
    click: int
    at_ms: int
    campaign: int = 1
    user: int = 0
    click_type: ClickType = ClickType.CARD
    group: int = 0
    delay_ms: int = NOT_CONVERTED

    @property
    def digest(self) -> str:
        """By which verdicts name the click."""
        return digest_of(self.click)


def digest_of(click: int) -> str:
    """Of a click's number."""
    return str(xxhash.xxh3_128_hexdigest(f"click {click}".encode()))


def batch_of(
    seen: Iterable[Seen],
    sequence: int = 1,
    watermark_ms: int = -1,
    partition: int = 0,
    is_idle: bool = False,
    credited_ms: int | None = None,
    names: dict[int, str] | None = None,
) -> EvidenceBatch:
    """One batch of a forwarder."""
    found = list(seen)
    array = np.zeros(len(found), dtype=CLICK)
    if found:
        pairs = np.frombuffer(bytes.fromhex("".join(each.digest for each in found)), dtype="<u8").reshape(-1, 2)
        array["high"], array["low"] = pairs[:, 0], pairs[:, 1]
        array["kind"] = [KINDS[each.kind] for each in found]
        array["click_type"] = [TYPES[each.click_type] for each in found]
        for name in ("source", "at_ms", "campaign", "user", "group", "delay_ms"):
            array[name] = [getattr(each, name) for each in found]
    return EvidenceBatch(
        from_partition=partition,
        sequence=sequence,
        watermark_ms=watermark_ms,
        credited_ms=watermark_ms if credited_ms is None else credited_ms,
        is_idle=is_idle,
        clicks=array.tobytes(),
        names=names or {},
    )


def told_by(verdicts: Iterable[Verdict]) -> list[Told]:
    """Every (rule, click) of the verdicts."""
    return [(verdict.rule.value, click) for verdict in verdicts for click in verdict.clicks]


def reloaded(desk: SourceDesk) -> SourceDesk:
    """What a checkpoint gives back: plain values through MessagePack, and runs as bytes."""
    snapshot: Any = msgspec.msgpack.decode(msgspec.msgpack.encode(desk.snapshot()), strict=False)
    runs = {run.name: run.encode() for run in desk.store.runs}
    fresh = SourceDesk(desk.rules, desk.store.max_entries)
    fresh.restore(snapshot, runs)
    return fresh


def must_be_told(seen: Iterable[Seen], rules: InvalidRules) -> set[Told]:
    """By definition: a click is flagged if some stretch of time, as long as the window, holds it and is guilty."""
    clicks = {each for each in seen if each.delay_ms == NOT_CONVERTED}
    found: set[Told] = set()
    for kind, source in {(each.kind, each.source) for each in clicks}:
        own = {each for each in clicks if (each.kind, each.source) == (kind, source)}
        found |= {(rule, each.digest) for rule, guilty in _JUDGES[kind](own, rules) for each in guilty}
    return found


def _stretches(clicks: set[Seen], window_ms: int) -> list[set[Seen]]:
    """The clicks of every stretch that ends with a click."""
    return [{c for c in clicks if last - window_ms <= c.at_ms <= last} for last in {each.at_ms for each in clicks}]


def _fast(rule: str, limit: Any, clicks: set[Seen], rules: InvalidRules) -> list[tuple[str, set[Seen]]]:
    chosen = {each for each in clicks if each.click_type in rules.velocity_types}
    return [(rule, part) for part in _stretches(chosen, limit.window_ms) if len(part) >= limit.clicks]


def _user(clicks: set[Seen], rules: InvalidRules) -> list[tuple[str, set[Seen]]]:
    return _fast("user_velocity", rules.user_velocity, clicks, rules)


def _device(clicks: set[Seen], rules: InvalidRules) -> list[tuple[str, set[Seen]]]:
    limit = rules.device_fan_out
    parts = [part for part in _stretches(clicks, limit.window_ms) if _spread(part, limit.campaigns, limit.users)]
    return [*_fast("device_velocity", rules.device_velocity, clicks, rules), *(("device_fan_out", p) for p in parts)]


def _address(clicks: set[Seen], rules: InvalidRules) -> list[tuple[str, set[Seen]]]:
    """Never all of an address: only who clicks unlike people in a crowd."""
    wide, fast = rules.address_fan_out, rules.address_velocity
    found = []
    for part in _stretches(clicks, wide.window_ms):
        if _spread(part, wide.campaigns, wide.users):
            own = {each.user: {c.campaign for c in part if c.user == each.user} for each in part if each.user}
            roaming = {user for user, campaigns in own.items() if len(campaigns) >= rules.device_fan_out.campaigns}
            found.append(("address_fan_out", {each for each in part if each.user in roaming}))
    for part in _stretches(clicks, fast.window_ms):
        if len(part) >= fast.clicks:
            mine = {each.user: sum(c.user == each.user for c in part) for each in part if each.user}
            busy = {user for user, count in mine.items() if 3 * count >= rules.user_velocity.clicks}
            found.append(("address_velocity", {each for each in part if each.user in busy}))
    return found


def _spread(part: set[Seen], campaigns: int, users: int) -> bool:
    known = {each.user for each in part if each.user}
    return len({each.campaign for each in part}) >= campaigns and len(known) >= users


_JUDGES: Final[dict[SourceKind, Any]] = {
    SourceKind.USER: _user,
    SourceKind.DEVICE: _device,
    SourceKind.ADDRESS: _address,
}


def of_all_kinds(rng: Random, count: int, span_ms: int, begins_ms: Sequence[int] = (0,)) -> list[Seen]:
    """Clicks of few users on few devices behind few addresses, each as all of its sources show it."""
    found: list[Seen] = []
    for number in range(count):
        user, device, address = rng.randrange(6), rng.randrange(4), 1 + rng.randrange(2)
        shown = (
            rng.choice(begins_ms) + rng.randrange(span_ms),
            1 + rng.randrange(6),
            user or 100 + device,
            rng.choice(list(ClickType)[:2]),
        )
        ids = ((SourceKind.USER, user), (SourceKind.DEVICE, 1 + device), (SourceKind.ADDRESS, address))
        found.extend(Seen(kind, source, number, *shown) for kind, source in ids if source)
    return found
