"""Rows that ClickHouse has not acknowledged: the latest of each key."""

from streams.records import Row, Table
from streams.state.dirty import DirtyRows, key_of
from tests.support.rows import make_row


def pane(campaign: str, version: int, clicks: int = 0) -> Row:
    return make_row(Table.PANES, campaign_id=campaign, clicks=clicks, version=version)


def test_a_key_waits_once_with_its_latest_row() -> None:
    dirty = DirtyRows()
    dirty.put(Table.PANES, [pane("a", 1, 5)])
    dirty.put(Table.PANES, [pane("a", 2, 6), pane("b", 2)])
    assert len(dirty) == 2
    assert set(dirty.take(Table.PANES, 10)) == {pane("a", 2, 6), pane("b", 2)}


def test_taking_is_bounded_and_forgets_nothing() -> None:
    dirty = DirtyRows()
    dirty.put(Table.PANES, [pane(f"c{n}", 1) for n in range(5)])
    assert len(dirty.take(Table.PANES, 2)) == 2
    assert len(dirty) == 5
    assert dirty.take(Table.LEDGER, 2) == []


def test_only_the_row_that_was_taken_is_acknowledged() -> None:
    dirty = DirtyRows()
    dirty.put(Table.PANES, [pane("a", 1), pane("b", 1)])
    taken = dirty.take(Table.PANES, 10)
    dirty.put(Table.PANES, [pane("a", 2)])
    dirty.acknowledge(Table.PANES, taken)
    assert dirty.take(Table.PANES, 10) == [pane("a", 2)]
    dirty.acknowledge(Table.PANES, taken)
    assert len(dirty) == 1


def test_the_oldest_version_is_the_lowest_that_waits() -> None:
    dirty = DirtyRows()
    assert dirty.oldest_version() is None
    dirty.put(Table.PANES, [pane("a", 3), pane("b", 3)])
    dirty.put(Table.LEDGER, [make_row(Table.LEDGER, version=4)])
    dirty.put(Table.PANES, [pane("a", 5)])
    assert dirty.oldest_version() == 3
    dirty.acknowledge(Table.PANES, [row for row in dirty.take(Table.PANES, 9) if row[-1] == 3])
    assert dirty.oldest_version() == 4


def test_since_tells_what_is_newer_in_the_order_of_versions() -> None:
    dirty = DirtyRows()
    for version in range(1, 6):
        dirty.put(Table.PANES, [pane(f"c{version}", version)])
        dirty.put(Table.LEDGER, [make_row(Table.LEDGER, entry=f"x{version}", version=version)])
    found = [row[-1] for _, row in dirty.since(2)]
    assert found == [3, 3, 4, 4, 5, 5]
    assert dirty.since(5) == []


def test_clearing_forgets_everything() -> None:
    dirty = DirtyRows()
    dirty.put(Table.PANES, [pane("a", 1)])
    dirty.clear()
    assert len(dirty) == 0
    assert dirty.oldest_version() is None


def test_a_campaigns_row_is_known_by_its_campaign_and_its_time() -> None:
    row = make_row(Table.CAMPAIGNS, campaign_id="c", valid_from=7, name="n")
    assert key_of(Table.CAMPAIGNS, row) == ("c", 7)


def test_tables_have_keys_of_their_own() -> None:
    dirty = DirtyRows()
    for table in Table:
        dirty.put(table, [make_row(table, version=1)])
    assert len(dirty) == len(Table)
