"""What every checkpoint store promises: in memory, in a directory, in Kafka."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import pytest

from streams.adapters.directory_checkpoints import DirectoryCheckpointStore
from streams.adapters.kafka_checkpoints import KafkaCheckpointStore
from streams.adapters.memory import MemoryCheckpointStore
from streams.errors import CorruptCheckpoint
from streams.ports import CheckpointStore
from streams.settings import KafkaSettings
from tests.support.brokers import BROKERS, new_topic, settings_of

AWKWARD_KEYS = ["3:17/panes/0", "a b%2F..", "../up", ".", "季度", "x" * 60, "with\nnewline"]
LARGE = bytes(range(256)) * 8_500  # 2.2 MB: three records in Kafka


class Store(CheckpointStore, Protocol):
    """The port, and what all of ours can do beside it."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def segments(self, partition: int) -> list[str]: ...


class SharedMemory(MemoryCheckpointStore):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


MakeStore = Callable[..., Store]


@pytest.fixture(params=["memory", "directory", *BROKERS])
def settings(request: pytest.FixtureRequest) -> KafkaSettings | str:
    """The broker, or the kind of store that needs none."""
    needs_broker = request.param not in ("memory", "directory")
    return settings_of(request, request.param) if needs_broker else request.param


@pytest.fixture
async def make_store(settings: KafkaSettings | str, tmp_path: Path) -> MakeStore:
    """Each call gives another process's view of the same store."""
    if settings == "memory":
        memory = SharedMemory()
        return lambda **_: memory
    if isinstance(settings, str):
        return lambda **_: DirectoryCheckpointStore(tmp_path / "checkpoints")
    segments = await new_topic(settings, cleanup_policy="compact")
    manifests = await new_topic(settings, cleanup_policy="compact")
    return lambda **more: KafkaCheckpointStore(settings, segments, manifests, **more)


@pytest.fixture
async def store(make_store: MakeStore) -> AsyncIterator[Store]:
    store = make_store()
    await store.start()
    yield store
    await store.stop()


@pytest.fixture
async def other(make_store: MakeStore) -> AsyncIterator[Store]:
    """The owner that takes over."""
    store = make_store()
    await store.start()
    yield store
    await store.stop()


@pytest.mark.parametrize("data", [b"", b"\0\xff\n", LARGE], ids=["empty", "binary", "large"])
async def test_a_segment_comes_back_as_it_was(store: Store, other: Store, data: bytes) -> None:
    place = await store.put(0, "1:1/panes", data)
    assert await store.get(0, "1:1/panes", place) == data
    assert await other.get(0, "1:1/panes", place) == data


@pytest.mark.parametrize("key", AWKWARD_KEYS)
async def test_any_key_will_do(store: Store, key: str) -> None:
    place = await store.put(0, key, b"segment")
    await store.put_manifest(0, f"m{key}", b"manifest")
    assert await store.get(0, key, place) == b"segment"
    assert await store.manifests(0) == [(f"m{key}", b"manifest")]
    assert list(await store.segments(0)) == [key]


async def test_many_segments_are_put_and_got_at_once(store: Store, other: Store) -> None:
    keys = [f"1:1/{number}" for number in range(300)]
    places = await asyncio.gather(*(store.put(0, key, key.encode() * 50) for key in keys))
    found = await asyncio.gather(*(other.get(0, key, place) for key, place in zip(keys, places, strict=True)))
    assert found == [key.encode() * 50 for key in keys]


async def test_a_segment_under_another_key_is_corrupt(store: Store) -> None:
    place = await store.put(0, "1:1/panes", b"data")
    with pytest.raises(CorruptCheckpoint):
        await store.get(0, "1:2/panes", place)


async def test_a_segment_of_another_partition_is_corrupt(store: Store) -> None:
    place = await store.put(0, "1:1/panes", b"data")
    with pytest.raises(CorruptCheckpoint):
        await store.get(1, "1:1/panes", place)


