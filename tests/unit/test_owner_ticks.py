"""An owner's ticks: proposed, appended, read back, and only then released."""

from collections.abc import Sequence

import pytest

from streams.errors import BrokerUnavailable, Fenced
from streams.events import Input
from streams.ports import Outgoing
from streams.records import COLUMNS, Table
from streams.state.inputs import Batch
from streams.state.journal import Claim, Tick, version_of
from streams.state.owner import Owner
from tests.unit.given import HOUR, SECOND, T0, document, quick_rules
from tests.unit.owning import AFTER, BEFORE, World, dirty_rows

SOURCE = Input.CLICKS
TOPIC = "ads.clicks"


def rows(owner: Owner, table: Table = Table.PANES) -> list[tuple[int, int]]:
    """(clicks, version) of what is dirty."""
    at = COLUMNS[table].index("clicks")
    return sorted((row[at], row[-1]) for row in owner.dirty.take(table, 1_000))


async def with_click() -> tuple[World, Owner]:
    world = World()
    owner = await world.opened()
    await world.tick(owner)
    world.produce(SOURCE, document(SOURCE, "a"))
    world.feed(owner)
    owner.dirty.clear()
    return world, owner


# The journal


async def test_a_claim_comes_first_and_says_where_reading_would_start() -> None:
    world = World()
    owner = world.owner()
    await owner.open({TOPIC: 7}, 0, T0)
    assert world.entries() == [Claim("claim1", "worker of claim1", T0, {TOPIC: 7})]
    assert owner.expected[TOPIC] == 7


async def test_a_tick_tells_the_positions_the_time_and_who_is_silent() -> None:
    world, owner = await with_click()
    await owner.advance(T0 + 5 * SECOND, ["ads.plays"])
    assert world.ticks()[-1] == Tick(
        "claim1", 2, T0 + 5 * SECOND, {**dict.fromkeys(owner.expected, 0), TOPIC: 1}, silent=("ads.plays",)
    )


async def test_only_the_first_tick_brings_the_rules() -> None:
    world, owner = await with_click()
    await world.tick(owner)
    assert [tick.rules for tick in world.ticks()] == [world.rules, None]


async def test_wall_time_never_goes_back_in_the_journal() -> None:
    world, owner = await with_click()
    await owner.advance(T0 + HOUR)
    world.produce(SOURCE, document(SOURCE, "b"))
    world.feed(owner)
    await owner.advance(T0)
    assert [tick.wall_ms for tick in world.ticks()][-2:] == [T0 + HOUR, T0 + HOUR]


async def test_nothing_new_is_no_tick_until_the_idle_time_is_over() -> None:
    world, owner = await with_click()
    assert await world.tick(owner)
    now = world.now_ms
    assert not await owner.advance(now + owner.config.idle_tick_ms - 1)
    assert await owner.advance(now + owner.config.idle_tick_ms)
    assert len(world.ticks()) == 3


async def test_a_report_that_waits_is_published_without_new_input() -> None:
    world = World(quick_rules(report_every_ms=3 * SECOND))
    owner = await world.opened()
    await world.tick(owner)
    world.produce(SOURCE, document(SOURCE, "a"))
    world.feed(owner)
    assert await world.tick(owner)
    waited = 0
    while not rows(owner, Table.REPORTS):
        assert (waited := waited + 1) <= 3, "a report must not wait longer than its time"
        confirmed = await world.tick(owner)
    assert waited > 0
    assert confirmed  # by a tick of its own
    assert [clicks for clicks, _ in rows(owner, Table.REPORTS)] == [1]
    assert not await world.tick(owner)


# Released only when read back


async def test_rows_carry_the_place_of_their_tick_in_the_journal() -> None:
    world, owner = await with_click()
    await world.tick(owner)
    assert rows(owner) == [(1, version_of(0, 2))]  # behind the claim and the first tick
    assert owner.confirmed_version == version_of(0, 2)


@pytest.mark.parametrize(("method", "when"), [("append", BEFORE), ("append", AFTER), ("read", BEFORE), ("read", AFTER)])
async def test_nothing_is_released_before_the_tick_was_read_back(method: str, when: str) -> None:
    world, owner = await with_click()
    world.produce(SOURCE, b"{")
    world.feed(owner)
    world.faults.plan(method, when, when)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            await world.tick(owner)
        assert len(owner.dirty) == 0
        assert world.letters() == []
        assert owner.confirmed_offset == 1
    assert await world.tick(owner)
    assert [clicks for clicks, _ in rows(owner)] == [1]
    assert len(world.letters()) == 1


