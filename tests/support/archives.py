"""Archives of small logs for the tests: made, and read back."""

import asyncio
import random
from pathlib import Path
from typing import Any

from streams.adapters.archive_history import ArchiveHistory
from streams.adapters.memory import MemoryHistory, MemoryLog
from streams.jobs.archive import ArchiveReport, Wish, archive
from streams.jobs.identity import Identity
from tests.support.histories import TOPIC, Hole, Put, Told, plain, told

DAY_MS = 86_400_000
BEGIN_MS = 1_600_000_000_000
KEYED = Identity(b"k" * 32, "k1")


def archived(
    log: MemoryLog, directory: Path, *, identity: Identity = KEYED, raw: bool = True, epoch: int = 0, **wish: Any
) -> ArchiveReport:
    """One run, with small ranges and chunks."""
    whole = Wish(directory, topics=wish.pop("topics", (TOPIC,)), raw=raw, **wish)
    return asyncio.run(archive(MemoryHistory(log, max_records=7), whole, identity, epoch, chunk_records=40))


def everything(
    log: MemoryLog, topic: str = TOPIC, partition: int = 0
) -> list[tuple[int, int, bytes | None, bytes | None]]:
    begin, end = log.beginning(topic, partition), log.end(topic, partition)
    return [plain(record) for record in log.read(topic, partition, begin, end + 1)]


def read_back(*directories: Path, topic: str = TOPIC, partition: int = 0, begin: int | None = None) -> Told:
    async def read() -> Told:
        history = ArchiveHistory(*directories)
        span = await history.span(topic, partition)
        return await told(history, topic, span.first if begin is None else begin, span.next, partition)

    return asyncio.run(read())


def steps_of(seed: int, count: int) -> list[Put | Hole]:
    """Records over some days, not in the order of their times, with holes, odd keys and odd values."""
    rng = random.Random(seed)
    steps: list[Put | Hole] = []
    at = BEGIN_MS
    for number in range(count):
        at += rng.choice((0, 1, 1_000, 60_000, 3_600_000))
        if rng.random() < 0.05:
            steps.append(Hole(rng.randrange(2, 9)))
        value = rng.choice((None, b"", b"%d" % number, rng.randbytes(rng.randrange(300))))
        steps.append(Put(at - rng.choice((0, 0, 0, 7_200_000, 90_000_000)), value, rng.choice((None, b"", b"k"))))
    return steps
