"""What every history promises: the one in memory, the brokers', and the archive's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from streams.adapters.archive_history import ArchiveHistory
from streams.adapters.chained_history import ChainedHistory
from streams.adapters.kafka_history import KafkaHistory
from streams.adapters.memory import MemoryHistory
from streams.errors import ConfigurationError
from streams.jobs.archive import Wish, archive
from streams.jobs.identity import Identity
from streams.ports import History
from streams.settings import KafkaSettings
from tests.support.brokers import APACHE, BROKERS, EMBEDDED, new_topic, settings_of
from tests.support.histories import TOPIC, Hole, Put, Step, forget_before, in_memory, on_broker, told

DAY_MS = 86_400_000
MEMORY = "memory"
PARQUET = "parquet"
NDJSON = "ndjson"
CHAINED = "chained"

Make = Callable[..., Awaitable[tuple[History, str]]]
"""Writes steps, has retention forget what lies before `trim`, and gives the history and the topic's name."""


@pytest.fixture(params=[MEMORY, PARQUET, NDJSON, CHAINED, *BROKERS])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def settings(request: pytest.FixtureRequest, kind: str) -> KafkaSettings | None:
    """None: no broker."""
    return settings_of(request, kind) if kind in (EMBEDDED, APACHE) else None


@pytest.fixture
async def make(settings: KafkaSettings | None, kind: str, tmp_path: Path) -> AsyncIterator[Make]:
    async with AsyncExitStack() as opened:

        async def made(steps: Sequence[Step], trim: int = 0) -> tuple[History, str]:
            if kind == EMBEDDED and (trim or any(isinstance(step, Hole) for step in steps)):
                pytest.skip("the embedded broker knows neither transactions nor retention")
            if settings is None:
                return await without_broker(kind, steps, trim, tmp_path / "archive"), TOPIC
            topic = await new_topic(settings, partitions=1, retention_ms="-1")
            await on_broker(settings, topic, steps)
            if trim:
                await forget_before(settings, topic, trim)
            history = KafkaHistory(settings)
            opened.push_async_callback(history.stop)
            return history, topic

        yield made


