"""Clicks on their way to the partitions that own their sources: collected as they are applied, sent at ticks.

A source's partition is its hash modulo the partitions; of publishers it is that of their channel, so that the
publishers of a channel, which are each other's peers, meet. Clicks that general rules exclude are not forwarded: they
are judged already.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from streams.events import ClickType, Conversion, Event
from streams.invalid import InvalidRules, Mode, Rule, SourceKind
from streams.rules import DAY_MS
from streams.state.traces import click_of
from streams.verdicts import CLICK, NOT_CONVERTED, SHOWN, Clicks, EvidenceBatch

FORWARD_MS: Final = 1_000
"""Clicks wait so long, wall time, so that batches are few."""
HEARTBEAT_MS: Final = 5_000
"""A partition that gets no clicks is told the watermark this often."""
MAX_BATCH: Final = 8_000
"""Entries of one batch: about 650 kB."""
MAX_DELAY_MS: Final = 2 * DAY_MS
"""From click to conversion: what comes later tells the publishers' rules nothing."""
MAX_NAMES: Final = 2_000
"""Publishers' names in one batch; a publisher beyond it is told by its hash."""
KINDS: Final = tuple(SourceKind)
_CLICK_TYPE: Final = {kind: at for at, kind in enumerate(ClickType)}
_RULES_OF: Final = {
    SourceKind.USER: (Rule.USER_VELOCITY,),
    SourceKind.DEVICE: (Rule.DEVICE_VELOCITY, Rule.DEVICE_FAN_OUT),
    SourceKind.ADDRESS: (Rule.ADDRESS_VELOCITY, Rule.ADDRESS_FAN_OUT),
    SourceKind.PUBLISHER: (Rule.PUBLISHER_FLOODING, Rule.PUBLISHER_TIMING),
}
Hashes = npt.NDArray[np.uint64]
_SHORT: Final = np.uint64((1 << 32) - 1)
"""Of addresses and agents, which publishers are only compared by."""


def hash_of(value: str) -> int:
    """XXH3, 64 bits. Pseudonyms come keyed; this only shortens them."""
    return xxhash.xxh3_64_intdigest(value.encode())


def hash_all(values: Iterable[str | None], count: int) -> Hashes:
    """The hash of each; 0 for none."""
    return np.fromiter((hash_of(v) if v else 0 for v in values), dtype=np.uint64, count=count)


def _base(events: Sequence[Event], digests: Sequence[bytes]) -> Clicks:
    """What entries of every kind have in common; `digests` are those of the clicks."""
    base = np.zeros(len(events), dtype=CLICK)
    pairs = np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)
    base["high"], base["low"] = pairs[:, 0], pairs[:, 1]
    base["at_ms"] = [e.event_time_ms for e in events]
    base["campaign"] = hash_all((e.campaign_id for e in events), len(events))
    base["user"] = hash_all((e.user_id or e.device_id for e in events), len(events))
    return base


def _is_soon(conversion: Conversion) -> bool:
    """Whether it came so soon after its click that publishers may be weighed by it."""
    click = click_of(conversion)
    return click is not None and conversion.event_time_ms - click[1] <= MAX_DELAY_MS


def wanted_kinds(rules: InvalidRules) -> tuple[SourceKind, ...]:
    """Kinds of source that a rule asks for."""
    return tuple(k for k, asking in _RULES_OF.items() if any(rules.mode(r) is not Mode.OFF for r in asking))


class Heard(NamedTuple):
    """How far a partition has read, as its sources are told."""

    clicks_ms: int = -1
    """Newest event time of its clicks."""
    credited_ms: int = -1
    """Of its clicks and conversions, whichever is less far."""
    is_idle: bool = False
    """It has no clicks to read."""


class Forwarded(NamedTuple):
    """A batch, and where it goes."""

    to_partition: int
    batch: EvidenceBatch


