"""Checkpoints are written, and what they replace is deleted, in an order that no crash can harm."""

from typing import Any

import msgspec
import pytest

from streams.errors import BrokerUnavailable, CorruptCheckpoint
from streams.events import Input
from streams.records import Table
from streams.rules import DAY_MS
from streams.state.checkpoint import (
    FORMAT,
    Manifest,
    SegmentRef,
    capture,
    checksum_of,
    decode_manifest,
    decode_rows,
    encode_manifest,
    encode_rows,
)
from streams.state.checkpoints import Checkpointer
from streams.state.journal import Tick
from streams.state.owner import Owner
from streams.state.pins import Pins
from streams.state.recovery import NamedManifest
from tests.unit.given import T0, document
from tests.unit.owning import AFTER, BEFORE, World, dirty_rows

SOURCE = Input.CLICKS


async def step(world: World, owner: Owner, count: int = 3) -> None:
    """New clicks, a tick, and the checkpoint that is due."""
    start = world.log.end("ads.clicks", 0)
    world.produce(SOURCE, *(document(SOURCE, f"e{start + n}", T0 + (start + n) * 1_000) for n in range(count)))
    await world.step(owner)


async def began(steps: int) -> tuple[World, Owner]:
    world = World()
    owner = await world.opened()
    for _ in range(steps):
        await step(world, owner)
    world.faults.calls.clear()
    return world, owner


def told(world: World) -> list[str]:
    """What was done since, in order, repetitions left out; ticks as `tick`."""
    found: list[str] = []
    for method, what in world.faults.calls:
        name = "tick" if method == "append" and isinstance(what, Tick) else method
        if name != "read" and (not found or found[-1] != name):
            found.append(name)
    return found


def named_keys(world: World) -> set[str]:
    """Every segment that the stored manifests name."""
    manifests = [decode_manifest(data) for data in world.store.named[0].values()]
    return {ref.key for manifest in manifests for ref in manifest.segments.values()}


# The numbered order


async def test_segments_then_the_manifest_then_a_later_tick_and_only_then_deletion() -> None:
    world, owner = await began(4)
    await step(world, owner)
    await step(world, owner)
    assert told(world) == ["tick", "delete", "put", "put_manifest", "tick", "delete", "put", "put_manifest"]


async def test_a_checkpoint_waits_until_what_its_tick_sends_is_acknowledged() -> None:
    world, owner = await began(2)
    world.produce(SOURCE, b"{")
    world.feed(owner)
    world.faults.plan("publish", BEFORE)
    with pytest.raises(BrokerUnavailable):
        await world.tick(owner)
    assert not await owner.checkpoint()
    await owner.advance(world.now_ms)
    assert await owner.checkpoint()
    assert [name for name in told(world) if name != "delete"] == ["tick", "publish", "put", "put_manifest"]


async def test_a_checkpoint_waits_until_its_tick_is_confirmed() -> None:
    world, owner = await began(2)
    start = world.log.end("ads.clicks", 0)
    world.produce(SOURCE, document(SOURCE, f"e{start}"))
    world.feed(owner)
    world.faults.plan("read", BEFORE)
    with pytest.raises(BrokerUnavailable):
        await world.tick(owner)
    assert not await owner.checkpoint()
    assert len(world.manifests()) == 2
    await owner.advance(world.now_ms)
    assert await owner.checkpoint()
    assert len(world.manifests()) == 3


async def test_nothing_is_deleted_before_a_tick_proposed_after_the_manifest_is_confirmed() -> None:
    world, owner = await began(3)
    assert len(world.manifests()) == 3
    assert not await owner.checkpoint()
    assert len(world.manifests()) == 3  # the first could go, but nobody has read past the third
    await step(world, owner)
    assert world.manifests() == ["claim1/2", "claim1/3", "claim1/4"]


async def test_a_tick_proposed_before_the_manifest_does_not_allow_deletion() -> None:
    world, owner = await began(2)
    start = world.log.end("ads.clicks", 0)
    world.produce(SOURCE, document(SOURCE, f"e{start}"))
    world.feed(owner)
    await world.tick(owner)  # captures
    world.produce(SOURCE, document(SOURCE, f"e{start + 1}"))
    world.feed(owner)
    world.faults.plan("read", BEFORE)
    with pytest.raises(BrokerUnavailable):
        await world.tick(owner)  # proposed and appended, not read back
    await owner.checkpoint()
    await owner.advance(world.now_ms)  # that tick is confirmed now
    await owner.checkpoint()
    assert "claim1/1" in world.manifests()
    await step(world, owner)
    assert "claim1/1" not in world.manifests()


# What is kept


async def test_the_last_two_manifests_and_all_that_they_name_are_kept() -> None:
    world, owner = await began(9)
    assert world.manifests() == ["claim1/7", "claim1/8", "claim1/9"]
    await owner.advance(world.now_ms + 100_000)
    await owner.checkpoint()
    assert {"claim1/9"} <= set(world.manifests())
    assert named_keys(world) <= {key for _, key in world.store.data}