async def without_broker(kind: str, steps: Sequence[Step], trim: int, directory: Path) -> History:
    """Chained: half of the steps are in an archive, whose begin retention has not left in the log either."""
    half = max(1, (trim + len(steps)) // 2) if kind == CHAINED else len(steps)
    log = in_memory(steps[:half])
    log.trim(TOPIC, 0, trim)
    history = MemoryHistory(log, max_records=7)
    if kind == MEMORY:
        return history
    wish = Wish(directory, topics=(TOPIC,), raw=True, form="ndjson" if kind == NDJSON else "parquet")
    await archive(history, wish, Identity(), 0, chunk_records=10)
    if kind in (PARQUET, NDJSON):
        return ArchiveHistory(directory)
    in_memory(steps[half:], log)
    log.trim(TOPIC, 0, max(trim, half // 2))
    return ChainedHistory(ArchiveHistory(directory), history)


def numbered(count: int, begin_ms: int = 1_600_000_000_000, step_ms: int = 1_000) -> list[Put]:
    return [Put(begin_ms + n * step_ms, b"value %d" % n, b"key %d" % (n % 3)) for n in range(count)]


async def test_everything_is_told_as_it_was_written(make: Make) -> None:
    odd = [Put(5, None, b"tombstone"), Put(6, b"", b""), Put(7, bytes(range(256)), None), Put(8, b"x" * 100_000)]
    steps = [*numbered(40), *odd]
    history, topic = await make(steps)
    assert await history.partitions(topic) == 1
    assert await history.span(topic, 0) == (0, 44)
    expected = [(n, put.timestamp, put.key, put.value) for n, put in enumerate(steps)]
    assert await told(history, topic, 0, 44) == (expected, [])


@pytest.mark.parametrize(("begin", "end"), [(0, 0), (30, 30), (0, 1), (13, 14), (7, 21), (29, 30), (3, 30)])
async def test_a_range_is_told_exactly(make: Make, begin: int, end: int) -> None:
    history, topic = await make(numbered(30))
    found = await told(history, topic, begin, end)
    assert [record[0] for record in found.records] == list(range(begin, end))


async def test_an_empty_topic_has_an_empty_span(make: Make, kind: str) -> None:
    if kind not in (EMBEDDED, APACHE):
        pytest.skip("only a broker has topics without records")
    history, topic = await make([])
    assert await history.span(topic, 0) == (0, 0)
    assert await told(history, topic, 0, 0) == ([], [])
    assert await history.offset_at(topic, 0, 0) == 0


async def test_offsets_without_records_are_part_of_the_ranges(make: Make) -> None:
    steps = [*numbered(5), Hole(3), *numbered(5), Hole(4), Hole(2), *numbered(1), Hole(3)]
    history, topic = await make(steps)
    assert (await history.span(topic, 0)).next == 23
    found = await told(history, topic, 0, 23)
    assert [record[0] for record in found.records] == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 19]
    assert b"aborted" not in {record[3] for record in found.records}
    assert found.lost == []
    for begin, end in ((5, 8), (6, 7), (6, 10), (13, 19), (14, 15), (20, 23), (21, 22)):
        inside = await told(history, topic, begin, end)
        assert [r[0] for r in inside.records] == [r[0] for r in found.records if begin <= r[0] < end]


async def test_what_retention_has_removed_is_lost_and_not_skipped(make: Make) -> None:
    history, topic = await make(numbered(20), trim=12)
    assert await history.span(topic, 0) == (12, 20)
    found = await told(history, topic, 3, 20)
    assert found.lost == [(3, 12)]
    assert [record[0] for record in found.records] == list(range(12, 20))
    assert await told(history, topic, 3, 9) == ([], [(3, 9)])


@pytest.mark.parametrize(("begin", "end"), [(-1, 3), (4, 2), (0, 11), (11, 12)])
async def test_an_impossible_range_names_the_remedy(make: Make, begin: int, end: int) -> None:
    history, topic = await make(numbered(10))
    with pytest.raises(ConfigurationError, match="; give "):
        await told(history, topic, begin, end)


async def test_a_topic_that_is_not_there_names_the_remedy(make: Make) -> None:
    history, _ = await make(numbered(1))
    with pytest.raises(ConfigurationError, match="; "):
        await history.partitions("ads.nothing")


async def test_a_time_gives_the_first_offset_of_that_time_or_later(make: Make) -> None:
    history, topic = await make(numbered(30, begin_ms=1_000_000, step_ms=1_000))
    for time_ms, offset in (
        (-2, 0),
        (-1, 0),
        (0, 0),
        (1_000_000, 0),
        (1_000_001, 1),
        (1_010_000, 10),
        (1_010_500, 11),
        (1_029_000, 29),
        (1_029_001, 30),
        (9 * DAY_MS, 30),
    ):
        assert await history.offset_at(topic, 0, time_ms) == offset, time_ms


async def test_a_time_is_found_where_timestamps_do_not_rise(make: Make) -> None:
    """History that is loaded behind live records, a clock that was ahead, and holes between."""
    times = [10, 20, 90_000, 30, 5 * DAY_MS, 40, 50, 5 * DAY_MS + 1, 3]
    history, topic = await make([Put(t) for t in times])
    for time_ms in (0, 10, 11, 30, 31, 89_999, 90_001, 5 * DAY_MS, 5 * DAY_MS + 1, 6 * DAY_MS):
        expected = next((n for n, at in enumerate(times) if at >= time_ms), len(times))
        assert await history.offset_at(topic, 0, time_ms) == expected, time_ms


async def test_a_time_inside_a_hole_gives_the_next_record(make: Make) -> None:
    history, topic = await make([Put(1_000), Hole(3), Put(2_000), Hole(2)])
    assert await history.offset_at(topic, 0, 1_500) == 4
    assert await history.offset_at(topic, 0, 2_001) == 7


async def test_leaving_early_leaves_nothing_behind(make: Make) -> None:
    history, topic = await make(numbered(30))
    for _ in range(3):
        async with aclosing(history.read(topic, 0, 0, 30)) as ranges:
            async for _ in ranges:
                break
    assert len((await told(history, topic, 0, 30)).records) == 30


async def test_a_reading_that_is_cancelled_ends_and_others_go_on(make: Make) -> None:
    history, topic = await make([Put(n, b"x" * 5_000) for n in range(2_000)])
    for pause_s in (0.0, 0.001, 0.01):
        reading = asyncio.create_task(told(history, topic, 0, 2_000))
        await asyncio.sleep(pause_s)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    first, second = await asyncio.gather(told(history, topic, 0, 2_000), told(history, topic, 0, 2_000))
    assert first == second
    assert len(first.records) == 2_000
