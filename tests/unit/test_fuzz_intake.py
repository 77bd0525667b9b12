"""A million mutated records: none raises, every one has its place in the ledger, and sound neighbours still count.

`FUZZ_SEED` gives other records, `FUZZ_RECORDS` more of them; a failure prints both.
"""

import os
from collections import Counter

import msgspec
import pytest

from streams.adapters.memory import MemoryRecord
from streams.campaigns import CampaignSettings, decode_campaign, encode_campaign
from streams.events import Input, Reason, Rejected
from streams.records import MEASURES, Table
from streams.state.inputs import Batch
from streams.topics import INPUT_TOPICS
from tests.unit.fuzz_mutations import Mutator
from tests.unit.given import T0, Fed, document, encoded, quick_rules

SEED = int(os.environ.get("FUZZ_SEED", "1"))
RECORDS = int(os.environ.get("FUZZ_RECORDS", "1_000_200"))
BATCH = 1_000
NEIGHBOURS = 8
TICK_EVERY = 12
MEASURE_OF = {
    Input.IMPRESSIONS: "impressions",
    Input.PLAYS: "plays_started",
    Input.CLICKS: "clicks",
    Input.CONVERSIONS: "orders",
    Input.ADJUSTMENTS: "refunds",
    Input.ENGAGEMENTS: "likes",
}


class Fuzzed:
    """One input's partition under fire."""

    def __init__(self, source: Input) -> None:
        self.source = source
        self.mutator = Mutator(source, SEED)
        self.fed = Fed(quick_rules(max_pane_keys=2_000, max_report_keys=500))
        self.fed.settle(currency="USD").tick()
        self.state = self.fed.state.inputs[source]
        self.neighbours = self.mutated = 0

    def run(self, records: int) -> None:
        """Feeds this many mutated records, in batches with sound ones among them."""
        while self.mutated < records:
            self.feed(min(BATCH, records - self.mutated))
            if self.mutated // BATCH % TICK_EVERY == 0 or self.mutated >= records:
                self.tick()

    def feed(self, size: int) -> None:
        """One batch; every record of it has its entry, and every refused one its letter."""
        values = self.mutator.batch(size)
        for number in range(NEIGHBOURS):
            name = f"neighbour-{self.neighbours + number}"
            sound = encoded(document(self.source, name, T0, campaign_id="neighbours"))
            values.insert(int(self.mutator.rng.random() * len(values)), sound)
        at = self.state.position
        found = [MemoryRecord(offset, T0, b"k", value) for offset, value in enumerate(values, start=at)]
        before = Counter(self.state.ledger)
        self.fed.state.apply(Batch(INPUT_TOPICS[self.source], 0, at, at + len(found), found))
        entered = Counter(self.state.ledger) - before
        assert entered.total() == len(found)
        refused = sum(count for (entry, _), count in entered.items() if entry in ("rejected", "late"))
        assert len(self.state.dead_letters) == refused
        self.state.dead_letters.clear()
        self.neighbours += NEIGHBOURS
        self.mutated += size

    def tick(self) -> None:
        """Rows that ClickHouse could take, and all neighbours in them."""
        for rows in self.fed.tick().values():
            for row in rows:
                assert all(-(2**63) <= row[name] < 2**63 for name in MEASURES if name in row)
        mine = [row for row in self.fed.rows[Table.PANES].values() if row["campaign_id"] == "neighbours"]
        assert sum(row[MEASURE_OF[self.source]] for row in mine) == self.neighbours
        msgspec.msgpack.encode(self.state.snapshot())
        assert sum(self.state.ledger.values()) == self.state.consumed()


@pytest.mark.parametrize("source", list(Input))
def test_mutated_records_stop_nothing_lose_nothing_and_change_no_neighbours_number(source: Input) -> None:
    fuzzed = Fuzzed(source)
    try:
        fuzzed.run(RECORDS // len(Input))
    finally:
        ledger = {"/".join(filter(None, key)): count for key, count in sorted(fuzzed.state.ledger.items())}
        print(f"FUZZ_SEED={SEED} FUZZ_RECORDS={RECORDS} {source.value}: {ledger}")
    assert sum(fuzzed.state.ledger.values()) == fuzzed.mutated + fuzzed.neighbours
    of_context = {Reason.INTERNAL_ERROR}
    reached = {reason for entry, reason in fuzzed.state.ledger if entry == "rejected"}
    assert reached >= {reason.value for reason in set(Reason) - of_context - _never(source)}, "mutations miss a reason"
    assert {entry for entry, _ in fuzzed.state.ledger} >= {"counted", "duplicate", "rejected"}


def _never(source: Input) -> set[Reason]:
    """Engagements carry no money."""
    return {Reason.MONEY_WITHOUT_CURRENCY} if source is Input.ENGAGEMENTS else set()


def test_mutated_settings_raise_nothing() -> None:
    sound = CampaignSettings(campaign_id="c1", currency="USD", name="n", time_zone="Europe/Berlin", flight_start_ms=1)
    mutator = Mutator(Input.CLICKS, SEED)
    whole = encode_campaign(sound)
    kinds = mutator._kinds
    outcomes: Counter[str] = Counter()
    for _ in range(20_000):
        found = decode_campaign(mutator.rng.choice(kinds)(whole))
        outcomes[found.reason.value if isinstance(found, Rejected) else "settings"] += 1
    print(f"FUZZ_SEED={SEED} settings: {dict(outcomes)}")
    assert outcomes.total() == 20_000
    assert outcomes["settings"] > 100
    assert len(outcomes) >= 6