async def test_what_no_manifest_names_is_deleted() -> None:
    world, owner = await began(12)
    await world.flush(owner)
    for _ in range(4):
        await step(world, owner)
    stored = {key for _, key in world.store.data}
    assert stored == named_keys(world)


async def test_segments_that_never_change_are_written_once() -> None:
    world, owner = await began(0)
    await step(world, owner, count=500)
    for _ in range(4):
        await step(world, owner, count=1)
    puts = [key for method, key in world.faults.calls if method == "put"]
    runs = [key for key in puts if "/runs/clicks/" in key]
    assert len(runs) == len(set(runs))
    latest = decode_manifest(list(world.store.named[0].values())[-1])
    kept = [ref for name, ref in latest.segments.items() if name.startswith("runs/clicks/")]
    largest = max(kept, key=lambda ref: ref.size)
    assert largest.size >= 500 * 20
    assert largest.key.startswith("claim1/2/")  # events are applied once the first tick stands


async def test_keys_are_never_used_again() -> None:
    world, _ = await began(3)
    second = await world.opened()
    await world.settled(second)
    await step(world, second)
    puts = [key for method, key in world.faults.calls if method in ("put", "put_manifest")]
    assert len(puts) == len(set(puts))
    assert {key.split("/")[0] for key in puts} == {"claim2"}


async def test_a_manifest_names_where_and_what_its_segments_are() -> None:
    world, _ = await began(2)
    manifest = decode_manifest(world.store.named[0]["claim1/2"])
    assert (manifest.claim_id, manifest.seq) == ("claim1", 2)
    assert world.entries()[manifest.journal_offset] == world.ticks()[1]
    assert {"partition", "windows", *(f"input/{source.value}" for source in Input)} <= set(manifest.segments)
    for ref in manifest.segments.values():
        data = world.store.data[0, ref.key]
        assert ref == SegmentRef(ref.key, str(len(data)), len(data), checksum_of(data))


# Outages


@pytest.mark.parametrize("when", [BEFORE, AFTER])
@pytest.mark.parametrize("call", range(5))
async def test_an_outage_between_segments_is_taken_up_where_it_was(call: int, when: str) -> None:
    world, owner = await began(1)
    start = world.log.end("ads.clicks", 0)
    world.produce(SOURCE, document(SOURCE, f"e{start}"))
    world.feed(owner)
    await world.tick(owner)
    world.faults.plan("put", *[None] * call, when)
    with pytest.raises(BrokerUnavailable):
        await owner.checkpoint()
    assert world.manifests() == ["claim1/1"]
    assert await owner.checkpoint()
    assert world.manifests() == ["claim1/1", "claim1/2"]
    puts = [key for method, key in world.faults.calls if method == "put"]
    assert len(puts) - len(set(puts)) == (1 if when == AFTER else 0)


@pytest.mark.parametrize("when", [BEFORE, AFTER])
async def test_an_outage_at_the_manifest_is_taken_up_there(when: str) -> None:
    world, owner = await began(2)
    world.faults.plan("put_manifest", when)
    with pytest.raises(BrokerUnavailable):
        await step(world, owner)
    puts = len([1 for method, _ in world.faults.calls if method == "put"])
    assert await owner.checkpoint()
    assert len([1 for method, _ in world.faults.calls if method == "put"]) == puts
    assert world.manifests()[-1] == "claim1/3"


@pytest.mark.parametrize("when", [BEFORE, AFTER])
async def test_an_outage_at_a_deletion_is_taken_up_there(when: str) -> None:
    world, owner = await began(3)
    world.faults.plan("delete", when)
    with pytest.raises(BrokerUnavailable):
        await step(world, owner)
    for _ in range(4):
        await step(world, owner)
    assert world.manifests() == ["claim1/6", "claim1/7", "claim1/8"]
    again = await world.opened()
    world.feed(again)
    assert dirty_rows(again) == dirty_rows(owner)


async def test_while_one_is_being_written_no_other_is_captured() -> None:
    world, owner = await began(1)
    start = world.log.end("ads.clicks", 0)
    for number in range(3):
        world.produce(SOURCE, document(SOURCE, f"e{start + number}"))
        world.feed(owner)
        await world.tick(owner)
    assert await owner.checkpoint()
    assert not await owner.checkpoint()
    assert world.manifests() == ["claim1/1", "claim1/2"]


async def test_a_requested_checkpoint_is_captured_at_the_next_tick() -> None:
    world = World(checkpoint_ms=10**12)
    owner = await world.opened()
    await step(world, owner)
    await step(world, owner)
    count = len(world.manifests())
    owner.request_checkpoint()
    await step(world, owner)
    assert len(world.manifests()) == count + 1


# After a reload


def named(key: str, manifest: Any) -> NamedManifest:
    return NamedManifest(key, manifest)


