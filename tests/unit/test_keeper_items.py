"""The keeper: opens and releases owners, hands them input, waits out outages, and drops what it lost."""

import asyncio

import pytest

from streams.agents import keeper as module
from streams.errors import JournalMismatch
from streams.events import Input
from streams.state.journal import Claim, encode
from streams.state.owner import Owner
from streams.state.partition import TOPICS, PartitionState
from tests.unit.given import T0, document
from tests.unit.keeping import Kept
from tests.unit.owning import AFTER, BEFORE, World

SOURCE = Input.CLICKS
TOPIC = "ads.clicks"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", (0.0,))


async def kept() -> Kept:
    found = Kept()
    await found.assign()
    await found.tick()
    return found


def ledger(found: Kept) -> dict[tuple[str, str], int]:
    return found.keeper.owners[0].state.inputs[SOURCE].ledger


async def test_an_assigned_partition_is_claimed_and_kept() -> None:
    found = await kept()
    assert list(found.keeper.owners) == [0]
    assert isinstance(found.world.entries()[0], Claim)


async def test_ranges_of_partitions_that_are_not_kept_are_left_alone() -> None:
    found = await kept()
    found.world.produce(SOURCE, document(SOURCE, "a"))
    await found.keeper.handle(found.world.fetch(TOPIC, 0)._replace(partition=7))
    assert ledger(found) == {}
    assert found.sought == []


async def test_a_gap_is_sought_back_to_where_it_begins() -> None:
    found = await kept()
    found.world.produce(SOURCE, *(document(SOURCE, f"e{n}") for n in range(9)))
    await found.keeper.handle(found.world.fetch(TOPIC, 4))
    assert found.sought == [(TOPIC, 0, 0)]
    await found.step()
    assert ledger(found) == {("counted", ""): 9}


@pytest.mark.parametrize("outages", [1, 4])
@pytest.mark.parametrize(("method", "when"), [("append", BEFORE), ("append", AFTER), ("read", BEFORE)])
async def test_an_outage_at_the_opening_is_waited_out(method: str, when: str, outages: int) -> None:
    found = Kept()
    found.world.faults.plan(method, *[when] * outages)
    await found.assign()
    assert list(found.keeper.owners) == [0]
    assert found.keeper.outages == outages


@pytest.mark.parametrize("method", ["append", "read", "publish"])
async def test_an_outage_at_a_tick_is_waited_out_and_nothing_is_lost(method: str) -> None:
    found = await kept()
    found.world.produce(SOURCE, document(SOURCE, "a"), b"{")
    await found.feed()
    found.world.faults.plan(method, BEFORE, BEFORE)
    for _ in range(4):
        await found.tick()
    assert found.keeper.outages == 2
    assert ledger(found) == {("counted", ""): 1, ("rejected", "malformed_json"): 1}
    assert len(found.world.letters()) == 1
    assert found.keeper.owners[0].is_settled


async def test_an_outage_at_a_checkpoint_is_waited_out() -> None:
    found = await kept()
    found.world.faults.plan("put_manifest", BEFORE)
    await found.keeper.checkpoint_all()
    assert found.world.manifests() == []
    await found.keeper.checkpoint_all()
    assert len(found.world.manifests()) == 1


async def test_a_partition_that_another_claims_is_dropped_and_counted() -> None:
    found = await kept()
    other = Kept(found.world)
    await other.assign()
    found.world.produce(SOURCE, document(SOURCE, "a"))
    await found.feed()
    await found.tick()
    assert found.keeper.owners == {}
    assert found.keeper.fenced == 1
    await other.step()
    assert ledger(other) == {("counted", ""): 1}


async def test_a_partition_that_another_claims_at_the_same_time_is_given_up_and_the_worker_lives() -> None:
    found = Kept()
    memory = found.world.journal.memory
    read = memory.read

    async def nothing(partition: int, from_offset: int) -> list[object]:
        """The own claim lies before the checkpoint's tick, as after a claim that raced with another worker."""
        return []

    memory.read = nothing  # type: ignore[assignment, method-assign]
    await found.assign()
    memory.read = read  # type: ignore[method-assign]
    assert found.keeper.owners == {}
    assert found.keeper.fenced == 1


async def test_what_waiting_cannot_mend_is_not_waited_for() -> None:
    found = Kept()
    await found.world.journal.append(0, encode(Claim("x", "w", T0, {})))
    found.world.journal.memory.trim(0, 1)
    with pytest.raises(JournalMismatch):
        await found.assign()


# Releasing


