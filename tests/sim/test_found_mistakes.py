"""Mistakes that the simulation found, or can hardly find again, each in its smallest form."""

from random import Random
from typing import Any

from streams.state.checkpoint import FORMAT, Capture, Manifest, SegmentRef
from streams.state.checkpoints import Checkpointer
from streams.state.recovery import NamedManifest
from tests.sim.world import Faults, Nature, SimStore


def _store() -> SimStore:
    nature = Nature(Random(0))
    nature.faults = Faults(0.0, 0.0, 9)
    return SimStore(nature)


def _named(key: str, seq: int, names: tuple[str, ...]) -> NamedManifest:
    segments = {name: SegmentRef(f"{key}/{name}", f"place of {key}/{name}", 1, "0" * 16) for name in names}
    return NamedManifest(key, Manifest(FORMAT, "c", seq, seq, segments, {}))


def _finish(coroutine: Any) -> None:
    while True:
        try:
            coroutine.send(None)
        except StopIteration:
            return


def test_a_checkpoint_that_could_not_be_loaded_is_not_built_upon() -> None:
    """Its runs have the names that a state made anew gives to other runs."""
    checkpointer = Checkpointer(0, "c", _store())
    checkpointer.loaded([_named("old/1", 1, ("runs/clicks/1",))], None)
    assert checkpointer.immutable_names() == set()


def test_a_manifest_that_was_recovered_from_before_its_acknowledgement_stays() -> None:
    """A reload finds and uses a manifest whose writer still waits for the answer: it is not old to the next one."""
    store = _store()
    checkpointer = Checkpointer(0, "c", store)
    checkpointer.begin(Capture(4, {"partition": b"4"}, {"partition"}), 4, 4)
    writing = checkpointer.run()
    while not store.named:
        writing.send(None)
    checkpointer.abandon()
    used = NamedManifest("c/4", Manifest(FORMAT, "c", 4, 4, {}, {}))
    checkpointer.loaded([used], used)
    _finish(writing)
    for seq in (5, 6):
        checkpointer.begin(Capture(seq, {"partition": b"%d" % seq}, {"partition"}), seq, seq)
        _finish(checkpointer.run())
        if seq == 5:
            checkpointer.tick_proposed(99)
            checkpointer.tick_confirmed(99)
            _finish(checkpointer.run())
            assert {key for _, key in store.named} == {"c/4", "c/5"}


def test_what_an_abandoned_checkpoint_goes_on_writing_is_not_in_the_next_one() -> None:
    """The old coroutine still waits for its segment when the next checkpoint begins."""
    store = _store()
    checkpointer = Checkpointer(0, "c", store)
    checkpointer.begin(Capture(4, {"partition": b"4", "windows": b"4"}, {"partition", "windows"}), 4, 4)
    old = checkpointer.run()
    while not store.segments:
        old.send(None)
    checkpointer.abandon()
    checkpointer.loaded([], None)
    checkpointer.begin(Capture(5, {"partition": b"5", "windows": b"5"}, {"partition", "windows"}), 5, 5)
    _finish(old)
    _finish(checkpointer.run())
    named = store.documents(0)[-1]["segments"]
    assert {ref["key"] for ref in named.values()} == {"c/5/partition", "c/5/windows"}