@pytest.mark.parametrize("place", ["7", "7,8", "", "nowhere"])
async def test_a_place_that_holds_nothing_is_corrupt(store: Store, place: str) -> None:
    await store.put(0, "1:1/panes", b"data")
    with pytest.raises(CorruptCheckpoint):
        await store.get(0, "1:1/panes", place)


async def test_a_new_store_has_no_manifests(store: Store) -> None:
    assert list(await store.manifests(0)) == []


async def test_manifests_come_oldest_first_and_by_partition(store: Store, other: Store) -> None:
    for key in ("b", "a", "c"):
        await store.put_manifest(0, key, key.encode())
    await store.put_manifest(1, "elsewhere", b"1")
    expected = [("b", b"b"), ("a", b"a"), ("c", b"c")]
    assert await store.manifests(0) == expected
    assert await other.manifests(0) == expected
    assert await other.manifests(1) == [("elsewhere", b"1")]


async def test_a_manifest_acknowledged_since_the_last_look_is_seen(store: Store, other: Store) -> None:
    await store.put_manifest(0, "first", b"1")
    assert await other.manifests(0) == [("first", b"1")]
    await store.put_manifest(0, "second", LARGE)
    assert await other.manifests(0) == [("first", b"1"), ("second", LARGE)]


async def test_what_is_deleted_is_forgotten_everywhere(store: Store, other: Store) -> None:
    await store.put(0, "1:1/panes", LARGE)
    await store.put(0, "1:2/panes", b"kept")
    await store.put_manifest(0, "m1", LARGE)
    await store.put_manifest(0, "m2", b"kept")
    await store.delete(0, ["1:1/panes", "m1"])
    for each in (store, other):
        assert await each.manifests(0) == [("m2", b"kept")]
        assert list(await each.segments(0)) == ["1:2/panes"]


async def test_an_owner_deletes_what_another_has_written(store: Store, other: Store) -> None:
    await store.put(0, "1:1/panes", LARGE)
    await store.put_manifest(0, "m1", LARGE)
    await other.delete(0, ["1:1/panes", "m1"])
    assert list(await store.manifests(0)) == []
    assert list(await store.segments(0)) == []


async def test_deleting_what_is_not_there_does_nothing(store: Store) -> None:
    place = await store.put(0, "1:1/panes", b"data")
    await store.put_manifest(0, "m1", b"manifest")
    await store.delete(0, ["unknown", "1:1"])
    await store.delete(1, ["1:1/panes", "m1"])
    await store.delete(0, [])
    assert await store.get(0, "1:1/panes", place) == b"data"
    assert await store.manifests(0) == [("m1", b"manifest")]


async def test_deleting_twice_does_nothing(store: Store) -> None:
    await store.put_manifest(0, "m1", b"1")
    await store.put_manifest(0, "m2", b"2")
    await store.delete(0, ["m1"])
    await store.delete(0, ["m1"])
    assert await store.manifests(0) == [("m2", b"2")]


async def test_a_reader_sees_what_is_there_and_leaves_no_trace(store: Store, make_store: MakeStore) -> None:
    """Replays look at the checkpoints of a worker that goes on."""
    reader = make_store(is_reader=True)
    await reader.start()
    try:
        assert list(await reader.manifests(0)) == []
        place = await store.put(0, "1:1/panes", LARGE)
        for number in range(12):
            await store.put_manifest(0, f"m{number}", b"%d" % number)
        assert await reader.get(0, "1:1/panes", place) == LARGE
        assert list(await reader.manifests(0)) == [(f"m{number}", b"%d" % number) for number in range(12)]
        await store.delete(0, ["1:1/panes", *(f"m{number}" for number in range(10))])
        assert list(await reader.manifests(0)) == [("m10", b"10"), ("m11", b"11")]
        assert list(await store.manifests(0)) == [("m10", b"10"), ("m11", b"11")]
    finally:
        await reader.stop()