@pytest.mark.parametrize("when", [BEFORE, AFTER])
async def test_a_tick_that_was_interrupted_is_the_same_tick_when_it_is_finished(when: str) -> None:
    world, owner = await with_click()
    world.faults.plan("append", when)
    with pytest.raises(BrokerUnavailable):
        await world.tick(owner)
    world.produce(SOURCE, document(SOURCE, "b"))
    world.feed(owner)
    await world.tick(owner)
    assert rows(owner) == [(1, version_of(0, 2))]  # as proposed, at its first place
    assert {(tick.seq, tick.wall_ms) for tick in world.ticks()[1:]} == {(2, T0 + 2 * SECOND)}
    await world.tick(owner)
    assert [clicks for clicks, _ in rows(owner)] == [2]


async def test_what_is_applied_while_a_tick_is_under_way_belongs_to_the_next() -> None:
    world, owner = await with_click()
    world.faults.plan("read", BEFORE)
    with pytest.raises(BrokerUnavailable):
        await world.tick(owner)
    world.produce(SOURCE, document(SOURCE, "b"))
    world.feed(owner)
    assert owner.state.position(TOPIC) == 2
    await world.tick(owner)
    assert world.ticks()[-1].applied[TOPIC] == 1
    assert not owner.is_settled
    await world.tick(owner)
    assert world.ticks()[-1].applied[TOPIC] == 2
    assert owner.is_settled


# Fenced


async def test_a_later_claim_stops_an_owner_and_its_tick_releases_nothing() -> None:
    world, owner = await with_click()
    world.produce(SOURCE, b"{")
    world.feed(owner)
    later = await world.opened()
    with pytest.raises(Fenced, match="worker of claim2"):
        await world.tick(owner)
    assert len(owner.dirty) == 0
    assert world.letters() == []
    assert (world.ticks()[-1].claim_id, world.ticks()[-1].seq) == ("claim1", 2)  # it stands there, and is void
    await world.settled(later)
    assert [clicks for clicks, _ in rows(later)] == [1]
    assert len(world.letters()) == 1


async def test_a_void_tick_is_no_tick_for_whoever_recovers() -> None:
    world, owner = await with_click()
    second = await world.opened()
    with pytest.raises(Fenced):
        await world.tick(owner)
    third = await world.opened()
    assert third.state.seq == second.state.seq == 1
    await world.settled(third)
    assert [(tick.claim_id, tick.seq) for tick in world.ticks()] == [
        ("claim1", 1),
        ("claim1", 2),  # void
        ("claim3", 2),
        ("claim3", 3),
    ]
    assert third.state.inputs[SOURCE].ledger == {("counted", ""): 1}


async def test_an_owner_that_wakes_up_writes_no_checkpoint() -> None:
    world, owner = await with_click()
    await owner.checkpoint()
    assert world.manifests() == ["claim1/1"]
    owner.request_checkpoint()
    await world.opened()
    with pytest.raises(Fenced):
        await world.tick(owner)
    assert not await owner.checkpoint()
    assert world.manifests() == ["claim1/1"]


async def test_opening_again_after_an_outage_is_the_same_claim() -> None:
    world = World()
    owner = world.owner()
    world.faults.plan("append", AFTER)
    world.faults.plan("read", BEFORE)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            await owner.open({}, 0, T0)
    await owner.open({}, 0, T0)
    assert [entry.claim_id for entry in world.entries()] == ["claim1"] * 3
    assert await world.tick(owner)
    assert owner.state.seq == 1


async def test_of_two_owners_that_open_at_once_the_later_claim_wins() -> None:
    world = World()
    first, second = world.owner(), world.owner()
    await first.open({}, 0, T0)
    await second.open({}, 0, T0)
    with pytest.raises(Fenced):
        await world.tick(first)
    assert await world.tick(second)


# Ranges


async def test_a_gap_is_never_accepted() -> None:
    world, owner = await with_click()
    world.produce(SOURCE, *(document(SOURCE, f"e{n}") for n in range(5)))
    assert owner.offer(world.fetch(TOPIC, 3)) == 1
    assert owner.state.position(TOPIC) == 1
    assert owner.offer(world.fetch(TOPIC, 1)) is None
    assert owner.state.position(TOPIC) == 6


async def test_what_was_applied_before_is_skipped() -> None:
    world, owner = await with_click()
    assert owner.offer(world.fetch(TOPIC, 0)) is None
    world.produce(SOURCE, document(SOURCE, "b"))
    assert owner.offer(world.fetch(TOPIC, 0)) is None  # half of it is new
    assert owner.state.position(TOPIC) == 2
    held = owner.state.inputs[SOURCE].ledger
    assert {entry: count for (entry, _), count in held.items()} == {"counted": 2}


