"""The source stage: evidence that crosses campaigns, and the verdicts that follow from it.

The partition that owns a source (a user, a device, an address, a publisher) holds **sets of clicks**, never counters:
a click that is forwarded again is the same click. It decides at the least watermark of the forwarding partitions and
tells each (rule, click) once. Verdicts are a function of the batches and of the places of `decide` among them; the
window rules' final flags are one of the set of clicks alone (`crowding`). Publishers are judged at steps of event time
(`publishers`) up to which their conversions have been read, too; who is convicted at one stands convicted until the
next, and its clicks are flagged as they come.

State is exact, so there is no sketch, and no error to state: `MAX_ENTRIES` entries of 64 bytes (of publishers 76),
134 MB, hold 500,000 clicks with a user, a device, an address and a publisher each; of impressions, which publishers'
risks alone are weighed by, one of 256 is told. An entry is held until no window can contain both it and a click that
is as late as may be. Beyond the bound, by kind, the oldest are forgotten and counted: windows of late clicks, and then
of all, are cut short, so the error is one-sided: nobody is flagged for want of room. Publishers' risks (`peer_risk`)
are assessed at the last step that a look has passed.
"""

from typing import Any, Final

import msgspec
import numpy as np

from streams.invalid import InvalidRules, Rule, SourceKind
from streams.stages.invalid.anchors import Anchors
from streams.stages.invalid.crowding import (
    Finding,
    bound_of,
    counted,
    counted_of_addresses,
    is_on,
    least_clicks,
    of_addresses,
    of_sources,
)
from streams.stages.invalid.forwarders import Forwarders
from streams.stages.invalid.holding import KINDS, Holding
from streams.stages.invalid.peer_risk import Assessment, assess
from streams.stages.invalid.publishers import Publishers, Standing, reach_of, step_of
from streams.stages.invalid.runs import MINOR_MASK, NO_DELAY, PUBLISHER_ENTRY, Keys, Runs, chosen, firsts, majors
from streams.stages.invalid.telling import RULES_OF, Telling
from streams.verdicts import Clicks, EvidenceBatch, Verdict

MAX_ENTRIES: Final = 2_000_000
LATENESS_MS: Final = 86_400_000
"""How late a click may come: clicks' lateness. Its windows are weighed with what was there at its time."""
MAX_STEPS: Final = 400
"""Steps of publishers in one look; a longer jump of the watermark leaves out the oldest, whose clicks are forgotten."""
NEVER: Final = -1
IN_TURN: Final = (SourceKind.USER, SourceKind.DEVICE)
"""Kinds whose rules flag every click of a window."""


class Figures(msgspec.Struct, frozen=True):
    """What a desk holds and has lost, for metrics."""

    entries: int
    bytes: int
    waiting: int
    """Entries that the watermark has not reached."""
    told: int
    """Flagged clicks that are remembered."""
    forgotten: int
    """Entries forgotten for want of room."""
    ignored: int
    """Entries that came below the floor."""
    floors_ms: dict[str, int]
    """By kind: what happened before this is forgotten."""
    watermark_ms: int


