"""Rows that ClickHouse has not acknowledged: the latest of each key."""

import random
from dataclasses import replace

import numpy as np
import pytest

from streams.blocks import Blocks, RowBlock, joined
from streams.records import COLUMNS, MEASURES, Row, Table
from streams.state import dirty as dirty_rows
from streams.state.checkpoint import decode_rows, encode_rows
from streams.state.dirty import DirtyRows, key_of
from tests.support.rows import make_blocks, make_row


def pane(campaign: str, version: int, clicks: int = 0) -> Row:
    return make_row(Table.PANES, campaign_id=campaign, clicks=clicks, version=version)


def waiting(*groups: list[Row]) -> DirtyRows:
    dirty = DirtyRows()
    for rows in groups:
        dirty.put(Table.PANES, make_blocks(*rows))
    return dirty


def entry(name: str, version: int) -> Row:
    return make_row(Table.LEDGER, entry=name, version=version)


def test_a_key_waits_once_with_its_latest_row() -> None:
    dirty = waiting([pane("a", 1, 5)], [pane("a", 2, 6), pane("b", 2)])
    assert set(dirty.take(Table.PANES, 10)) == {pane("a", 2, 6), pane("b", 2)}
    assert len(dirty) == 2
    dirty.put(Table.LEDGER, [entry("x", 1)])
    dirty.put(Table.LEDGER, [entry("x", 2), entry("y", 2)])
    assert dirty.take(Table.LEDGER, 10) == [entry("x", 2), entry("y", 2)]
    assert len(dirty) == 4


def test_taking_is_bounded_and_forgets_nothing() -> None:
    dirty = waiting([pane(f"c{n}", 1) for n in range(5)])
    assert len(dirty.take(Table.PANES, 2)) == 2
    assert len(dirty) == 5
    assert list(dirty.take(Table.LEDGER, 2)) == []
    dirty.put(Table.LEDGER, [entry(f"e{n}", 1) for n in range(5)])
    assert len(dirty.take(Table.LEDGER, 2)) == 2
    assert len(dirty) == 10


def test_a_block_is_cut_where_the_room_ends() -> None:
    rows = [pane(f"c{n}", 1, n) for n in range(5)]
    dirty = DirtyRows()
    dirty.put(Table.PANES, one_block(rows))
    taken = dirty.take(Table.PANES, 2)
    assert list(taken) == rows[:2]
    dirty.acknowledge(Table.PANES, taken)
    assert list(dirty.take(Table.PANES, 10)) == rows[2:]


def test_only_the_row_that_was_taken_is_acknowledged() -> None:
    dirty = waiting([pane("a", 1), pane("b", 1)])
    taken = dirty.take(Table.PANES, 10)
    dirty.put(Table.PANES, make_blocks(pane("a", 2)))
    dirty.acknowledge(Table.PANES, taken)
    assert list(dirty.take(Table.PANES, 10)) == [pane("a", 2)]
    dirty.acknowledge(Table.PANES, taken)
    assert len(dirty) == 1


def test_only_the_row_that_was_taken_is_acknowledged_in_the_other_tables() -> None:
    dirty = DirtyRows()
    dirty.put(Table.LEDGER, [entry("x", 1), entry("y", 1)])
    taken = dirty.take(Table.LEDGER, 10)
    dirty.put(Table.LEDGER, [entry("x", 2)])
    dirty.acknowledge(Table.LEDGER, taken)
    assert dirty.take(Table.LEDGER, 10) == [entry("x", 2)]


def test_the_oldest_version_is_the_lowest_that_waits() -> None:
    dirty = DirtyRows()
    assert dirty.oldest_version() is None
    dirty.put(Table.PANES, make_blocks(pane("a", 3), pane("b", 3)))
    dirty.put(Table.LEDGER, [entry("x", 4)])
    dirty.put(Table.PANES, make_blocks(pane("a", 5)))
    assert dirty.oldest_version() == 3
    dirty.acknowledge(Table.PANES, dirty.take(Table.PANES, 1))  # b: of a only the later row waits
    assert dirty.oldest_version() == 4


def test_since_tells_what_is_newer_in_the_order_of_versions() -> None:
    dirty = DirtyRows()
    for version in range(1, 6):
        dirty.put(Table.PANES, make_blocks(pane(f"c{version}", version)))
        dirty.put(Table.LEDGER, [entry(f"x{version}", version)])
    found = [row.version if isinstance(row, RowBlock) else row[-1] for _, row in dirty.since(2)]
    assert found == [3, 3, 4, 4, 5, 5]
    assert dirty.since(5) == []


