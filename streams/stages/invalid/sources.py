"""The source stage: evidence that crosses campaigns, and the verdicts that follow from it.

The partition that owns a source (a user, a device, an address, a publisher) holds **sets of clicks**, never counters:
a click that is forwarded again is the same click. It decides at the least watermark of the forwarding partitions and
tells each (rule, click) once. Given the batches and the places of `decide`, verdicts are a function of both; given
enough memory, the window rules' final flags are a function of the set of clicks alone (`crowding`).

State is exact, so there is no sketch, and no error to state: `MAX_ENTRIES` entries of 64 bytes, 128 MB, hold 500,000
clicks with a user, a device, an address and a publisher each. An entry is held until no window can contain it and a
click that is as late as may be (`LATENESS_MS`). Beyond the bound the entries that would leave first are forgotten
(counted), a floor rises and never falls, and what comes below it is ignored (counted): windows over recent clicks
stay exact, those of late clicks are cut short. Error beyond the bound is one-sided: nobody is flagged for it.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np

from streams.invalid import InvalidRules, Rule, SourceKind
from streams.stages.invalid.crowding import (
    Finding,
    bound_of,
    is_on,
    least_clicks,
    of_addresses,
    of_sources,
    person_clicks,
)
from streams.stages.invalid.forwarders import Forwarders
from streams.stages.invalid.runs import (
    ENTRY,
    MINOR_MASK,
    NO_DELAY,
    TOLD,
    Ints,
    Keys,
    Mask,
    Runs,
    key_by_click,
    key_by_digest,
    key_by_user,
    majors,
)
from streams.verdicts import CLICK, MAX_VERDICT_CLICKS, NOT_CONVERTED, Clicks, EvidenceBatch, Verdict

MAX_ENTRIES: Final = 2_000_000
ROOM: Final = 8
"""Where there is no room, one of so many entries is forgotten at once, so that it is seldom done."""
LATENESS_MS: Final = 86_400_000
"""How late a click may come: clicks' lateness."""
MAX_NAMES: Final = 20_000
"""Publishers' names; one beyond it is told by its hash."""
KINDS: Final = tuple(SourceKind)
SAME_CLICK: Final = ("source", "high", "low", "delay_ms")
"""What makes two entries of one kind the same: a conversion is not its click, nor another conversion."""
ORDER: Final = ("partition", "at_ms", *reversed(SAME_CLICK))
"""How entries with one key are sorted, the last name first: of two that are the same the earliest is kept."""
WINDOW_RULES: Final = {
    SourceKind.USER: (Rule.USER_VELOCITY,),
    SourceKind.DEVICE: (Rule.DEVICE_VELOCITY, Rule.DEVICE_FAN_OUT),
    SourceKind.ADDRESS: (Rule.ADDRESS_VELOCITY, Rule.ADDRESS_FAN_OUT),
    SourceKind.PUBLISHER: (),
}
KIND_OF: Final = {rule: kind for kind, asking in WINDOW_RULES.items() for rule in asking}


class Figures(msgspec.Struct, frozen=True):
    """What a desk holds and has lost, for metrics."""

    entries: int
    bytes: int
    told: int
    """Flagged clicks that are remembered."""
    forgotten: int
    """Entries forgotten for want of room."""
    ignored: int
    """Entries that came below the floor."""
    floor_ms: int
    """What happened before this is forgotten, of the kind with the shortest window."""
    watermark_ms: int


def entries_of(kind: SourceKind, **columns: Any) -> Clicks:
    """`CLICK` records of one kind of source from columns (arrays, or one value for all) named as its fields."""
    sizes = [len(column) for column in columns.values() if np.ndim(column)]
    made = np.zeros(max(sizes, default=1), dtype=CLICK)
    made["kind"], made["delay_ms"] = KINDS.index(kind), NOT_CONVERTED
    for name, column in columns.items():
        made[name] = column
    return made


def held_of(clicks: Clicks, partition: int) -> Clicks:
    """What is kept of `CLICK` records."""
    held = np.zeros(len(clicks), dtype=ENTRY)
    for name in ("source", "high", "low", "at_ms", "campaign", "user", "click_type"):
        held[name] = clicks[name]
    delay_ms = clicks["delay_ms"]
    held["delay_ms"] = np.where(delay_ms == NOT_CONVERTED, NO_DELAY, np.clip(delay_ms, 0, NO_DELAY - 1))
    held["partition"] = partition
    return held


