"""Findings become verdicts: each (rule, click) is told once, to the partition of the click, in a fixed order.

What was told is remembered as long as its click is held: 24 bytes in a checkpoint, 32 in memory, for each rule and
click. So there are never more than the entries of the rule's kind, and none of a window that has long closed.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from streams.invalid import Rule, SourceKind
from streams.stages.invalid.crowding import Finding
from streams.stages.invalid.runs import TOLD, Runs, chosen, key_by_digest
from streams.verdicts import MAX_VERDICT_CLICKS, Clicks, Verdict

MAX_NAMES: Final = 20_000
"""Publishers' names; one beyond it is told by its hash."""
MAX_NAME: Final = 128
RULES_OF: Final = {
    SourceKind.USER: (Rule.USER_VELOCITY,),
    SourceKind.DEVICE: (Rule.DEVICE_VELOCITY, Rule.DEVICE_FAN_OUT),
    SourceKind.ADDRESS: (Rule.ADDRESS_VELOCITY, Rule.ADDRESS_FAN_OUT),
    SourceKind.PUBLISHER: (Rule.PUBLISHER_FLOODING, Rule.PUBLISHER_TIMING),
}
KIND_OF: Final = {rule: kind for kind, asking in RULES_OF.items() for rule in asking}


class Telling:
    """What was told, as long as the click is held; and the publishers' names."""

    def __init__(self) -> None:
        self.told = {rule: Runs(TOLD, key_by_digest) for rule in KIND_OF}
        self.names: dict[int, str] = {}

    def hear_names(self, names: Mapping[int, str]) -> None:
        """Publishers' names by their hashes. The first that come are kept."""
        for source, name in names.items():
            if len(self.names) < MAX_NAMES:
                self.names.setdefault(source, name[:MAX_NAME])

    def name_of(self, source: int) -> str:
        """The name, or where it is not known the hash, 16 hexadecimal digits."""
        return self.names.get(source) or f"{source:016x}"

    def tell(self, finding: Finding, watermark_ms: int, floors_ms: Mapping[SourceKind, int]) -> Iterator[Verdict]:
        """Verdicts on those clicks that were not told before, by source and partition."""
        told, kind, clicks = self.told[finding.rule], KIND_OF[finding.rule], finding.clicks
        clicks = clicks.take(np.lexsort((clicks["source"], clicks["low"], clicks["high"])))
        first = np.ones(len(clicks), dtype=bool)
        first[1:] = (clicks["high"][1:] != clicks["high"][:-1]) | (clicks["low"][1:] != clicks["low"][:-1])
        clicks = chosen(clicks, first)
        clicks = chosen(clicks, ~told.knows(key_by_digest(clicks), clicks, ("high", "low")))
        records = np.zeros(len(clicks), dtype=TOLD)
        for name in ("high", "low", "at_ms"):
            records[name] = clicks[name]
        told.add(key_by_digest(records), records, floors_ms[kind])
        for source, partition, digests in _grouped(clicks):
            for at in range(0, len(digests), MAX_VERDICT_CLICKS):
                yield Verdict(
                    rule=finding.rule,
                    source_kind=kind,
                    source=self.name_of(source),
                    clicks=tuple(digests[at : at + MAX_VERDICT_CLICKS]),
                    evidence=finding.evidence.get(source, {}),
                    watermark_ms=watermark_ms,
                    to_partition=partition,
                )

    def forget(self, floors_ms: Mapping[SourceKind, int]) -> None:
        """What is no longer held need not be remembered."""
        for rule, told in self.told.items():
            told.forget(floors_ms[KIND_OF[rule]])

    def head(self) -> dict[str, Any]:
        """Plain values: everything besides the runs."""
        return {"names": list(self.names.items())}

    def restore_head(self, head: dict[str, Any]) -> None:
        """Takes back what `head` gave."""
        self.names = dict(head["names"])


def _grouped(clicks: Clicks) -> Iterator[tuple[int, int, list[str]]]:
    """Source, partition and digests, by source, then partition, then event time."""
    order = np.lexsort((clicks["low"], clicks["high"], clicks["at_ms"], clicks["partition"], clicks["source"]))
    clicks = clicks.take(order)
    cuts = (clicks["source"][1:] != clicks["source"][:-1]) | (clicks["partition"][1:] != clicks["partition"][:-1])
    for part in np.split(clicks, np.flatnonzero(cuts) + 1) if len(clicks) else ():
        pairs = np.stack((part["high"], part["low"]), axis=1).astype("<u8").tobytes()
        digests = [pairs[at : at + 16].hex() for at in range(0, len(pairs), 16)]
        yield int(part["source"][0]), int(part["partition"][0]), digests
