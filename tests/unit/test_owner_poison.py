"""A record on which the code fails: found, rejected as `internal_error`, once, by everyone."""

from collections.abc import Iterator

import pytest

from streams.errors import BrokerUnavailable, Fenced
from streams.events import Input, Reason
from streams.records import Entry
from streams.stages import intake
from streams.state import partition
from streams.state.inputs import Batch
from streams.state.partition import PartitionState
from streams.topics import CAMPAIGNS
from tests.unit.given import Document, document
from tests.unit.owning import BEFORE, World, dirty_rows

SOURCE = Input.CLICKS
TOPIC = "ads.clicks"


@pytest.fixture
def _broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Code that fails while it counts a click on the creative `poison`."""
    make = intake.make_measure

    def make_broken(source: Input, rules: object) -> object:
        measure = make(source, rules)  # type: ignore[arg-type]

        def broken(events: list[object], counted: object) -> object:
            if any(event.creative_id == "poison" for event in events):  # type: ignore[attr-defined]
                raise ZeroDivisionError("this code is wrong")
            return measure(events, counted)  # type: ignore[arg-type]

        return broken

    monkeypatch.setattr(intake, "make_measure", make_broken)
    yield
    monkeypatch.undo()


def clicks(*poisonous: int, count: int = 20) -> list[Document]:
    creatives = {n: "poison" if n in poisonous else "v" for n in range(count)}
    return [document(SOURCE, f"e{n}", creative_id=creative) for n, creative in creatives.items()]


def ledger(world_owner: object) -> dict[str, int]:
    held = world_owner.state.inputs[SOURCE].ledger  # type: ignore[attr-defined]
    return {f"{entry}/{reason}" if reason else entry: count for (entry, reason), count in held.items()}


@pytest.mark.usefixtures("_broken")
@pytest.mark.parametrize("poisonous", [(0,), (7,), (19,), (3, 4), (0, 10, 19)])
async def test_the_culprit_becomes_a_dead_letter_and_all_others_count(poisonous: tuple[int, ...]) -> None:
    world = World()
    owner = await world.opened()
    world.produce(SOURCE, *clicks(*poisonous))
    await world.settled(owner)
    assert ledger(owner) == {"counted": 20 - len(poisonous), "rejected/internal_error": len(poisonous)}
    letters = world.letters()
    assert [letter.offset for letter in letters] == list(poisonous)
    assert {(letter.entry, letter.reason) for letter in letters} == {(Entry.REJECTED, Reason.INTERNAL_ERROR)}
    assert letters[0].value == world.log.read(TOPIC, 0, poisonous[0])[0].value


@pytest.mark.usefixtures("_broken")
async def test_what_came_before_is_not_counted_again() -> None:
    world = World()
    owner = await world.opened()
    world.produce(SOURCE, *clicks(count=10))
    await world.settled(owner)
    await owner.checkpoint()
    world.produce(SOURCE, *(document(SOURCE, f"f{n}", creative_id="poison" if n == 2 else "v") for n in range(5)))
    await world.settled(owner)
    assert ledger(owner) == {"counted": 14, "rejected/internal_error": 1}
    assert len(world.letters()) == 1


@pytest.mark.usefixtures("_broken")
async def test_other_inputs_go_on() -> None:
    world = World()
    owner = await world.opened()
    world.produce(SOURCE, *clicks(5))
    world.produce(Input.IMPRESSIONS, *(document(Input.IMPRESSIONS, f"i{n}") for n in range(8)))
    await world.settled(owner)
    assert owner.state.inputs[Input.IMPRESSIONS].ledger == {("counted", ""): 8}


@pytest.mark.usefixtures("_broken")
async def test_a_broken_owner_takes_nothing_and_tells_when_to_seek() -> None:
    world = World()
    owner = await world.opened()
    await world.tick(owner)
    world.produce(SOURCE, *clicks(3))
    owner.offer(world.fetch(TOPIC, 0))
    assert owner.is_recovering
    assert not owner.wants(TOPIC)
    assert owner.offer(world.fetch(TOPIC, 0)) is None
    assert not owner.must_seek
    await world.tick(owner)
    assert owner.must_seek
    assert owner.expected[TOPIC] == 0
    assert owner.wants(TOPIC)


@pytest.mark.usefixtures("_broken")
async def test_the_tick_says_what_was_poison_so_that_every_run_rejects_it() -> None:
    world = World()
    owner = await world.opened()
    world.produce(SOURCE, *clicks(3))
    await world.settled(owner)
    assert {(TOPIC, offsets) for tick in world.ticks() for offsets in tick.poisoned.values()} == {(TOPIC, (3,))}
    world.store.named.clear()
    again = await world.opened()
    world.feed(again)
    assert dirty_rows(again) == dirty_rows(owner)
    assert ledger(again) == {"counted": 19, "rejected/internal_error": 1}


async def test_mended_code_still_rejects_what_history_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    owner = await world.opened()
    apply = PartitionState.apply

    def fails(state: PartitionState, batch: object) -> None:
        ahead = state.poisoned.get(TOPIC, set())
        if any(r.value and b"poison" in r.value and r.offset not in ahead for r in batch.records):  # type: ignore[attr-defined]
            raise ZeroDivisionError
        apply(state, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(PartitionState, "apply", fails)
    world.produce(SOURCE, *clicks(3))
    await world.settled(owner)
    monkeypatch.undo()
    world.store.named.clear()
    again = await world.opened()
    world.feed(again)
    assert dirty_rows(again) == dirty_rows(owner)
    assert ledger(again) == {"counted": 19, "rejected/internal_error": 1}


@pytest.mark.usefixtures("_broken")
async def test_an_outage_while_reloading_is_waited_out() -> None:
    world = World()
    owner = await world.opened()
    await world.tick(owner)
    await owner.checkpoint()
    world.produce(SOURCE, *clicks(3))
    world.feed(owner)
    world.faults.plan("read", BEFORE)
    with pytest.raises(BrokerUnavailable):
        await world.tick(owner)
    await world.settled(owner)
    assert ledger(owner) == {"counted": 19, "rejected/internal_error": 1}
    assert len(world.letters()) == 1


@pytest.mark.usefixtures("_broken")
async def test_a_claim_while_broken_is_seen() -> None:
    world = World()
    owner = await world.opened()
    await world.tick(owner)
    world.produce(SOURCE, *clicks(3))
    world.feed(owner)
    later = await world.opened()
    with pytest.raises(Fenced):
        await world.settled(owner)
    await world.settled(later)
    assert ledger(later) == {"counted": 19, "rejected/internal_error": 1}


@pytest.mark.usefixtures("_broken")
async def test_a_tick_that_was_under_way_when_the_code_failed_is_finished_first() -> None:
    world = World()
    owner = await world.opened()
    await world.tick(owner)
    world.produce(SOURCE, *clicks(count=5))
    world.feed(owner)
    world.faults.plan("read", BEFORE)
    with pytest.raises(BrokerUnavailable):
        await world.tick(owner)
    world.produce(SOURCE, *(document(SOURCE, f"f{n}", creative_id="poison" if n == 2 else "v") for n in range(5)))
    world.feed(owner)
    assert owner.is_recovering
    await world.settled(owner)
    assert ledger(owner) == {"counted": 9, "rejected/internal_error": 1}
    assert len(world.letters()) == 1


@pytest.mark.usefixtures("_broken")
async def test_poison_met_during_recovery_is_rejected_too() -> None:
    """The tick that counted it was written by code that could."""
    world = World()
    healthy = await world.opened()
    world.produce(SOURCE, *clicks(count=6))
    await world.settled(healthy)
    world.produce(SOURCE, *(document(SOURCE, f"g{n}", creative_id="poison" if n == 1 else "v") for n in range(3)))
    world.store.named.clear()
    again = await world.opened()
    await world.settled(again)
    assert ledger(again) == {"counted": 8, "rejected/internal_error": 1}


async def test_a_settings_record_can_be_poison_too(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = partition.decode_campaign

    def fails(raw: bytes | None) -> object:
        if raw and b"poison" in raw:
            raise ZeroDivisionError
        return decode(raw)

    monkeypatch.setattr(partition, "decode_campaign", fails)
    world = World()
    world.settle("c1")
    world.settle("c2", name="poison")
    world.settle("c3")
    owner = await world.opened()
    await world.settled(owner)
    assert set(owner.state.campaigns.current) == {"c1", "c3"}
    assert owner.state.notices[CAMPAIGNS].ledger == {("counted", ""): 2, ("rejected", "internal_error"): 1}


@pytest.mark.parametrize("count", [1, 20])
async def test_a_fault_that_passes_condemns_nothing(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    world = World()
    owner = await world.opened()
    await world.tick(owner)
    apply, failures = PartitionState.apply, [MemoryError]

    def fails_once(state: PartitionState, batch: Batch) -> None:
        if failures and batch.records:
            raise failures.pop()
        apply(state, batch)

    monkeypatch.setattr(PartitionState, "apply", fails_once)
    world.produce(SOURCE, *clicks(count=count))
    await world.settled(owner)
    assert not failures
    assert ledger(owner) == {"counted": count}
    assert world.letters() == []


@pytest.mark.usefixtures("_broken")
async def test_poison_in_two_inputs_is_found_in_both() -> None:
    world = World()
    owner = await world.opened()
    world.produce(SOURCE, *clicks(4))
    shown = [document(Input.IMPRESSIONS, f"i{n}", creative_id="poison" if n == 2 else "v") for n in range(9)]
    world.produce(Input.IMPRESSIONS, *shown)
    await world.settled(owner)
    assert ledger(owner) == {"counted": 19, "rejected/internal_error": 1}
    assert owner.state.inputs[Input.IMPRESSIONS].ledger == {("counted", ""): 8, ("rejected", "internal_error"): 1}
    assert len(world.letters()) == 2


async def test_a_broken_invariant_is_no_poison(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    owner = await world.opened()
    await world.tick(owner)
    monkeypatch.setattr(PartitionState, "apply", lambda state, batch: (_ for _ in ()).throw(AssertionError("broken")))
    world.produce(SOURCE, *clicks(count=1))
    with pytest.raises(AssertionError, match="broken"):
        world.feed(owner)