class SourceDesk:
    """The sources that one partition owns."""

    def __init__(self, rules: InvalidRules, max_entries: int = MAX_ENTRIES) -> None:
        self.rules = rules
        self.max_entries = max_entries
        self.forgotten = 0
        self.ignored = 0
        self._until_ms = 0
        """The floor: an entry whose longest window ends before this is forgotten."""
        self._forwarders = Forwarders()
        self._names: dict[int, str] = {}
        self._held = {kind: Runs(ENTRY, key_by_user if kind is SourceKind.ADDRESS else key_by_click) for kind in KINDS}
        self._told = {rule: Runs(TOLD, key_by_digest) for rule in KIND_OF}
        self._waiting: list[tuple[Ints, Clicks]] = []
        """Kinds and entries that came, until the watermark reaches them."""
        self._waiting_count = 0
        self._bursting: dict[Rule, Keys] = dict.fromkeys(WINDOW_RULES[SourceKind.ADDRESS], np.zeros(0, dtype="<u8"))
        """Users of addresses who click unlike people: weighed again when their address is."""
        self._reach = self._reaches()

    # What comes in

    def take(self, batch: EvidenceBatch) -> None:
        """Clicks join their sources' sets. A batch that comes again changes nothing."""
        self._forwarders.hear(batch)
        for source, name in batch.names.items():
            if source in self._names or len(self._names) < MAX_NAMES:
                self._names[source] = name[:128]
        clicks = batch.array()
        clicks = clicks[clicks["kind"] < len(KINDS)]
        kinds, entries = clicks["kind"].astype(np.int64), held_of(clicks, batch.from_partition)
        self._wait(kinds, entries, self._is_live(kinds, entries))
        if len(self) > self.max_entries:
            self._make_room()

    def _is_live(self, kinds: Ints, entries: Clicks) -> Mask:
        return np.asarray(entries["at_ms"] + self._reach[kinds] >= self._until_ms)

    def _wait(self, kinds: Ints, entries: Clicks, live: Mask) -> None:
        self.ignored += int(len(live) - live.sum())
        if live.any():
            self._waiting.append((kinds[live], entries[live]))
            self._waiting_count += int(live.sum())

    def change_rules(self, rules: InvalidRules) -> None:
        """What comes from now on is judged by these, with what is held; what was told stays told."""
        self.rules = rules
        self._reach = self._reaches()
        for rule in self._bursting:
            whole = self._held[SourceKind.ADDRESS].whole(self._floor(SourceKind.ADDRESS))
            self._bursting[rule] = of_addresses(rule, rules, whole[:0], whole)[1]

    def _reaches(self) -> Ints:
        """Longest window of each kind, ms: rules that are off have none."""
        longest = []
        for kind in KINDS:
            windows = [bound_of(rule, self.rules).window_ms for rule in self._asking(kind)]
            longest.append(max(windows, default=0))
        return np.array(longest, dtype=np.int64)

    def _asking(self, kind: SourceKind) -> list[Rule]:
        return [rule for rule in WINDOW_RULES[kind] if is_on(rule, self.rules)]

    def _floor(self, kind: SourceKind) -> int:
        return self._until_ms - int(self._reach[KINDS.index(kind)])

    # Room

    def __len__(self) -> int:
        """Entries in memory."""
        return sum(len(held) for held in self._held.values()) + self._waiting_count

    def _make_room(self) -> None:
        """Forgets what has left every window, and then what would leave first."""
        self._rest_waiting()
        self._forget()
        excess = len(self) - self.max_entries
        if excess <= 0:
            return
        before, until = len(self), self._untils()
        place = min(len(until) - 1, excess + self.max_entries // ROOM)
        self._until_ms = max(self._until_ms, int(np.partition(until, place)[place]) + 1)
        self._forget()
        self.forgotten += before - len(self)

    def _untils(self) -> Ints:
        parts = [entries["at_ms"] + self._reach[kinds] for kinds, entries in self._waiting]
        for at, kind in enumerate(KINDS):
            parts += [run.records["at_ms"] + self._reach[at] for run in self._held[kind].runs]
        return np.concatenate(parts)

    def _rest_waiting(self) -> None:
        """What waits, once each."""
        parts = [(at, entries) for at, _, entries in self._by_kind(self._waiting)]
        self._waiting = [(np.full(len(entries), at, dtype=np.int64), entries) for at, entries in parts]
        self._waiting_count = sum(len(entries) for _, entries in parts)

    def _forget(self) -> None:
        for kind, held in self._held.items():
            held.forget(self._floor(kind))
        for rule, told in self._told.items():
            told.forget(self._floor(KIND_OF[rule]))
        waiting, self._waiting, self._waiting_count = self._waiting, [], 0
        for kinds, entries in waiting:
            live = self._is_live(kinds, entries)
            self._waiting.append((kinds[live], entries[live]))
            self._waiting_count += int(live.sum())

    # The look

    def decide(self) -> list[Verdict]:
        """Verdicts that were not told before, on what is complete."""
        watermark_ms = self._forwarders.advance()
        if watermark_ms < 0:
            return []
        self._until_ms = max(self._until_ms, watermark_ms - LATENESS_MS)
        found: list[Finding] = []
        for at, keys, entries in self._by_kind(self._complete(watermark_ms)):
            held, floor_ms = self._held[KINDS[at]], self._floor(KINDS[at])
            new = (entries["at_ms"] >= floor_ms) & ~held.knows(keys, entries, SAME_CLICK)
            keys, entries = keys[new], entries[new]
            if len(keys):
                found += self._weigh(KINDS[at], keys, entries)
                held.add(keys, entries, floor_ms)
        return [verdict for finding in found for verdict in self._tell(finding, watermark_ms)]

    def _complete(self, watermark_ms: int) -> list[tuple[Ints, Clicks]]:
        """What no longer waits."""
        ready: list[tuple[Ints, Clicks]] = []
        waiting: list[tuple[Ints, Clicks]] = []
        for kinds, entries in self._waiting:
            complete = entries["at_ms"] <= watermark_ms
            for chosen, into in ((complete, ready), (~complete, waiting)):
                if chosen.all():
                    into.append((kinds, entries))
                elif chosen.any():
                    into.append((kinds[chosen], entries[chosen]))
        self._waiting, self._waiting_count = waiting, sum(len(kinds) for kinds, _ in waiting)
        return ready

    def _by_kind(self, parts: list[tuple[Ints, Clicks]]) -> Iterator[tuple[int, Keys, Clicks]]:
        """Place of the kind, sorted keys and entries, each once."""
        if not parts:
            return
        kinds = np.concatenate([kinds for kinds, _ in parts])
        everything = np.concatenate([entries for _, entries in parts])
        for at, kind in enumerate(KINDS):
            entries = everything[kinds == at]
            if len(entries):
                keys = self._held[kind].key_of(entries)
                order = np.lexsort([entries[name] for name in ORDER] + [keys])
                keys, entries = keys[order], entries[order]
                first = np.ones(len(keys), dtype=bool)
                first[1:] = np.logical_or.reduce([entries[name][1:] != entries[name][:-1] for name in SAME_CLICK])
                yield at, keys[first], entries[first]

    def _weigh(self, kind: SourceKind, keys: Keys, new: Clicks) -> Iterator[Finding]:
        """What the window rules find among the sources of new entries."""
        asking = self._asking(kind)
        if kind is SourceKind.ADDRESS:
            found = [self._weigh_addresses(rule, keys, new) for rule in asking]
        elif asking:
            least = min(least_clicks(bound_of(rule, self.rules)) for rule in asking)
            busy = self._busy(kind, keys, majors(keys), majors(keys) | MINOR_MASK, least)
            old, fresh = self._near(kind, asking, busy, keys, new)
            found = [of_sources(rule, self.rules, old, fresh) for rule in asking] if len(fresh) else []
        else:
            found = []
        return (finding for finding in found if finding is not None)

    def _busy(self, kind: SourceKind, keys: Keys, lowest: Keys, highest: Keys, least: int) -> Keys:
        """Those of the ranges of keys that have enough entries, the new ones included."""
        mine = np.searchsorted(keys, highest, "right") - np.searchsorted(keys, lowest, "left")
        return lowest[mine + self._held[kind].count(lowest, highest) >= least]

    def _near(
        self, kind: SourceKind, asking: list[Rule], sources: Keys, keys: Keys, new: Clicks
    ) -> tuple[Clicks, Clicks]:
        """Held and new entries of the sources (lowest keys), as far as windows from the new ones reach."""
        fresh = new[np.isin(keys & ~MINOR_MASK, sources)]
        if not len(fresh):
            return fresh, fresh
        old = self._held[kind].gather(sources, sources | MINOR_MASK, self._floor(kind))
        reach = max(bound_of(rule, self.rules).window_ms for rule in asking)
        near = (old["at_ms"] >= fresh["at_ms"].min() - reach) & (old["at_ms"] <= fresh["at_ms"].max() + reach)
        return old[near], fresh

    def _weigh_addresses(self, rule: Rule, keys: Keys, new: Clicks) -> Finding | None:
        """Only where a user clicks unlike people; such users are remembered, for others' clicks count too."""
        bound = bound_of(rule, self.rules)
        least = person_clicks(self.rules, bound.window_ms)
        users = keys[np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])]
        known = self._bursting[rule]
        touched = known[np.isin(known & ~MINOR_MASK, majors(keys))]
        suspects = np.union1d(self._busy(SourceKind.ADDRESS, keys, users, users, least), touched)
        if not len(suspects):
            return None
        old, fresh = self._near(SourceKind.ADDRESS, [rule], majors(suspects), keys, new)
        finding, bursting = of_addresses(rule, self.rules, old, fresh)
        gone = np.setdiff1d(touched, self._busy(SourceKind.ADDRESS, keys, touched, touched, least))
        self._bursting[rule] = np.setdiff1d(np.union1d(known, bursting), gone)
        return finding

    # What is told

    def _tell(self, finding: Finding, watermark_ms: int) -> Iterator[Verdict]:
        """Verdicts on those clicks that were not told before, by source and partition, in order."""
        told, kind = self._told[finding.rule], KIND_OF[finding.rule]
        order = np.lexsort((finding.clicks["low"], finding.clicks["high"]))
        clicks = finding.clicks[order]
        first = np.ones(len(clicks), dtype=bool)
        first[1:] = (clicks["high"][1:] != clicks["high"][:-1]) | (clicks["low"][1:] != clicks["low"][:-1])
        clicks = clicks[first]
        clicks = clicks[~told.knows(key_by_digest(clicks), clicks, ("high", "low"))]
        records = np.zeros(len(clicks), dtype=TOLD)
        for name in ("high", "low", "at_ms"):
            records[name] = clicks[name]
        told.add(key_by_digest(records), records, self._floor(kind))
        for source, partition, digests in _grouped(clicks):
            for at in range(0, len(digests), MAX_VERDICT_CLICKS):
                yield Verdict(
                    rule=finding.rule,
                    source_kind=kind,
                    source=self._names.get(source) or f"{source:016x}",
                    clicks=tuple(digests[at : at + MAX_VERDICT_CLICKS]),
                    evidence=finding.evidence.get(source, {}),
                    watermark_ms=watermark_ms,
                    to_partition=partition,
                )

    def figures(self) -> Figures:
        """For metrics."""
        stores = [*self._held.values(), *self._told.values()]
        return Figures(
            entries=len(self),
            bytes=sum(each.nbytes for each in stores) + self._waiting_count * (ENTRY.itemsize + 8),
            told=sum(len(told) for told in self._told.values()),
            forgotten=self.forgotten,
            ignored=self.ignored,
            floor_ms=self._until_ms - int(self._reach.min()),
            watermark_ms=self._forwarders.watermark_ms,
        )

    # Checkpoints

    def snapshot(self) -> dict[str, Any]:
        """Plain values: `head`, and `runs` (store, name, content), whose content never changes under their names."""
        return {"head": self.head(), "runs": self.runs()}

    def head(self) -> dict[str, Any]:
        """Everything besides the runs."""
        return {
            "until_ms": self._until_ms,
            "forgotten": self.forgotten,
            "ignored": self.ignored,
            "forwarders": self._forwarders.snapshot(),
            "names": list(self._names.items()),
            "waiting": [[kinds.tobytes(), entries.tobytes()] for kinds, entries in self._waiting],
            "bursting": {rule.value: keys.tobytes() for rule, keys in self._bursting.items()},
            "next_names": {name: store.next_name for name, store in self._stores().items()},
        }

    def runs(self) -> list[tuple[str, int, bytes]]:
        """Every run in its order: store, name, content."""
        return [(store, name, data) for store, runs in self._stores().items() for name, data in runs.named()]

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave; the rules are those of the desk.

        Raises:
            CorruptCheckpoint: a run is not whole.
        """
        head = snapshot["head"]
        self._until_ms, self.forgotten, self.ignored = head["until_ms"], head["forgotten"], head["ignored"]
        self._forwarders.restore(head["forwarders"])
        self._names = dict(head["names"])
        self._waiting = [
            (np.frombuffer(kinds, dtype=np.int64), np.frombuffer(entries, dtype=ENTRY))
            for kinds, entries in head["waiting"]
        ]
        self._waiting_count = sum(len(kinds) for kinds, _ in self._waiting)
        self._bursting = {Rule(rule): np.frombuffer(keys, dtype="<u8") for rule, keys in head["bursting"].items()}
        for store, runs in self._stores().items():
            mine = [(name, data) for owner, name, data in snapshot["runs"] if owner == store]
            runs.restore(mine, head["next_names"][store])

    def _stores(self) -> dict[str, Runs]:
        return {kind.value: held for kind, held in self._held.items()} | {
            rule.value: told for rule, told in self._told.items()
        }


def _grouped(clicks: Clicks) -> Iterator[tuple[int, int, list[str]]]:
    """Source, partition and digests, by source, then partition, then event time."""
    order = np.lexsort((clicks["low"], clicks["high"], clicks["at_ms"], clicks["partition"], clicks["source"]))
    clicks = clicks[order]
    cuts = (clicks["source"][1:] != clicks["source"][:-1]) | (clicks["partition"][1:] != clicks["partition"][:-1])
    for part in np.split(clicks, np.flatnonzero(cuts) + 1) if len(clicks) else ():
        pairs = np.stack((part["high"], part["low"]), axis=1).astype("<u8").tobytes()
        digests = [pairs[at : at + 16].hex() for at in range(0, len(pairs), 16)]
        yield int(part["source"][0]), int(part["partition"][0]), digests
