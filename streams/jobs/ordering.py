"""Orders loaded events by event time, in bounded memory: sorted runs on disk, merged."""

import heapq
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from operator import itemgetter
from typing import IO, Final, NamedTuple

import msgspec

from streams.errors import ConfigurationError
from streams.events import Input

SORT_IN_MEMORY: Final = 200_000
"""Events sorted at a time, about 1 KB each (200 MB); more are sorted in runs on disk and merged."""
MAX_SORT_RUNS: Final = 500
"""Runs merged at most, one open temporary file each: 100 million events."""


class LoadedEvent(NamedTuple):
    """An event ready to be published. `key` is the record's key; `value` is JSON."""

    input: Input
    event_time_ms: int
    key: str
    value: bytes


def in_event_time_order(
    events: Iterable[LoadedEvent], in_memory: int = SORT_IN_MEMORY, max_runs: int = MAX_SORT_RUNS
) -> Iterator[LoadedEvent]:
    """A stable sort with bounded memory: runs of `in_memory` events on disk, merged.

    Raises:
        ConfigurationError: there are more than `in_memory` × `max_runs` events.
    """
    source = iter(events)
    run = _sorted_run(source, in_memory)
    if len(run) < in_memory:
        yield from run
        return
    with ExitStack() as files:
        spilled: list[Iterator[LoadedEvent]] = []
        while run:
            if len(spilled) == max_runs:
                raise ConfigurationError(
                    f"more than {in_memory * max_runs} events cannot be ordered; load fewer at a time, or as they lie"
                )
            spilled.append(_read_run(_write_run(run, files)))
            run.clear()  # before the next is read, so that only one is in memory
            run = _sorted_run(source, in_memory)
        yield from heapq.merge(*spilled, key=_event_time)


_event_time: Final = itemgetter(LoadedEvent._fields.index("event_time_ms"))


def _sorted_run(source: Iterator[LoadedEvent], size: int) -> list[LoadedEvent]:
    return sorted(itertools.islice(source, size), key=_event_time)


def _write_run(run: list[LoadedEvent], files: ExitStack) -> IO[bytes]:
    file = files.enter_context(tempfile.TemporaryFile(prefix="campaign-streams-"))  # noqa: SIM115 - the stack closes it
    for event in run:
        packed = msgspec.msgpack.encode(event)
        file.write(len(packed).to_bytes(4) + packed)
    file.seek(0)
    return file


def _read_run(file: IO[bytes]) -> Iterator[LoadedEvent]:
    decoder = msgspec.msgpack.Decoder(LoadedEvent)
    while head := file.read(4):
        yield decoder.decode(file.read(int.from_bytes(head)))