async def test_a_revoked_partition_leaves_a_last_tick_and_a_checkpoint() -> None:
    found = await kept()
    found.world.produce(SOURCE, *(document(SOURCE, f"e{n}") for n in range(3)))
    await found.feed()
    await found.keeper.checkpoint_all()
    await found.revoke()
    assert found.keeper.owners == {}
    other = Kept(found.world)
    await other.assign()
    assert not other.keeper.owners[0].is_recovering
    assert ledger(other) == {("counted", ""): 3}


async def test_an_outage_while_releasing_ends_it_without_a_checkpoint() -> None:
    found = await kept()
    found.world.produce(SOURCE, document(SOURCE, "a"))
    await found.feed()
    found.world.faults.plan("append", BEFORE)
    await found.revoke()
    assert found.keeper.owners == {}
    other = Kept(found.world)
    await other.assign()
    await other.step()
    assert ledger(other) == {("counted", ""): 1}


async def test_a_release_that_hangs_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELEASE_TIMEOUT_S", 0.0)
    found = await kept()

    async def hangs(owner: Owner, wall_ms: int, silent: object = ()) -> bool:
        await asyncio.Event().wait()
        return False

    monkeypatch.setattr(Owner, "advance", hangs)
    await found.revoke()
    assert found.keeper.owners == {}


async def test_a_partition_whose_tick_is_fenced_as_it_is_revoked_is_dropped_once() -> None:
    found = await kept()
    other = Kept(found.world)
    await other.assign()
    asyncio.get_running_loop().call_soon(found.keeper.owners.pop, 0)  # a tick that hears of the claim just now
    await found.revoke()
    assert found.keeper.owners == {}


async def test_a_partition_may_come_back() -> None:
    found = await kept()
    found.world.produce(SOURCE, document(SOURCE, "a"))
    await found.step()
    await found.revoke()
    await found.assign()
    found.world.produce(SOURCE, document(SOURCE, "b"))
    await found.step()
    assert ledger(found) == {("counted", ""): 2}


async def test_a_revocation_of_what_is_not_kept_is_done_at_once() -> None:
    await Kept().revoke(5)


# Failing code


async def test_after_a_reload_every_topic_is_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await kept()
    found.world.produce(SOURCE, document(SOURCE, "a"))
    apply = PartitionState.apply
    monkeypatch.setattr(PartitionState, "apply", lambda state, batch: 1 // 0)
    await found.feed()
    monkeypatch.setattr(PartitionState, "apply", apply)
    await found.tick()
    assert {topic for topic, _, _ in found.sought} == set(TOPICS)
    assert not found.keeper.owners[0].must_seek
    await found.step()
    assert ledger(found) == {("counted", ""): 1}  # it failed once only, and so is not condemned


# What others ask


async def test_intake_is_to_pause_at_the_bound_of_dirty_rows() -> None:
    found = Kept(World(), max_dirty_rows=1_000)
    await found.assign()
    found.world.produce(SOURCE, *(document(SOURCE, f"e{n}", ad_unit_id=f"u{n}") for n in range(300)))
    await found.step()
    assert not found.keeper.is_saturated
    found.world.produce(SOURCE, *(document(SOURCE, f"f{n}", ad_unit_id=f"v{n}") for n in range(300)))
    await found.step()
    assert found.keeper.dirty_rows >= 1_000
    assert found.keeper.is_saturated
    await found.publisher.flush()
    assert found.keeper.dirty_rows == 0
    assert not found.keeper.is_saturated


async def test_whoever_publishes_is_woken_by_a_tick() -> None:
    found = await kept()
    found.keeper.released.clear()
    found.world.produce(SOURCE, document(SOURCE, "a"))
    await found.step()
    assert found.keeper.released.is_set()


async def test_silent_topics_are_told_to_the_tick() -> None:
    found = await kept()
    found.keeper.silent_topics = lambda partition: ["ads.plays"]
    found.world.produce(SOURCE, document(SOURCE, "a"))
    await found.step()
    assert found.world.ticks()[-1].silent == ("ads.plays",)


async def test_ticks_of_one_owner_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await kept()
    running, most = 0, 0
    advance = Owner.advance

    async def slowly(owner: Owner, wall_ms: int, silent: object = (), is_catching_up: bool = False) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        try:
            return await advance(owner, wall_ms)
        finally:
            running -= 1

    monkeypatch.setattr(Owner, "advance", slowly)
    found.world.produce(SOURCE, document(SOURCE, "a"))
    await found.feed()
    await asyncio.gather(*(found.keeper.tick_all() for _ in range(5)), found.revoke())
    assert most == 1
    assert found.keeper.owners == {}