class Forwarding:
    """What one partition has to forward."""

    def __init__(self, partition: int, partitions: int) -> None:
        self.partition = partition
        self.partitions = partitions
        self._waiting: list[tuple[npt.NDArray[np.int64], Clicks]] = []
        """(target partitions, entries) of each batch that was applied."""
        self._names: dict[int, str] = {}
        self._sent_ms = 0
        self._told: dict[int, tuple[Heard, int]] = {}
        """By target: what it knows, and when it was told."""
        self._heard = Heard()
        """As of the last tick."""

    def add_clicks(self, events: Sequence[Event], digests: Sequence[bytes], rules: InvalidRules) -> None:
        """Clicks that count and that no general rule excludes."""
        kinds = wanted_kinds(rules)
        if not kinds or not events:
            return
        base = _base(events, digests)
        base["click_type"] = [_CLICK_TYPE[e.click_type] for e in events]  # type: ignore[attr-defined]
        base["delay_ms"] = NOT_CONVERTED
        for kind in kinds:
            self._add(kind, base, self._sources(kind, events), events)

    def _sources(self, kind: SourceKind, events: Sequence[Event]) -> Hashes:
        if kind is SourceKind.USER:
            return hash_all((e.user_id for e in events), len(events))
        if kind is SourceKind.DEVICE:
            return hash_all((e.device_id for e in events), len(events))
        if kind is SourceKind.ADDRESS:
            return hash_all((e.address_id or e.network for e in events), len(events))
        return hash_all((e.publisher_id for e in events), len(events))

    def add_impressions(self, events: Sequence[Event], digests: Sequence[bytes], rules: InvalidRules) -> None:
        """Impressions that were chosen to be told: of publishers only."""
        if SourceKind.PUBLISHER in wanted_kinds(rules) and events:
            base = _base(events, digests)
            base["delay_ms"] = SHOWN
            self._add(SourceKind.PUBLISHER, base, self._sources(SourceKind.PUBLISHER, events), events)

    def add_conversions(self, events: Sequence[Event], rules: InvalidRules) -> None:
        """Conversions soon after the click that they are credited to: of publishers only."""
        if SourceKind.PUBLISHER not in wanted_kinds(rules):
            return
        chosen = [e for e in events if type(e) is Conversion and e.publisher_id and _is_soon(e)]
        if not chosen:
            return
        base = _base(chosen, [xxhash.xxh3_128_digest(click_of(e)[0].encode()) for e in chosen])  # type: ignore[index]
        # a click behind its conversion is a wrong clock; one of the far future would never be forgotten
        base["at_ms"] = [min(click_of(e)[1], e.event_time_ms) for e in chosen]  # type: ignore[index]
        base["delay_ms"] = np.array([e.event_time_ms for e in chosen]) - base["at_ms"]
        self._add(SourceKind.PUBLISHER, base, self._sources(SourceKind.PUBLISHER, chosen), chosen)

    def _add(self, kind: SourceKind, base: Clicks, sources: Hashes, events: Sequence[Event]) -> None:
        entries = base.copy()
        entries["kind"], entries["source"] = KINDS.index(kind), sources
        owners = sources
        if kind is SourceKind.PUBLISHER:
            owners = hash_all((e.channel or "-" for e in events), len(events))
            entries["group"] = owners
            entries["address"] = hash_all((e.address_id or e.network for e in events), len(events)) & _SHORT
            entries["agent"] = hash_all((e.user_agent for e in events), len(events)) & _SHORT
            for source, event in zip(sources.tolist(), events, strict=True):
                if event.publisher_id and (source in self._names or len(self._names) < MAX_NAMES):
                    self._names[source] = event.publisher_id
        known = sources != 0
        targets = (owners % np.uint64(self.partitions)).astype(np.int64)
        self._waiting.append((targets[known], entries[known]))

    def is_due(self, wall_ms: int) -> bool:
        """Whether a tick at this time would send clicks that wait."""
        return bool(self._waiting) and wall_ms >= self._sent_ms + FORWARD_MS

    @property
    def has_untold(self) -> bool:
        """Whether clicks wait, or somebody does not know yet how far this partition has read."""
        return bool(self._waiting) or any(True for _ in self._untold())

    def _untold(self) -> Iterator[tuple[int, Heard, int]]:
        """Targets that know something else: what, and since when."""
        for target in range(self.partitions):
            known, at_ms = self._told.get(target, (Heard(), 0))
            if known != self._heard:
                yield target, known, at_ms

    def has_something_due(self, wall_ms: int) -> bool:
        """Whether a tick at this time would send anything."""
        if self._waiting:
            return self.is_due(wall_ms)
        return any(wall_ms >= at_ms + HEARTBEAT_MS for _, _, at_ms in self._untold())

    def take(self, sequence: int, wall_ms: int, heard: Heard) -> list[Forwarded]:
        """At a tick: what goes out, in order. Of several batches for one target the last brings the watermark."""
        found = []
        self._heard = heard
        if self.is_due(wall_ms):
            targets = np.concatenate([t for t, _ in self._waiting])
            entries = np.concatenate([e for _, e in self._waiting])
            names, self._names, self._waiting, self._sent_ms = self._names, {}, [], wall_ms
            for target in np.unique(targets).tolist():
                chosen, known = entries[targets == target], self._told.get(target, (Heard(), 0))[0]
                for at in range(0, len(chosen), MAX_BATCH):
                    is_last = at + MAX_BATCH >= len(chosen)
                    part = chosen[at : at + MAX_BATCH]
                    found.append(self._batch(target, sequence, heard if is_last else known, part, names))
        if self._waiting:  # what waits is not yet told: no watermark without it
            return found
        told = {each.to_partition for each in found}
        for target, known, at_ms in self._untold():
            is_due = wall_ms >= at_ms + HEARTBEAT_MS or heard.is_idle is not known.is_idle
            if target not in told and is_due:
                found.append(self._batch(target, sequence, heard, np.zeros(0, dtype=CLICK), {}))
                told.add(target)
        self._told.update(dict.fromkeys(told, (heard, wall_ms)))
        return found

    def _batch(self, target: int, sequence: int, heard: Heard, entries: Clicks, names: dict[int, str]) -> Forwarded:
        known = sorted(set(entries["source"].tolist()) & names.keys()) if names else []
        held = {source: names[source] for source in known}
        batch = EvidenceBatch(
            from_partition=self.partition,
            sequence=sequence,
            watermark_ms=heard.clicks_ms,
            credited_ms=heard.credited_ms,
            is_idle=heard.is_idle,
            clicks=entries.tobytes(),
            names=held,
        )
        return Forwarded(target, batch)

    def snapshot(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "waiting": [(targets.tobytes(), entries.tobytes()) for targets, entries in self._waiting],
            "names": self._names,
            "sent_ms": self._sent_ms,
            "told": list(self._told.items()),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self._waiting = [
            (np.frombuffer(targets, dtype=np.int64), np.frombuffer(entries, dtype=CLICK))
            for targets, entries in snapshot["waiting"]
        ]
        self._names, self._sent_ms = snapshot["names"], snapshot["sent_ms"]
        self._told = {target: (Heard(*heard), at_ms) for target, (heard, at_ms) in snapshot["told"]}
