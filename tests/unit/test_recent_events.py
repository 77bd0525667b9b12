"""Remembered events against a dictionary: found, packed, merged, forgotten and taken back."""

from random import Random
from typing import Any
from unittest import mock

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.errors import CorruptCheckpoint
from streams.state import recent
from streams.state.recent import MAX_ID_BYTES, Counted, Recent, Remembered, Run

MINUTE = 60_000
HORIZON = 100 * MINUTE


def digest(event_id: str) -> bytes:
    return xxhash.xxh3_128_digest(event_id.encode())


def remembered(event_id: str, at_ms: int, number: int = 0) -> Remembered:
    """An event whose key and amounts repeat, as they do."""
    shown = event_id if len(event_id.encode()) <= MAX_ID_BYTES else ""
    names, dimensions = (f"c{number % 3}", "u", "v", "", "USD"), (f"d{number % 2}",) * 3
    cohort = (0, number % 2, 1, 5) if number % 4 == 0 else ()
    amounts = (number % 5, 0, 1)
    return Remembered(digest(event_id), shown, at_ms, number % 8, number % 4, names, dimensions, amounts, cohort)


def counted(ids: list[str], events: list[Remembered]) -> Counted:
    """The batch that adds these."""

    def column(name: str) -> Any:
        return np.array([getattr(each, name) for each in events], dtype=np.int64)

    return Counted(
        ids=ids,
        at_ms=column("at_ms"),
        bits=column("bits"),
        excluding=column("excluding"),
        names=[each.names for each in events],
        dimensions=[each.dimensions for each in events],
        amounts=column("amounts"),
        cohorts=[each.cohort for each in events],
    )


def reloaded(held: Recent) -> Recent:
    """What a checkpoint gives back."""
    held.pack()
    fresh = Recent(held.max_events, held.horizon_ms)
    fresh.restore(held.head(), {run.name: run.encode() for run in held.runs})
    return fresh


class Model:
    """The same, simply."""

    def __init__(self) -> None:
        self.events: dict[bytes, Remembered] = {}
        self.floor_ms = 0

    def find(self, digests: list[bytes]) -> dict[bytes, Remembered]:
        known = {key: self.events[key] for key in digests if key in self.events}
        return {key: each for key, each in known.items() if each.at_ms >= self.floor_ms}


@given(st.integers(0, 2**32), st.sampled_from([3, 20, 1_000]))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_it_answers_as_a_dictionary_does(seed: int, pack_at: int) -> None:
    """An id counts again only later than before, once its first count is forgotten by de-duplication."""
    rng, held, model, now_ms = Random(seed), Recent(10_000, HORIZON), Model(), 0
    with mock.patch.object(recent, "PACK_AT", pack_at), mock.patch.object(recent, "MAX_RUN_EVENTS", 60):
        for _ in range(25):
            now_ms += rng.randrange(10 * MINUTE)
            ids = [f"e{rng.randrange(80)}" + "ü" * rng.choice([0, 0, 0, 40]) for _ in range(rng.randrange(1, 15))]
            events = [remembered(each, now_ms, rng.randrange(100)) for each in ids]
            held.add(counted(ids, events))
            model.events.update((each.digest, each) for each in events)
            action = rng.random()
            if action < 0.3:
                held.pack()
            elif action < 0.5:
                held = reloaded(held)
            elif action < 0.8:
                held.forget(now_ms)
                model.floor_ms = max(model.floor_ms, now_ms - HORIZON)
            asked = [digest(f"e{n}" + "ü" * more) for n in range(85) for more in (0, 40)]
            assert held.find(asked) == model.find(asked)


def test_a_longer_id_is_told_by_its_digest_alone() -> None:
    held, at_limit, beyond = Recent(10, HORIZON), "a" * MAX_ID_BYTES, "b" * (MAX_ID_BYTES + 1)
    held.add(counted([at_limit, beyond], [remembered(at_limit, 1), remembered(beyond, 2)]))
    for each in (held, reloaded(held)):
        found = each.find([digest(at_limit), digest(beyond)])
        assert [found[digest(name)].event_id for name in (at_limit, beyond)] == [at_limit, ""]


def test_an_id_is_the_same_before_and_after_packing() -> None:
    for event_id in ("plain", "ü", "a\0", "\0", " a "):
        held = Recent(10, HORIZON)
        held.add(counted([event_id], [remembered(event_id, 1)]))
        before = held.find([digest(event_id)])
        held.pack()
        assert held.find([digest(event_id)]) == before


def test_an_id_that_counted_twice_is_remembered_as_it_counted_last() -> None:
    held = Recent(100, HORIZON)
    for number in range(3):
        held.add(counted(["e"], [remembered("e", number, number)]))
        held.pack() if number != 1 else None
    assert held.find([digest("e")])[digest("e")].at_ms == 2
    assert len(held) == 3
    assert reloaded(held).find([digest("e")])[digest("e")].at_ms == 2


def test_beyond_its_bound_the_oldest_are_forgotten_the_same_however_it_was_packed() -> None:
    often, seldom = Recent(50, 10**9), Recent(50, 10**9)
    for number in range(200):
        event_id = f"e{number}"
        for each in (often, seldom):
            each.add(counted([event_id], [remembered(event_id, number * MINUTE)]))
        often.pack()
        for each in (often, seldom):
            each.forget(number * MINUTE)
            assert len(each) <= 50
        assert often.floor_ms == seldom.floor_ms
    asked = [digest(f"e{number}") for number in range(200)]
    assert often.find(asked) == seldom.find(asked)
    assert digest("e199") in often.find(asked)


def test_a_run_that_is_not_whole_is_corrupt() -> None:
    held = Recent(10, HORIZON)
    held.add(counted(["a", "b"], [remembered("a", 1), remembered("b", 2)]))
    held.pack()
    data = held.runs[0].encode()
    for broken in (b"", data[:-3], b"\x90", data.replace(data[3:9], b"", 1)):
        with pytest.raises(CorruptCheckpoint):
            Run.decode(1, broken)


def test_nothing_is_found_in_nothing() -> None:
    assert Recent(10, HORIZON).find([digest("a")]) == {}
    assert reloaded(Recent(10, HORIZON)).find([]) == {}