def test_clearing_forgets_everything() -> None:
    dirty = waiting([pane("a", 1)])
    dirty.put(Table.LEDGER, [entry("x", 1)])
    dirty.clear()
    assert len(dirty) == 0
    assert dirty.oldest_version() is None


def test_a_campaigns_row_is_known_by_its_campaign_and_its_time() -> None:
    row = make_row(Table.CAMPAIGNS, campaign_id="c", valid_from=7, name="n")
    assert key_of(Table.CAMPAIGNS, row) == ("c", 7)


def test_tables_have_keys_of_their_own() -> None:
    dirty = waiting([pane("c1", 1)])
    for table in set(Table) - {Table.PANES, Table.REPORTS}:
        dirty.put(table, [make_row(table, version=1)])
    assert len(dirty) == len(Table) - 1


@pytest.mark.parametrize("seed", range(5))
def test_blocks_agree_with_a_dictionary(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dirty_rows, "COMPACT_AT", 30)
    rng, dirty = random.Random(seed), DirtyRows()
    latest: dict[Row, Row] = {}
    must_wait: dict[Row, Row] = {}
    taken = Blocks([])
    for version in range(1, 120):
        rows = [pane(f"c{n}", version, rng.randrange(9)) for n in rng.sample(range(12), rng.randrange(1, 12))]
        dirty.put(Table.PANES, one_block(rows) if version % 3 else make_blocks(*rows))
        for known in (latest, must_wait):
            known.update({key_of(Table.PANES, row): row for row in rows})
        assert len(dirty) <= 30 + 12 + 2 * len(latest)
        if rng.random() < 0.4:
            dirty.acknowledge(Table.PANES, taken)
            must_wait = {key: row for key, row in must_wait.items() if row not in set(taken)}
            found = dirty.take(Table.PANES, rng.randrange(1, 30))
            assert isinstance(found, Blocks)
            assert set(found) <= set(latest.values())
            taken = found
    waits = list(dirty.take(Table.PANES, 1_000))
    assert set(must_wait.values()) <= set(waits) <= set(latest.values())
    assert len(set(waits)) == len(waits) < len(latest) + 1


# Blocks


def one_block(rows: list[Row]) -> Blocks:
    """Rows of one tick, as the fold gives them."""
    parts = make_blocks(*rows).parts
    places = [COLUMNS[Table.PANES].index(measure) for measure in MEASURES]
    totals = np.array([[row[at] for at in places] for row in rows])
    origin, names = np.concatenate([part.origin for part in parts]), [part.names[0] for part in parts]
    return Blocks([replace(parts[0], origin=origin, names=names, measures=MEASURES, totals=totals)])


def test_a_block_is_the_sequence_of_its_rows() -> None:
    rows = [pane(f"c{n}", 7, n) for n in range(5)]
    blocks = Blocks([*one_block(rows[:3]).parts, *one_block(rows[3:]).parts])
    assert (len(blocks), list(blocks)) == (5, rows)
    assert [blocks[at] for at in range(-5, 5)] == [*rows, *rows]
    assert [list(blocks[start:stop]) for start, stop in ((0, 2), (2, 4), (4, 9), (3, 3))] == [
        rows[start:stop] for start, stop in ((0, 2), (2, 4), (4, 9), (3, 3))
    ]
    with pytest.raises(IndexError):
        blocks[5]


def test_measures_that_a_block_lacks_are_zero_and_the_version_may_still_lack() -> None:
    (block,) = make_blocks(pane("a", 7, 3)).parts
    slim = replace(block, measures=("clicks",), totals=np.array([[3]]), version=None)
    (row,) = slim
    assert dict(zip(COLUMNS[Table.PANES], row, strict=False))["clicks"] == 3
    assert sum(row[COLUMNS[Table.PANES].index(MEASURES[0]) :][: len(MEASURES)]) == 3
    assert (*row, 7) == pane("a", 7, 3) == next(iter(slim.stamped(7)))


def test_rows_from_several_hands_stay_columns_where_all_are() -> None:
    both = joined([make_blocks(pane("a", 1)), make_blocks(pane("b", 1))])
    assert isinstance(both, Blocks)
    assert list(both) == [pane("a", 1), pane("b", 1)]
    assert joined([make_blocks(pane("a", 1)), [pane("b", 1)]]) == [pane("a", 1), pane("b", 1)]


def test_a_checkpoint_keeps_blocks_as_they_are() -> None:
    blocks = one_block([pane("a", 7, 1), pane("b", 7, 2)])
    ((table, found), (_, row)) = decode_rows(
        encode_rows([(Table.PANES, blocks.parts[0]), (Table.LEDGER, entry("x", 7))])
    )
    assert (table, row) == (Table.PANES, entry("x", 7))
    assert isinstance(found, RowBlock)
    assert list(found) == list(blocks)
