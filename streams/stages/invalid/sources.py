"""Evidence that crosses campaigns, in the partition that owns a source: sets of clicks, decided at a watermark.

Batches of clicks come from all partitions, in any order, and may come again. What is decided follows the smallest of
the forwarders' watermarks; who has nothing to read is not waited for. Each rule and click is told once.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.invalid import InvalidRules, Rule, SourceKind
from streams.rules import HOUR_MS
from streams.stages.invalid import publishers, velocity
from streams.stages.invalid.source_store import ENTRY, MAX_ENTRIES, SourceStore, entries_of
from streams.stages.invalid.velocity import Found
from streams.verdicts import MAX_VERDICT_CLICKS, Clicks, EvidenceBatch, Verdict

SLACK_MS: Final = HOUR_MS
"""Beyond the longest window: clicks that come late still meet those of their time."""
MAX_TOLD: Final = 1_000_000
"""Rules and clicks that are remembered as told; beyond it the oldest may be told again, which changes nothing."""
MAX_NAMES: Final = 20_000
_PUBLISHER: Final = tuple(SourceKind).index(SourceKind.PUBLISHER)
_RULES: Final = {rule: at for at, rule in enumerate(Rule)}
Keys = npt.NDArray[np.uint64]


class SourceDesk:
    """The sources of one partition."""

    def __init__(self, rules: InvalidRules, max_entries: int = MAX_ENTRIES) -> None:
        self.rules = rules
        self.store = SourceStore(max_entries)
        self.watermark_ms = -1
        self.credited_ms = -1
        """Up to which conversions are complete as well."""
        self._forwarders: dict[int, tuple[int, int, int, bool]] = {}
        """Watermark of clicks, of clicks and conversions, sequence and idleness of each."""
        self._waiting: list[Clicks] = []
        """Clicks beyond the watermark: their sources are decided on once it has come there."""
        self._names: dict[int, str] = {}
        self._told: dict[bytes, None] = {}
        self._judged_ms = 0
        """End of the last window that publishers were judged over."""

    def take(self, batch: EvidenceBatch) -> None:
        """Takes a batch. One that comes again adds nothing."""
        clicks_ms, credited_ms, sequence, _ = self._forwarders.get(batch.from_partition, (-1, -1, -1, False))
        if batch.sequence >= sequence:
            heard = max(clicks_ms, batch.watermark_ms), max(credited_ms, batch.credited_ms)
            self._forwarders[batch.from_partition] = (*heard, batch.sequence, batch.is_idle)
        if batch.clicks:
            entries = entries_of(batch.array(), batch.from_partition)
            self.store.add(entries)
            self._waiting.append(entries[entries["kind"] != _PUBLISHER])
        for source, name in batch.names.items():
            if len(self._names) < MAX_NAMES:
                self._names[source] = name

    def decide(self) -> list[Verdict]:
        """What the evidence shows up to the watermark and has not been told yet."""
        waited_for = [each for each in self._forwarders.values() if not each[3]]
        of_all = min if waited_for else max  # where everyone is idle, nothing more is to come
        waited_for = waited_for or list(self._forwarders.values())
        self.watermark_ms = max(self.watermark_ms, of_all((each[0] for each in waited_for), default=-1))
        self.credited_ms = max(self.credited_ms, of_all((each[1] for each in waited_for), default=-1))
        found = [*self._windows(), *self._publishers()]
        self.store.forget(min(self.watermark_ms, self.credited_ms) - self._horizon_ms())
        return [verdict for each in found for verdict in self._verdicts(each)]

    def _windows(self) -> list[Found]:
        """Sources of which a click has become complete."""
        waiting = np.concatenate(self._waiting) if self._waiting else None
        if waiting is None:
            return []
        is_ready = waiting["at_ms"] <= self.watermark_ms
        rest = waiting[~is_ready]
        self._waiting = [rest] if len(rest) else []
        keys = np.unique(waiting["key"][is_ready])
        if not len(keys):
            return []
        clicks = self.store.of(keys)
        clicks = clicks[clicks["at_ms"] <= self.watermark_ms]
        return list(velocity.judge(self._around(waiting[is_ready], keys, clicks), self.rules))

    def _around(self, ready: Clicks, keys: Keys, clicks: Clicks) -> Clicks:
        """The clicks that share a window with one that has become ready: of the others nothing new can be told."""
        place, of_click = np.searchsorted(keys, ready["key"]), np.searchsorted(keys, clicks["key"])
        first, last = np.full(len(keys), np.iinfo(np.int64).max), np.full(len(keys), -1, dtype=np.int64)
        np.minimum.at(first, place, ready["at_ms"])
        np.maximum.at(last, place, ready["at_ms"])
        reach_ms = self._longest_window_ms()
        near = (clicks["at_ms"] >= first[of_click] - reach_ms) & (clicks["at_ms"] <= last[of_click] + reach_ms)
        return clicks[near]

    def _publishers(self) -> list[Found]:
        """Every step that has become due, one after the other, however far the watermark leapt."""
        due_ms = publishers.due(self.credited_ms)
        if due_ms <= self._judged_ms:
            return []
        found: list[Found] = []
        entries = self.store.of_kind(_PUBLISHER)
        for end_ms in publishers.steps(entries["at_ms"], self._judged_ms, due_ms, self.rules.flooding_window_ms):
            found.extend(publishers.judge(entries, end_ms, self.rules))
        self._judged_ms = due_ms
        return found

    def _longest_window_ms(self) -> int:
        rules = self.rules
        windows = (rules.user_velocity, rules.device_velocity, rules.address_velocity)
        fans = (rules.device_fan_out, rules.address_fan_out)
        return max(*(w.window_ms for w in windows), *(f.window_ms for f in fans))

    def _horizon_ms(self) -> int:
        longest = max(self.rules.flooding_window_ms, self._longest_window_ms())
        return longest + publishers.MATURITY_MS + publishers.STEP_MS + SLACK_MS

    def _verdicts(self, found: Found) -> list[Verdict]:
        """One for each partition that the clicks are of, with those that were not told before."""
        verdicts = []
        rule = bytes([_RULES[found.rule]])
        for partition in np.unique(found.clicks["partition"]).tolist():
            chosen = found.clicks[found.clicks["partition"] == partition]
            digests = dict.fromkeys(
                high.tobytes() + low.tobytes() for high, low in zip(chosen["high"], chosen["low"], strict=True)
            )
            new = [digest for digest in digests if rule + digest not in self._told]
            self._told.update(dict.fromkeys([rule + digest for digest in new]))
            for at in range(0, len(new), MAX_VERDICT_CLICKS):
                part = tuple(digest.hex() for digest in new[at : at + MAX_VERDICT_CLICKS])
                verdicts.append(self._verdict(found, partition, part))
        while len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]
        return verdicts

    def _verdict(self, found: Found, partition: int, clicks: tuple[str, ...]) -> Verdict:
        first = found.clicks[0]
        kind = tuple(SourceKind)[int(first["kind"])]
        source = int(first["source"])
        return Verdict(
            rule=found.rule,
            source_kind=kind,
            source=self._names.get(source, f"{source:016x}") if kind is SourceKind.PUBLISHER else f"{source:016x}",
            clicks=clicks,
            evidence=found.evidence,
            watermark_ms=self.watermark_ms,
            to_partition=partition,
        )

    def change_rules(self, rules: InvalidRules) -> None:
        """New thresholds hold for what is decided from now on; what was told stays told."""
        self.rules = rules

    def snapshot(self) -> dict[str, Any]:
        """Plain values; the clicks themselves are in the store's runs."""
        self.store.pack()
        return {
            "store": self.store.head(),
            "watermark_ms": self.watermark_ms,
            "credited_ms": self.credited_ms,
            "judged_ms": self._judged_ms,
            "forwarders": list(self._forwarders.items()),
            "waiting": [entries.tobytes() for entries in self._waiting],
            "names": list(self._names.items()),
            "told": b"".join(self._told),
        }

    def restore(self, snapshot: dict[str, Any], runs: dict[int, bytes]) -> None:
        """Takes back what `snapshot` and the store's runs gave."""
        self.store.restore(snapshot["store"], runs)
        self.watermark_ms, self.credited_ms = snapshot["watermark_ms"], snapshot["credited_ms"]
        self._judged_ms = snapshot["judged_ms"]
        self._forwarders = {partition: tuple(state) for partition, state in snapshot["forwarders"]}
        self._waiting = [np.frombuffer(entries, dtype=ENTRY) for entries in snapshot["waiting"]]
        self._names = dict(snapshot["names"])
        told = snapshot["told"]
        self._told = {told[at : at + 17]: None for at in range(0, len(told), 17)}