class SourceDesk:
    """The sources that one partition owns."""

    def __init__(self, rules: InvalidRules, max_entries: int = MAX_ENTRIES, partitions: int = 1) -> None:
        self.rules = rules
        self._forwarders = Forwarders(partitions)
        self._holding = Holding(max_entries)
        self._telling = Telling()
        self._stepped_ms = NEVER
        """The last step at which publishers were weighed."""
        self._standing = Standing({}, 0, 0)
        """Who floods, as of that step."""
        self.assessment = Assessment()
        """Their risks at that step."""
        self._bursting: dict[Rule, Keys] = dict.fromkeys(RULES_OF[SourceKind.ADDRESS], np.zeros(0, dtype="<u8"))
        """Users of addresses who click unlike people: weighed again when their address is."""

        self._anchors = self._no_anchors()

    def _no_anchors(self) -> dict[tuple[Rule, int], Anchors]:
        """Of each rule and what it counts apart."""
        asking = [rule for kind in IN_TURN for rule in RULES_OF[kind]]
        return {(rule, at): Anchors() for rule in asking for at in range(len(counted(rule, self.rules)))}

    # What comes in

    def take(self, batch: EvidenceBatch) -> None:
        """Clicks join their sources' sets. A batch that comes again changes nothing."""
        self._forwarders.hear(batch)
        self._telling.hear_names(batch.names)
        forgotten = self._holding.forgotten
        self._holding.take(batch.array(), batch.from_partition)
        if self._holding.forgotten != forgotten:
            self._telling.forget(self._holding.floors_ms)

    def change_rules(self, rules: InvalidRules) -> None:
        """What comes from now on is judged by these, with what is held; what was told stays told."""
        if rules != self.rules:
            self._standing = Standing({}, 0, 0)
        self.rules = rules
        self._anchors = self._no_anchors()
        kind = SourceKind.ADDRESS
        whole = self._holding.held[kind].whole(self._holding.floors_ms[kind])
        for rule in RULES_OF[kind]:
            asked = counted_of_addresses(rule, rules)
            bursting = [of_addresses(rule, each, rules, whole[:0], whole)[1] for each in asked]
            self._bursting[rule] = np.unique(np.concatenate(bursting))

    # The look

    def decide(self) -> list[Verdict]:
        """Verdicts that were not told before, on what is complete."""
        watermark_ms = self._forwarders.advance()
        if watermark_ms < 0:
            return []
        floors_ms = {kind: self._judged_ms(kind) - self._memory(kind) for kind in KINDS}
        if self._holding.raise_floors(floors_ms):
            self._telling.forget(self._holding.floors_ms)
        found: list[Finding] = []
        of_publishers = np.zeros(0, dtype=PUBLISHER_ENTRY)
        for kind, keys, entries in self._holding.complete(watermark_ms):
            found += self._weigh(kind, keys, entries)
            self._holding.add(kind, keys, entries)
            if kind is SourceKind.PUBLISHER:
                of_publishers = entries
        found += self._step(self._forwarders.credited_ms)
        found += self._standing.find(of_publishers)
        floors_ms = self._holding.floors_ms
        return [told for each in found for told in self._telling.tell(each, watermark_ms, floors_ms)]

    def _judged_ms(self, kind: SourceKind) -> int:
        """How far a kind has been judged: what the next step of publishers weighs is held until then."""
        if kind is not SourceKind.PUBLISHER:
            return self._forwarders.watermark_ms
        credited_ms = self._forwarders.credited_ms
        return min(credited_ms, self._stepped_ms) if self._asking(kind) else credited_ms

    def _asking(self, kind: SourceKind) -> list[Rule]:
        return [rule for rule in RULES_OF[kind] if is_on(rule, self.rules)]

    def _memory(self, kind: SourceKind) -> int:
        """How far behind the watermark entries can matter, ms: publishers are not weighed again for late clicks."""
        if kind is SourceKind.PUBLISHER:
            return reach_of(self.rules) + step_of(self.rules)
        return LATENESS_MS + max((bound_of(rule, self.rules).window_ms for rule in self._asking(kind)), default=0)

    def _weigh(self, kind: SourceKind, keys: Keys, new: Clicks) -> list[Finding]:
        """What the window rules find among the sources of new entries."""
        asking = self._asking(kind)
        if kind is SourceKind.PUBLISHER or not asking:
            return []
        if kind is SourceKind.ADDRESS:
            return [finding for rule in asking for finding in self._weigh_addresses(rule, keys, new)]
        least = min(least_clicks(rule, self.rules) for rule in asking)
        sources = majors(keys)
        old, fresh = self._near(kind, asking, self._busy(kind, keys, sources, sources | MINOR_MASK, least), keys, new)
        if not len(fresh):
            return []
        found = [
            of_sources(rule, whole, self.rules, old, fresh, self._anchors[rule, at])
            for rule in asking
            for at, whole in enumerate(counted(rule, self.rules))
        ]
        return [finding for finding in found if finding is not None]

    def _busy(self, kind: SourceKind, keys: Keys, lowest: Keys, highest: Keys, least: int) -> Keys:
        """Those of the ranges of keys that have enough entries, the new ones included."""
        mine = np.searchsorted(keys, highest, "right") - np.searchsorted(keys, lowest, "left")
        return lowest[mine + self._holding.held[kind].count(lowest, highest) >= least]

    def _near(
        self, kind: SourceKind, asking: list[Rule], sources: Keys, keys: Keys, new: Clicks
    ) -> tuple[Clicks, Clicks]:
        """Held and new entries of the sources (lowest keys), as far back as windows with new ones reach."""
        fresh = chosen(new, np.isin(keys & ~MINOR_MASK, sources))
        if not len(fresh):
            return fresh, fresh
        old = self._holding.held[kind].gather(sources, sources | MINOR_MASK, self._holding.floors_ms[kind])
        reach = max(bound_of(rule, self.rules).window_ms for rule in asking)
        return chosen(old, old["at_ms"] >= fresh["at_ms"].min() - reach), fresh

    def _weigh_addresses(self, rule: Rule, keys: Keys, new: Clicks) -> list[Finding]:
        """Only where a user clicks unlike people; such users are remembered, for others' clicks count too."""
        kind, known, asked = SourceKind.ADDRESS, self._bursting[rule], counted_of_addresses(rule, self.rules)
        least = min(own.clicks for _, own in asked)
        users = firsts(keys)
        touched = known[np.isin(known & ~MINOR_MASK, majors(keys))]
        suspects = np.union1d(self._busy(kind, keys, users, users, least), touched)
        if not len(suspects):
            return []
        old, fresh = self._near(kind, [rule], majors(suspects), keys, new)
        found = [of_addresses(rule, each, self.rules, old, fresh, suspects) for each in asked]
        gone = np.setdiff1d(touched, self._busy(kind, keys, touched, touched, least))
        bursting = np.concatenate([known, *(users for _, users in found)])
        self._bursting[rule] = np.setdiff1d(bursting, gone)
        return [finding for finding, _ in found if finding is not None]

    def _step(self, credited_ms: int) -> list[Finding]:
        """What publishers' rules find at the steps up to which clicks and conversions have been told."""
        step_ms, kind = step_of(self.rules), SourceKind.PUBLISHER
        last_ms = credited_ms // step_ms * step_ms
        if not self._asking(kind) or last_ms <= self._stepped_ms:
            return []
        entries = self._holding.held[kind].whole(self._holding.floors_ms[kind])
        clicked_ms = entries["at_ms"][entries["delay_ms"] == NO_DELAY]
        if not len(clicked_ms):
            return []
        from_ms = max(self._stepped_ms, int(clicked_ms.min()), last_ms - MAX_STEPS * step_ms)
        publishers = Publishers(entries, self.rules)
        steps = range((from_ms // step_ms + 1) * step_ms, last_ms + 1, step_ms)
        self._stepped_ms = last_ms
        self.assessment = assess(publishers, last_ms, self._holding.floors_ms[kind])
        found = []
        for at_ms in steps:
            findings, self._standing = publishers.weigh(at_ms)
            found += findings
        return found

    def name_of(self, source: int) -> str:
        """A publisher's id; of one beyond the bound of names its hash."""
        return self._telling.name_of(source)

    def figures(self) -> Figures:
        """For metrics."""
        holding, stores = self._holding, self.stores().values()
        return Figures(
            entries=len(holding),
            bytes=sum(each.nbytes for each in stores) + holding.waiting_bytes(),
            waiting=holding.waiting(),
            told=sum(len(told) for told in self._telling.told.values()),
            forgotten=holding.forgotten,
            ignored=holding.ignored,
            floors_ms={kind.value: floor_ms for kind, floor_ms in holding.floors_ms.items()},
            watermark_ms=self._forwarders.watermark_ms,
        )

    # Checkpoints

    def snapshot(self) -> dict[str, Any]:
        """Plain values: `head`, and `runs`."""
        return {"head": self.head(), "runs": self.runs()}

    def head(self) -> dict[str, Any]:
        """Everything besides the runs."""
        return {
            "forwarders": self._forwarders.snapshot(),
            "holding": self._holding.head(),
            "telling": self._telling.head(),
            "stepped_ms": self._stepped_ms,
            "standing": self._standing.snapshot(),
            "assessment": msgspec.to_builtins(self.assessment),
            "anchors": {_place(*at): anchors.snapshot() for at, anchors in self._anchors.items()},
            "bursting": {rule.value: keys.tobytes() for rule, keys in self._bursting.items()},
            "next_names": {name: store.next_name for name, store in self.stores().items()},
        }

    def runs(self) -> list[tuple[str, int, bytes]]:
        """Every run in its order: store, name, content. What a store has under a name never changes."""
        return [(store, name, data) for store, runs in self.stores().items() for name, data in runs.named()]

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave; the rules are those of the desk.

        Raises:
            CorruptCheckpoint: a run is not whole.
        """
        head = snapshot["head"]
        self._forwarders.restore(head["forwarders"])
        self._holding.restore_head(head["holding"])
        self._telling.restore_head(head["telling"])
        self._stepped_ms = head["stepped_ms"]
        self._standing = Standing.restored(head["standing"])
        self.assessment = msgspec.convert(head["assessment"], Assessment)
        for at, anchors in self._anchors.items():
            anchors.restore(head["anchors"][_place(*at)])
        self._bursting = {Rule(rule): np.frombuffer(keys, dtype="<u8") for rule, keys in head["bursting"].items()}
        for store, runs in self.stores().items():
            mine = [(name, data) for owner, name, data in snapshot["runs"] if owner == store]
            runs.restore(mine, head["next_names"][store])

    def stores(self) -> dict[str, Runs]:
        """Everything that is held, by name."""
        held = {kind.value: runs for kind, runs in self._holding.held.items()}
        return held | {rule.value: runs for rule, runs in self._telling.told.items()}


def _place(rule: Rule, at: int) -> str:
    """The name of a rule's anchors, of the first that it counts apart, or a further one."""
    return f"{rule.value} {at}" if at else rule.value