async def test_after_a_reload_nothing_that_the_used_manifest_names_is_deleted() -> None:
    """The third and the second are damaged, so the first is used, though it was about to be deleted."""
    world, owner = await began(3)
    checkpointer: Checkpointer = owner._checkpointer
    manifests = [named(key, decode_manifest(data)) for key, data in world.store.named[0].items()]
    checkpointer.loaded([named(manifests[1].key, None), named(manifests[2].key, None), manifests[0]], manifests[0])
    checkpointer.tick_proposed(100)
    checkpointer.tick_confirmed(100)
    await checkpointer.run()
    assert "claim1/1" in world.manifests()
    first = decode_manifest(world.store.named[0]["claim1/1"])
    assert {ref.key for ref in first.segments.values()} <= {key for _, key in world.store.data}


async def test_after_a_reload_the_damaged_manifests_go_with_the_next_checkpoint() -> None:
    world, _ = await began(4)
    for key in world.manifests()[-2:]:
        world.store.named[0][key] = b"damaged"
    again = await world.opened()
    for _ in range(3):
        await step(world, again)
    assert not [key for key, data in world.store.named[0].items() if data == b"damaged"]
    assert named_keys(world) <= {key for _, key in world.store.data}


# Pinned checkpoints


def dated(*days: float) -> list[NamedManifest]:
    """Manifests in the order of the journal, by the day of their tick."""
    walls = [int(day * DAY_MS) for day in days]
    return [named(str(at), Manifest(FORMAT, "c", at, at, {}, {}, wall)) for at, wall in enumerate(walls)]


@pytest.mark.parametrize(
    ("days", "keep", "pinned"),
    [
        ((), 3, []),
        ((1.5,), 3, []),
        ((1.1, 1.9), 3, []),
        ((1.1, 1.9, 2.1), 3, ["1"]),
        ((1.1, 1.9, 2.1, 2.2, 4.5, 4.6), 3, ["1", "3"]),
        ((1.5, 2.5, 3.5, 4.5, 5.5), 3, ["1", "2", "3"]),
        ((1.5, 2.5, 3.5, 4.5, 5.5), 1, ["3"]),
        ((1.5, 2.5, 3.5), 0, []),
        ((1.5, 40_000.5, 2.5, 3.5), 2, ["1", "2"]),  # a wrong clock
        ((1.5, 0, 2.5, 3.5), 3, ["0", "2"]),  # one that does not say
    ],
)
def test_the_last_of_each_of_the_last_days_is_pinned(days: tuple[float, ...], keep: int, pinned: list[str]) -> None:
    assert [each.key for each in Pins(keep).of(dated(*days)[::-1])] == pinned


async def test_what_is_pinned_stays_with_all_that_it_names_and_then_goes_with_it() -> None:
    world = World(pins=Pins(2, 10_000))
    owner = await world.opened()
    seen: set[str] = set()
    for _ in range(40):
        await step(world, owner, count=40)
        world.now_ms += 1_500
        stored = {key for _, key in world.store.data}
        assert named_keys(world) <= stored
        manifests = [named(key, decode_manifest(data)) for key, data in world.store.named[0].items()]
        assert len(manifests) <= 6
        seen |= {each.key for each in Pins(2, 10_000).of(manifests)}
    assert len(seen) >= 4
    await world.flush(owner)
    for _ in range(4):
        await step(world, owner)
    assert {key for _, key in world.store.data} == named_keys(world)


async def test_a_checkpoint_of_another_format_is_not_used_and_goes_whole() -> None:
    world, _ = await began(4)
    for key, data in world.store.named[0].items():
        manifest = decode_manifest(data)
        world.store.named[0][key] = encode_manifest(msgspec.structs.replace(manifest, format=FORMAT + 1))
    old = {key for _, key in world.store.data}
    again = await world.opened()
    assert all("has format" in text for text in again.corrupt)
    await world.settled(again)
    await world.flush(again)
    for _ in range(4):
        await step(world, again)
    assert {key for _, key in world.store.data}.isdisjoint(old)


# Encodings


def test_rows_survive_a_segment() -> None:
    rows = [(Table.PANES, (0, "clicks", 1.5, None, "双", -(2**60), 7)), (Table.REPORTS, ("a", [1, 2**64 - 1], 0))]
    assert decode_rows(encode_rows(rows)) == rows


async def test_a_manifest_survives_its_encoding_and_no_byte_of_it_may_change() -> None:
    world, _ = await began(1)
    whole = world.store.named[0]["claim1/1"]
    assert encode_manifest(decode_manifest(whole)) == whole
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 0x20
        with pytest.raises(CorruptCheckpoint):
            decode_manifest(bytes(damaged))
    for cut in (0, 1, 16, 17, len(whole) - 1):
        with pytest.raises(CorruptCheckpoint):
            decode_manifest(whole[:cut])


async def test_a_capture_encodes_what_changed_and_names_the_rest() -> None:
    _, owner = await began(2)
    taken = capture(owner.state, {"runs/clicks/1", "rows/1"}, {"rows/1": b"old", "rows/2": b"new"})
    assert taken.names >= {"partition", "windows", "rows/1", "rows/2"}
    assert "rows/1" not in taken.changed
    assert taken.changed["rows/2"] == b"new"
    assert set(taken.changed) <= taken.names
