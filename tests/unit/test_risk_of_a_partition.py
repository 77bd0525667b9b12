"""From clicks that are read to rows of publishers' risk: forwarding, the source stage, and what a tick gives out."""

import struct
from typing import Any

import numpy as np
import pytest
import xxhash

from streams.events import Input
from streams.records import COLUMNS, Table
from streams.rules import Rules
from streams.state.checkpoint import capture, restore
from streams.state.forwarding import Forwarded, hash_of
from streams.state.journal import Tick
from streams.state.partition import PartitionState
from streams.topics import EVIDENCE, INPUT_TOPICS
from streams.verdicts import SHOWN, SHOWN_EACH, encode_evidence
from tests.unit.given import MINUTE, SECOND, T0, Fed, batch, document

PUBLISHERS = 8
CLICKS = 160
BROWSER = "Mozilla/5.0 (Linux; Android 14; Pixel {}) AppleWebKit/537.36 Chrome/129.0.0.0 Mobile Safari/537.36"


def clicks() -> list[dict[str, Any]]:
    """Eight publishers' clicks of 40 minutes; all of the last one's come from one address and user agent."""
    found = []
    for number in range(PUBLISHERS * CLICKS):
        publisher, at = number % PUBLISHERS, T0 + number * 40 * MINUTE // (PUBLISHERS * CLICKS)
        person = 0 if publisher == PUBLISHERS - 1 else number
        about = {
            "publisher_id": f"p{publisher}",
            "user_id": f"u{number}",
            "address_id": f"a{person}",
            "channel": "feed",
        }
        found.append(document(Input.CLICKS, f"k{number}", at, **about, user_agent=BROWSER.format(person % 31)))
    return found


def ticked(state: PartitionState) -> tuple[list[dict[str, Any]], list[Forwarded]]:
    """A tick: rows of risk by column, and what is forwarded, which is read back. No conversions are to be read."""
    silent = (INPUT_TOPICS[Input.CONVERSIONS],)
    output = state.tick(Tick("claim", state.seq + 1, T0 + state.seq * 10 * SECOND, state.positions(), silent=silent))
    told = [signal for signal in output.signals if isinstance(signal, Forwarded)]
    if told:
        values = [encode_evidence(each.batch) for each in told]
        state.apply(batch(EVIDENCE, state.position(EVIDENCE), values))
    columns = COLUMNS[Table.RISKS][:-1]
    return [dict(zip(columns, row, strict=True)) for row in output.rows.get(Table.RISKS, [])], told


def test_clicks_that_are_read_become_scores_with_their_parts_and_a_restored_partition_gives_the_same() -> None:
    fed = Fed(Rules())
    fed.feed(Input.CLICKS, *clicks())
    rows, told = ticked(fed.state)
    assert (rows, len(told)) == ([], 1)
    entries = told[0].batch.array()
    mine = entries[(entries["kind"] == 3) & (entries["source"] == hash_of("p7"))]
    assert set(mine["address"].tolist()) == {hash_of("a0") & 0xFFFFFFFF}
    assert set(mine["agent"].tolist()) == {hash_of(BROWSER.format(0)) & 0xFFFFFFFF}
    assert not entries[entries["kind"] != 3]["address"].any()

    again = PartitionState(0, 1, 0, Rules())
    restore(again, capture(fed.state, [], {}).changed)
    found = [ticked(state)[0] for state in (fed.state, again)]
    assert found[0] == found[1]
    by_name = {row["publisher_id"]: row for row in found[0]}
    assert set(by_name) == {f"p{number}" for number in range(PUBLISHERS)}
    odd = by_name["p7"]
    assert odd["score"] == max(row["score"] for row in found[0])
    assert odd["score"] > 0.9
    assert set(odd["traits"][:2]) == {"shared_addresses", "shared_agents"}
    assert (odd["distinct_addresses"], odd["distinct_agents"], odd["peers"]) == (1, 1, PUBLISHERS)
    assert max(row["score"] for row in found[0] if row is not odd) < 0.05
    assert ticked(fed.state)[0] == []  # nothing new is nothing to publish
    assert again.judging.sources.assessment == fed.state.judging.sources.assessment


def test_every_256th_impression_that_counts_is_told_to_its_publisher() -> None:
    """Which ones depends on their ids alone; bots' and nameless publishers' are left out."""
    about = {"publisher_id": "p1", "channel": "feed", "user_agent": BROWSER.format(1)}
    shown = [document(Input.IMPRESSIONS, f"i{number}", T0 + number, **about) for number in range(20_000)]
    hidden = [
        document(Input.IMPRESSIONS, f"h{number}", T0 + number, **about, placement_width_px=0, placement_height_px=0)
        for number in range(2_000)
    ]
    nameless = [document(Input.IMPRESSIONS, f"n{number}", T0 + number) for number in range(2_000)]
    found = []
    for parts in ([shown + hidden + nameless], [nameless, shown[::2], hidden, shown[1::2], shown]):
        fed = Fed(Rules())
        for part in parts:
            fed.feed(Input.IMPRESSIONS, *part)
        entries = np.concatenate([each.batch.array() for each in ticked(fed.state)[1]])
        assert {int(each) for each in entries["delay_ms"]} == {SHOWN}
        assert {int(each) for each in entries["source"]} == {hash_of("p1")}
        found.append({(int(each["high"]), int(each["low"]), int(each["at_ms"])) for each in entries})
        assert len(found[-1]) == len(entries)
    assert found[0] == found[1]
    named = {xxhash.xxh3_128_digest(f"i{number}".encode()) for number in range(20_000)}
    assert {struct.pack("<QQ", high, low) for high, low, _ in found[0]} <= named
    assert len(found[0]) == pytest.approx(20_000 / SHOWN_EACH, rel=0.3)


def test_a_partition_without_clicks_tells_everybody_that_it_is_idle_once() -> None:
    state = PartitionState(1, 3, 0, Rules())
    silent = (INPUT_TOPICS[Input.CLICKS],)
    assert told_at(state, T0, ()) == []
    assert told_at(state, T0 + SECOND, silent) == [(0, True), (1, True), (2, True)]
    assert told_at(state, T0 + MINUTE, silent) == []
    assert not state.judging.forwarding.has_untold


def told_at(state: PartitionState, at_ms: int, silent: tuple[str, ...]) -> list[tuple[int, bool]]:
    """To whom a tick tells how far it is, and whether it is idle."""
    output = state.tick(Tick("claim", state.seq + 1, at_ms, state.positions(), silent=silent))
    told = [signal for signal in output.signals if isinstance(signal, Forwarded)]
    assert all(each.batch.watermark_ms == -1 for each in told)
    return [(each.to_partition, each.batch.is_idle) for each in told]
