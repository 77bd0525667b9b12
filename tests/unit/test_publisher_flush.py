"""The publisher: dirty rows in large blocks, until ClickHouse has acknowledged them."""

from collections.abc import Sequence

import pytest

from streams.adapters.memory_sink import Fault
from streams.agents.publisher import BACK_OFF_S
from streams.errors import SinkUnavailable
from streams.events import Input
from streams.records import Row, Table
from tests.unit.given import document
from tests.unit.keeping import Kept
from tests.unit.owning import World

SOURCE = Input.CLICKS


class Recording:
    """A sink that tells the size of each insertion."""

    def __init__(self) -> None:
        self.sizes: dict[Table, list[int]] = {table: [] for table in Table}

    async def insert(self, table: Table, rows: Sequence[Row]) -> None:
        self.sizes[table].append(len(rows))


async def filled(count: int, max_rows: int = 1_000) -> Kept:
    found = Kept(World(), max_rows=max_rows)
    await found.assign()
    found.world.produce(SOURCE, *(document(SOURCE, f"e{n}", ad_unit_id=f"u{n}") for n in range(count)))
    await found.step()
    return found


async def test_what_is_dirty_is_inserted_and_acknowledged() -> None:
    found = await filled(20)
    dirty = found.keeper.dirty_rows
    assert await found.publisher.flush()
    assert found.keeper.dirty_rows == 0
    assert found.publisher.inserted_rows == dirty
    assert found.world.sink.count(Table.PANES) == 20
    insertions = found.publisher.insertions
    assert await found.publisher.flush()
    assert found.publisher.insertions == insertions


async def test_insertions_are_bounded_and_full() -> None:
    found = await filled(25, max_rows=10)
    sink = found.publisher.sink = Recording()  # type: ignore[assignment]
    assert await found.publisher.flush()
    assert sink.sizes[Table.PANES] == [10, 10, 5]
    assert found.keeper.dirty_rows == 0


@pytest.mark.parametrize("fault", list(Fault))
async def test_what_was_not_acknowledged_stays_dirty_and_is_inserted_again(fault: Fault) -> None:
    found = await filled(20)
    dirty = found.keeper.dirty_rows
    found.world.sink.faults.extend([fault, fault])
    for errors in (1, 2):
        assert not await found.publisher.flush()
        assert found.keeper.dirty_rows == dirty
        assert (found.publisher.errors, found.publisher.failures_in_a_row) == (errors, errors)
    assert await found.publisher.flush()
    assert (found.keeper.dirty_rows, found.publisher.failures_in_a_row) == (0, 0)
    assert found.world.sink.count(Table.PANES) == 20


async def test_an_outage_in_a_later_table_leaves_the_earlier_ones_acknowledged() -> None:
    found = await filled(20)
    found.world.sink.faults.extend([None, Fault.REFUSED])
    assert not await found.publisher.flush()
    owner = found.keeper.owners[0]
    assert len(owner.dirty.take(Table.PANES, 100)) == 0
    assert len(owner.dirty.take(Table.REPORTS, 100)) > 0


async def test_a_row_that_changed_meanwhile_is_inserted_again() -> None:
    found = await filled(1)
    owner, sink = found.keeper.owners[0], found.world.sink
    insert = sink.insert

    async def slowly(table: Table, rows: Sequence[Row]) -> None:
        await insert(table, rows)
        if table is Table.PANES:
            found.publisher.sink = sink
            found.world.produce(SOURCE, document(SOURCE, "again", ad_unit_id="u0"))
            await found.step()

    class Slow:
        insert = staticmethod(slowly)

    found.publisher.sink = Slow()  # type: ignore[assignment]
    await found.publisher.flush()
    await found.publisher.flush()
    assert len(owner.dirty) == 0
    (row,) = sink.rows(Table.PANES)
    assert 2 in row


async def test_the_pause_after_failures_grows_to_a_bound() -> None:
    found = await filled(1)
    assert found.publisher.pause_s() == 0.0
    pauses = []
    for _ in range(8):
        found.publisher.failed(SinkUnavailable("down"))
        pauses.append(found.publisher.pause_s())
    assert pauses == [*BACK_OFF_S, 5.0, 5.0, 5.0]


async def test_visible_latency_is_told_when_everything_is_acknowledged() -> None:
    found = await filled(3)
    assert found.keeper.visible.summary() is None
    found.world.sink.faults.append(Fault.REFUSED)
    await found.publisher.flush()
    assert found.keeper.visible.summary() is None
    await found.publisher.flush()
    summary = found.keeper.visible.summary()
    assert summary is not None
    assert summary["ticks"] == 1
