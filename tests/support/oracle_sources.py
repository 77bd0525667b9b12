"""The oracle's part about publishers that flood: which clicks their owner must tell of, from the log of its evidence.

Batches are read again from their bytes, tick by tick; what a step weighs comes from SQL. Only the statistics are those
of the code under test (`flooding.convicted`: tests/unit/test_sources_publishers.py judges them).
"""

import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from streams.invalid import InvalidRules
from streams.stages.invalid.flooding import Rates, convicted
from tests.support.events import EVIDENCE_TOPIC, RawRecord

PUBLISHER: Final = 3
SHOWN: Final = -2
ENTRY: Final = struct.Struct("<BQQQqQQBQqII")
LEAST_GROUP: Final = 10
FLAT_MS: Final = 24 * 3_600_000
"""What the rule of times looks back for, if it is asked."""
HELD: Final = "CREATE TABLE held (ready, source, grp, click, at_ms, campaign, delay_ms)"
OLDEST: Final = "SELECT MIN(at_ms) FROM held WHERE delay_ms < 0 AND at_ms >= ?"
RATES: Final = """
SELECT source, grp, campaign, COUNT(*), SUM(EXISTS (
    SELECT 1 FROM held AS v WHERE v.source = c.source AND v.click = c.click AND v.delay_ms BETWEEN 0 AND :maturity_ms))
FROM held AS c WHERE delay_ms < 0 AND at_ms >= :from_ms AND at_ms < :to_ms GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
FLAGGED: Final = """
SELECT click FROM held WHERE delay_ms < 0 AND source = :source AND grp = :grp AND at_ms >= :from_ms AND at_ms < :to_ms
AND ready >= :ready
"""
Unit = tuple[str, str]


class Entry(NamedTuple):
    """A click of a publisher, or (with a delay) a conversion that is credited to it."""

    source: str
    group: str
    click: str
    at_ms: int
    campaign: str
    delay_ms: int


class Convicted(NamedTuple):
    """Of the last step."""

    units: tuple[Unit, ...] = ()
    from_ms: int = 0
    to_ms: int = 0


class Desk:
    """One partition's publishers, over its ticks."""

    def __init__(
        self,
        ticks: Sequence[Mapping[str, Any]],
        rules: Sequence[Mapping[str, Any]],
        evidence: Sequence[RawRecord],
        partitions: int,
    ) -> None:
        self.partitions = partitions
        self.db = sqlite3.connect(":memory:")
        self.db.execute(HELD)
        self.db.execute("CREATE INDEX by_click ON held (click)")
        self.flagged: set[str] = set()
        self._ticks, self._rules, self._evidence = ticks, rules, sorted(evidence, key=lambda record: record.offset)
        self._said: dict[int, tuple[int, int, int, bool]] = {}
        self._waiting: list[Entry] = []
        self._watermark_ms = self._credited_ms = self._stepped_ms = -1
        self._floor_ms = 0
        self._convicted = Convicted()

    def run(self) -> set[str]:
        """The digests of all clicks that are told."""
        at, invalid = 0, None
        for k, (tick, rules) in enumerate(zip(self._ticks, self._rules, strict=True)):
            if invalid is not None and rules["invalid"] != invalid:
                self._convicted = Convicted()
            invalid, begin = rules["invalid"], at
            while at < len(self._evidence) and self._evidence[at].offset < tick["applied"][EVIDENCE_TOPIC]:
                self._hear(msgspec.msgpack.decode(self._evidence[at].value or b"", strict=False))
                at += 1
            if at > begin:
                self._decide(k, invalid)
        return self.flagged

    def _hear(self, batch: dict[str, Any]) -> None:
        known = self._said.get(batch["from_partition"], (-1, -1, -1, False))
        if batch["sequence"] >= known[0]:
            clicks_ms, credited_ms = max(known[1], batch["watermark_ms"]), max(known[2], batch["credited_ms"])
            self._said[batch["from_partition"]] = (batch["sequence"], clicks_ms, credited_ms, batch["is_idle"])
        for kind, source, high, low, at_ms, campaign, _, _, group, delay_ms, _, _ in ENTRY.iter_unpack(batch["clicks"]):
            if kind == PUBLISHER and at_ms >= self._floor_ms and delay_ms != SHOWN:
                click = struct.pack("<QQ", high, low).hex()
                self._waiting.append(
                    Entry(f"{source:016x}", f"{group:016x}", click, at_ms, f"{campaign:016x}", delay_ms)
                )

    def _decide(self, k: int, invalid: Mapping[str, Any]) -> None:
        if len(self._said) < self.partitions:
            return  # somebody has said nothing yet
        heard = [said for said in self._said.values() if not said[3]]
        least = min if heard else max
        heard = heard or list(self._said.values())
        self._watermark_ms = max(self._watermark_ms, least(said[1] for said in heard))
        self._credited_ms = max(self._credited_ms, min(self._watermark_ms, least(said[2] for said in heard)))
        if self._watermark_ms < 0:
            return
        window_ms = invalid["flooding_window_ms"]
        step_ms = max(30_000, window_ms // 36)
        reach_ms = window_ms + (FLAT_MS if invalid["modes"]["publisher_timing"] != "off" else 0)
        self._floor_ms = max(self._floor_ms, min(self._credited_ms, self._stepped_ms) - reach_ms - step_ms)
        self._hold(k)
        last_ms = self._credited_ms // step_ms * step_ms
        oldest = self.db.execute(OLDEST, (self._floor_ms,)).fetchone()[0]
        if oldest is not None and last_ms > self._stepped_ms:
            from_ms = max(self._stepped_ms, oldest, last_ms - 400 * step_ms)
            for at_ms in range((from_ms // step_ms + 1) * step_ms, last_ms + 1, step_ms):
                self._convicted = Convicted(
                    tuple(self._convict(at_ms, window_ms, invalid)), at_ms - window_ms, at_ms + step_ms
                )
                self._flag(0)
            self._stepped_ms = last_ms
        self._flag(k)

    def _hold(self, k: int) -> None:
        """What the watermark has reached; of what is the same the earliest."""
        ready = [entry for entry in self._waiting if entry.at_ms <= self._watermark_ms]
        self._waiting = [entry for entry in self._waiting if entry.at_ms > self._watermark_ms]
        for entry in sorted(ready, key=lambda e: e.at_ms):
            same = (entry.source, entry.click, entry.delay_ms, self._floor_ms)
            query = "SELECT 1 FROM held WHERE source = ? AND click = ? AND delay_ms = ? AND at_ms >= ?"
            if entry.at_ms >= self._floor_ms and self.db.execute(query, same).fetchone() is None:
                self.db.execute("INSERT INTO held VALUES (?, ?, ?, ?, ?, ?, ?)", (k, *entry))

    def _flag(self, ready: int) -> None:
        """Clicks of the convicted that are held since a tick."""
        for source, group in self._convicted.units:
            asked = {"source": source, "grp": group, "ready": ready} | self._convicted._asdict()
            asked.pop("units")
            self.flagged |= {click for (click,) in self.db.execute(FLAGGED, asked)}

    def _convict(self, step_ms: int, window_ms: int, invalid: Mapping[str, Any]) -> Iterator[Unit]:
        maturity_ms = window_ms // 24
        asked = {"from_ms": step_ms - window_ms, "to_ms": step_ms - maturity_ms, "maturity_ms": maturity_ms}
        rows = self.db.execute(RATES, asked).fetchall()
        if sum(row[3] for row in rows) < invalid["flooding_min_clicks"]:
            return
        units = sorted({(source, group) for source, group, *_ in rows})
        sizes = {group: sum(each == group for _, each in units) for _, group in units}
        large = {group for group, size in sizes.items() if size >= LEAST_GROUP}
        rules = msgspec.convert(invalid, InvalidRules)
        for group in (*sorted(large), None):  # None: those of small channels, measured by everyone
            chosen = [row for row in rows if group in (None, row[1])]
            for unit in self._guilty(chosen, rules):
                if (unit[1] == group) if group is not None else (unit[1] not in large):
                    yield unit

    @staticmethod
    def _guilty(rows: Sequence[tuple[str, str, str, int, int]], rules: InvalidRules) -> list[Unit]:
        units = sorted({(row[0], row[1]) for row in rows})
        campaigns = sorted({row[2] for row in rows})
        rates = Rates(
            publisher=np.array([units.index((row[0], row[1])) for row in rows]),
            campaign=np.array([campaigns.index(row[2]) for row in rows]),
            clicks=np.array([float(row[3]) for row in rows]),
            conversions=np.array([float(row[4]) for row in rows]),
        )
        return [units[place] for place in convicted(rates, len(units), len(campaigns), rules)]
