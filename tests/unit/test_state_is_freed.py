"""A partition's state holds gigabytes at times: one that is given up is gone at once, and does not wait for a collector
that looks for cycles once in many million objects."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from streams.events import Input
from streams.state.partition import PartitionState
from tests.unit.given import document
from tests.unit.keeping import Kept


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


async def lived() -> Kept:
    """A worker whose partition has seen every input, ticks and a checkpoint."""
    found = Kept()
    await found.assign()
    for source in Input:
        found.world.produce(source, *(document(source, f"{source.value}-{n}") for n in range(3)))
    await found.step()
    await found.keeper.checkpoint_all()
    return found


def state_of(found: Kept) -> weakref.ref[PartitionState]:
    return weakref.ref(found.keeper.owners[0].state)


async def test_a_partition_that_is_taken_away() -> None:
    found = await lived()
    state = state_of(found)
    await found.revoke()
    assert state() is None


async def test_a_partition_that_was_restored_from_a_checkpoint() -> None:
    found = await lived()
    await found.revoke()
    await found.assign()
    await found.step()
    state = state_of(found)
    await found.revoke()
    assert state() is None