async def test_a_range_without_records_moves_on() -> None:
    _, owner = await with_click()
    assert owner.offer(Batch(TOPIC, 0, 1, 40, [])) is None
    assert owner.expected[TOPIC] == owner.state.position(TOPIC) == 40


# Settings first


async def test_settings_are_read_to_their_end_before_the_first_event() -> None:
    world = World()
    world.settle(currency="EUR")
    world.settle(currency="EUR", name="second")
    world.produce(SOURCE, document(SOURCE, "a", currency="USD", clearing_price_millimicros=5))
    owner = await world.opened()
    owner.offer(world.fetch(TOPIC, 0))
    assert not await world.tick(owner)
    owner.offer(world.fetch("ads.campaigns", 0, limit=1))
    assert not await world.tick(owner)
    assert owner.state.position(TOPIC) == 0
    assert not owner.wants(TOPIC)
    owner.offer(world.fetch("ads.campaigns", 1))
    assert await world.tick(owner)
    assert owner.state.position(TOPIC) == 1
    assert owner.wants(TOPIC)
    await world.tick(owner)
    row = dict(zip(COLUMNS[Table.PANES], owner.dirty.take(Table.PANES, 1)[0], strict=True))
    assert (row["currency"], row["money_rejected"]) == ("EUR", 1)


# Dead letters


@pytest.mark.parametrize("when", [BEFORE, AFTER])
async def test_letters_are_sent_again_until_they_are_acknowledged(when: str) -> None:
    world, owner = await with_click()
    world.produce(SOURCE, b"{")
    world.feed(owner)
    world.faults.plan("publish", when)
    with pytest.raises(BrokerUnavailable):
        await world.tick(owner)
    await owner.advance(world.now_ms)
    assert {letter.offset for letter in world.letters()} == {1}
    assert len(world.letters()) == (2 if when == AFTER else 1)


async def test_no_tick_is_proposed_while_letters_wait() -> None:
    world, owner = await with_click()
    world.produce(SOURCE, b"{")
    world.feed(owner)
    world.faults.plan("publish", BEFORE, BEFORE)
    with pytest.raises(BrokerUnavailable):
        await world.tick(owner)
    world.produce(SOURCE, document(SOURCE, "b"))
    world.feed(owner)
    with pytest.raises(BrokerUnavailable):
        await world.tick(owner)
    assert len(world.ticks()) == 2
    await world.tick(owner)
    assert len(world.ticks()) == 3


async def test_letters_that_come_while_others_are_sent_are_sent_too(monkeypatch: pytest.MonkeyPatch) -> None:
    world, owner = await with_click()
    for _ in range(2):
        world.produce(SOURCE, b"{")
        world.feed(owner)
        await world.tick(owner)
    again = await world.opened()
    again.offer(world.fetch(TOPIC, 0, limit=2))  # up to the tick of the first letter
    publish = world.outbox.publish

    async def meanwhile(messages: Sequence[Outgoing]) -> None:
        world.feed(again)  # releases the tick of the second
        await publish(messages)

    monkeypatch.setattr(world.outbox, "publish", meanwhile)
    before = len(world.letters())
    await world.tick(again)
    await world.tick(again)
    assert [letter.offset for letter in world.letters()[before:]] == [1, 2]


async def test_a_letters_key_is_where_its_record_stood() -> None:
    world, owner = await with_click()
    world.produce(SOURCE, b"{")
    world.feed(owner)
    await world.tick(owner)
    (record,) = world.outbox.log.read("ads.dead-letters", 0, 0)
    assert record.key == b"ads.clicks/0/1"
    assert record.timestamp != T0 + SECOND  # retention of the letters counts from their writing


# Dirty rows


async def test_a_key_that_changes_again_waits_once_with_its_latest_version() -> None:
    world, owner = await with_click()
    await world.tick(owner)
    world.produce(SOURCE, document(SOURCE, "b"))
    world.feed(owner)
    await world.tick(owner)
    assert rows(owner) == [(2, version_of(0, 3))]


async def test_a_row_that_changed_while_it_was_inserted_stays_dirty() -> None:
    world, owner = await with_click()
    await world.tick(owner)
    taken = owner.dirty.take(Table.PANES, 10)
    world.produce(SOURCE, document(SOURCE, "b"))
    world.feed(owner)
    await world.tick(owner)
    owner.dirty.acknowledge(Table.PANES, taken)
    assert [clicks for clicks, _ in rows(owner)] == [2]
    owner.dirty.acknowledge(Table.PANES, owner.dirty.take(Table.PANES, 10))
    assert rows(owner) == []
    assert all(table is not Table.PANES for table, _ in dirty_rows(owner))
