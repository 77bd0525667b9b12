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
        self._forwarders: dict[int, tuple[int, int, bool]] = {}
        """Watermark, sequence and idleness of each."""
        self._waiting: list[Clicks] = []
        """Clicks beyond the watermark: their sources are decided on once it has come there."""
        self._names: dict[int, str] = {}
        self._told: dict[bytes, None] = {}
        self._judged_ms = 0
        """End of the last window that publishers were judged over."""

    def take(self, batch: EvidenceBatch) -> None:
        """Takes a batch. One that comes again adds nothing."""
        known = self._forwarders.get(batch.from_partition, (-1, -1, False))
        if batch.sequence >= known[1]:
            state = (max(known[0], batch.watermark_ms), batch.sequence, batch.is_idle)
            self._forwarders[batch.from_partition] = state
        if batch.clicks:
            entries = entries_of(batch.array(), batch.from_partition)
            self.store.add(entries)
            self._waiting.append(entries)
        for source, name in batch.names.items():
            if len(self._names) < MAX_NAMES:
                self._names[source] = name

    def decide(self) -> list[Verdict]:
        """What the evidence shows up to the watermark and has not been told yet."""
        heard = [watermark for watermark, _, is_idle in self._forwarders.values() if not is_idle]
        everything = [watermark for watermark, _, _ in self._forwarders.values()]
        newest = min(heard) if heard else max(everything, default=-1)
        self.watermark_ms = max(self.watermark_ms, newest)
        found = [*self._windows(), *self._publishers()]
        self.store.forget(self.watermark_ms - self._horizon_ms())
        return [verdict for each in found for verdict in self._verdicts(each)]

    def _windows(self) -> list[Found]:
        """Sources of which a click has become complete."""
        waiting = np.concatenate(self._waiting) if self._waiting else None
        if waiting is None:
            return []
        is_ready = waiting["at_ms"] <= self.watermark_ms
        rest = waiting[~is_ready]
        self._waiting = [rest] if len(rest) else []
        keys = np.unique(waiting["key"][is_ready & (waiting["kind"] != _PUBLISHER)])
        if not len(keys):
            return []
        clicks = self.store.of(keys)
        return list(velocity.judge(clicks[clicks["at_ms"] <= self.watermark_ms], self.rules))

    def _publishers(self) -> list[Found]:
        end_ms = publishers.step_due(self._judged_ms, self.watermark_ms)
        if not end_ms:
            return []
        self._judged_ms = end_ms
        return list(publishers.judge(self.store.of_kind(_PUBLISHER), end_ms, self.rules))

    def _horizon_ms(self) -> int:
        rules = self.rules
        windows = (rules.user_velocity, rules.device_velocity, rules.address_velocity)
        fans = (rules.device_fan_out, rules.address_fan_out)
        longest = max(rules.flooding_window_ms, *(w.window_ms for w in windows), *(f.window_ms for f in fans))
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
            "judged_ms": self._judged_ms,
            "forwarders": list(self._forwarders.items()),
            "waiting": [entries.tobytes() for entries in self._waiting],
            "names": list(self._names.items()),
            "told": b"".join(self._told),
        }

    def restore(self, snapshot: dict[str, Any], runs: dict[int, bytes]) -> None:
        """Takes back what `snapshot` and the store's runs gave."""
        self.store.restore(snapshot["store"], runs)
        self.watermark_ms, self._judged_ms = snapshot["watermark_ms"], snapshot["judged_ms"]
        self._forwarders = {partition: tuple(state) for partition, state in snapshot["forwarders"]}
        self._waiting = [np.frombuffer(entries, dtype=ENTRY) for entries in snapshot["waiting"]]
        self._names = dict(snapshot["names"])
        told = snapshot["told"]
        self._told = {told[at : at + 17]: None for at in range(0, len(told), 17)}
