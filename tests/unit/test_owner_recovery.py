"""Recovery: the last whole checkpoint, the journal's ticks behind it, and the same outputs as without a crash."""

import pytest

from streams.errors import BrokerUnavailable, Fenced, JournalMismatch
from streams.events import Input
from streams.records import Table
from streams.state import recovery
from streams.state.checkpoint import decode_manifest, encode_manifest
from streams.state.journal import version_of
from streams.state.owner import Owner
from streams.state.partition import TOPICS
from tests.unit.given import MINUTE, SECOND, T0, Document, document, quick_rules
from tests.unit.owning import AFTER, BEFORE, World, dirty_rows, plain

SOURCE = Input.CLICKS
TOPIC = "ads.clicks"


def some_events(start: int, count: int) -> list[Document]:
    """Clicks of a few keys over some minutes: repeated, late, out of order."""
    return [
        document(
            SOURCE,
            f"e{(start + n) % 37}" if n % 5 == 0 else f"e{start + n}",
            T0 + (start + n) * 1_700 - (n % 7) * 9_000,
            campaign_id=f"c{n % 3}",
            user_id=f"u{n % 11}",
            currency="USD",
            clearing_price_millimicros=n,
        )
        for n in range(count)
    ]


def everything(world: World, with_settings: bool = True) -> None:
    """A bit of everything, as one step's input."""
    step = world.log.end(TOPIC, 0)
    world.produce(SOURCE, *some_events(step, 20), b"{")
    at = T0 + step * 1_700
    world.produce(
        Input.IMPRESSIONS, *(document(Input.IMPRESSIONS, f"i{step}-{n}", at + n, user_id=f"u{n}") for n in range(9))
    )
    touch = {"touch_type": "click", "touch_time_ms": at - 40 * MINUTE}
    world.produce(Input.CONVERSIONS, document(Input.CONVERSIONS, f"k{step}", at, attribution=touch))
    refund = {"amount_micros": -5, "currency": "USD", "adjusted_event_time_ms": T0}
    world.produce(Input.ADJUSTMENTS, document(Input.ADJUSTMENTS, f"a{step}", at, **refund))
    if with_settings:
        world.settle(f"c{step % 4}", name=f"step {step}")


async def undisturbed(steps: int) -> tuple[World, Owner]:
    world = World()
    owner = await world.opened()
    for _ in range(steps):
        everything(world)
        await world.step(owner)
    return world, owner


async def recovered(world: World, limit: int = 1_000) -> Owner:
    owner = await world.opened()
    world.feed(owner, limit)
    return owner


async def test_a_recovery_without_a_checkpoint_gives_the_same_rows_with_the_same_versions() -> None:
    world, owner = await undisturbed(5)
    world.store.named.clear()
    world.store.data.clear()
    again = await recovered(world)
    assert not again.is_recovering
    assert dirty_rows(again) == dirty_rows(owner)
    assert again.confirmed_version == owner.confirmed_version


async def test_a_recovery_from_a_checkpoint_gives_the_same_rows_with_the_same_versions() -> None:
    world, owner = await undisturbed(5)
    assert world.manifests()
    again = await recovered(world)
    assert dirty_rows(again) == dirty_rows(owner)
    assert again.state.seq == owner.state.seq == 5


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_how_the_input_is_fetched_in_recovery_does_not_matter(limit: int) -> None:
    world, owner = await undisturbed(5)
    world.store.named.clear()
    again = await recovered(world, limit)
    assert dirty_rows(again) == dirty_rows(owner)


async def test_input_beyond_a_journaled_tick_waits_for_it() -> None:
    world, owner = await undisturbed(4)
    ticks = world.ticks()
    world.store.named.clear()
    again = await world.opened()
    again.offer(world.fetch(TOPIC, 0))  # all of it, though the first tick stands in the middle of it
    assert again.is_recovering
    assert again.state.position(TOPIC) == ticks[0].applied[TOPIC] < world.log.end(TOPIC, 0)
    assert again.state.seq == 0
    assert not again.wants(TOPIC)
    world.feed(again)
    assert again.state.positions() == ticks[-1].applied
    assert dirty_rows(again) == dirty_rows(owner)


async def test_no_tick_is_written_while_the_journals_wait() -> None:
    world, _ = await undisturbed(3)
    world.store.named.clear()
    again = await world.opened()
    before = len(world.ticks())
    assert not await world.tick(again)
    assert len(world.ticks()) == before
    world.feed(again)
    assert await world.tick(again)


async def test_rows_that_clickhouse_has_are_not_in_a_later_checkpoint_and_the_others_are() -> None:
    world, owner = await undisturbed(3)
    await world.flush(owner)
    everything(world)
    await world.step(owner)
    waiting = dirty_rows(owner)
    assert waiting
    again = await world.opened()  # nothing is fed: what is dirty comes from the checkpoint alone
    assert again.state.seq == owner.state.seq
    assert waiting <= dirty_rows(again)


async def test_rows_of_many_checkpoints_wait_until_clickhouse_has_them() -> None:
    world, owner = await undisturbed(12)
    again = await world.opened()
    assert dirty_rows(again) == dirty_rows(owner)
    await world.flush(again)
    whole = [(table, plain(row)) for table, row in world.sink.everything()]
    await world.flush(owner)
    assert [(table, plain(row)) for table, row in world.sink.everything()] == whole


CALLS = {"append": 6, "read": 6, "put": 30, "put_manifest": 4, "publish": 4, "delete": 1}
CRASHES = [(method, call) for method, count in CALLS.items() for call in range(0, count, max(1, count // 10))]


@pytest.mark.parametrize("when", [BEFORE, AFTER])
@pytest.mark.parametrize(("method", "call"), CRASHES)
async def test_a_crash_at_any_call_leaves_the_same_rows_in_the_end(method: str, call: int, when: str) -> None:
    alone, world = World(), World()
    await through_crashes(alone)
    world.faults.plan(method, *[None] * call, when)
    await through_crashes(world)
    assert not world.faults.due[method], "the call was not reached"
    for table in (Table.PANES, Table.REPORTS, Table.COHORTS, Table.LEDGER, Table.CAMPAIGNS):
        rows = [plain(row[:-1]) for row in world.sink.rows(table)]
        assert rows == [plain(row[:-1]) for row in alone.sink.rows(table)]
    assert {letter.offset for letter in world.letters()} == {letter.offset for letter in alone.letters()}


async def through_crashes(world: World) -> None:
    """Four steps, the settings before them; whenever a call fails, the owner is gone and another takes over."""
    owner = None
    for number in range(4):
        world.settle(f"c{number}", name=f"campaign {number}")
    for _ in range(4):
        everything(world, with_settings=False)
        for _ in range(8):
            try:
                if owner is None:
                    owner = await world.opened()
                await world.settled(owner)
                await owner.checkpoint()
                break
            except BrokerUnavailable:
                owner = None
    assert owner is not None
    await world.flush(owner)


# Damage


async def test_a_corrupt_manifest_falls_back_to_the_one_before() -> None:
    world, owner = await undisturbed(6)
    *_, before, last = world.manifests()
    world.store.named[0][last] = world.store.named[0][last][:-1] + b"?"
    again = await world.opened()
    assert again.state.seq < 6
    assert [text for text in again.corrupt if last in text and "checksum" in text]
    assert not [text for text in again.corrupt if before in text]
    world.feed(again)
    assert dirty_rows(again) == dirty_rows(owner)


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
async def test_a_corrupt_segment_falls_back_to_the_manifest_before(damage: str) -> None:
    world, owner = await undisturbed(6)
    last = world.manifests()[-1]
    key = (0, f"{last}/input/clicks")
    whole = world.store.data[key]
    if damage == "gone":
        del world.store.data[key]
    else:
        world.store.data[key] = whole[:-1] if damage == "cut" else whole[:-1] + bytes([whole[-1] ^ 1])
    again = await world.opened()
    assert again.state.seq < 6
    assert len(again.corrupt) == 1
    world.feed(again)
    assert dirty_rows(again) == dirty_rows(owner)


async def test_a_single_changed_bit_of_an_id_is_seen() -> None:
    world, owner = await undisturbed(6)
    manifest = decode_manifest(world.store.named[0][world.manifests()[-1]])
    run = next(ref for name, ref in manifest.segments.items() if name.startswith("runs/clicks/"))
    whole = world.store.data[0, run.key]
    world.store.data[0, run.key] = bytes([whole[0] ^ 1]) + whole[1:]
    again = await world.opened()
    assert "checksum" in again.corrupt[0]
    world.feed(again)
    assert dirty_rows(again) == dirty_rows(owner)


async def test_when_no_checkpoint_is_whole_everything_is_read_again() -> None:
    world, owner = await undisturbed(6)
    for key in world.manifests():
        world.store.named[0][key] = b"nonsense"
    again = await world.opened()
    assert (again.state.seq, again.state.position(TOPIC)) == (0, 0)
    assert len(again.corrupt) == len(world.manifests())
    world.feed(again)
    assert dirty_rows(again) == dirty_rows(owner)


async def test_a_torn_checkpoint_is_not_there() -> None:
    world, owner = await undisturbed(3)
    named = world.manifests()
    everything(world)
    world.feed(owner)
    await world.tick(owner)
    world.faults.plan("put_manifest", BEFORE)
    with pytest.raises(BrokerUnavailable):
        await owner.checkpoint()
    assert world.manifests()[-1] == named[-1]
    again = await recovered(world)
    assert again.corrupt == []
    assert dirty_rows(again) == dirty_rows(owner)


async def test_a_checkpoint_of_another_format_is_not_read() -> None:
    world, _ = await undisturbed(2)
    for key, data in list(world.store.named[0].items()):
        manifest = decode_manifest(data)
        changed = type(manifest)(**{**{f: getattr(manifest, f) for f in manifest.__struct_fields__}, "format": 999})
        world.store.named[0][key] = encode_manifest(changed)
    again = await world.opened()
    assert "format 999" in again.corrupt[0]


# The journal does not fit


async def test_a_journal_that_was_cut_without_a_checkpoint_is_an_error_that_names_the_remedy() -> None:
    world, _ = await undisturbed(3)
    world.store.named.clear()
    world.journal.memory.trim(0, 2)
    with pytest.raises(JournalMismatch, match="log_epoch"):
        await world.opened()


async def test_a_journal_may_be_cut_below_the_checkpoint() -> None:
    world, owner = await undisturbed(5)
    everything(world)
    world.feed(owner)
    await world.tick(owner)
    world.journal.memory.trim(0, 5)
    again = await recovered(world)
    assert dirty_rows(again) == dirty_rows(owner)


@pytest.mark.parametrize("appended", [0, 1, 3, 30])
async def test_another_journal_than_the_checkpoints_is_an_error_that_names_the_remedy(appended: int) -> None:
    world, _ = await undisturbed(4)
    world.journal.memory = type(world.journal.memory)()
    for number in range(appended):
        await world.journal.memory.append(
            0, b'{"type":"claim","claim_id":"x%d","worker":"w","wall_ms":0,"starts":{}}' % number
        )
    with pytest.raises(JournalMismatch):
        await world.opened()


async def test_a_journal_that_answers_nothing_is_given_up_in_bounded_time() -> None:
    """As many records as the manifest's place: the end of the journal, where nothing ever comes."""
    world, _ = await undisturbed(1)
    world.journal.memory = type(world.journal.memory)()
    calls = len(world.faults.calls)
    with pytest.raises(JournalMismatch, match="log_epoch"):
        await world.opened()  # its claim is the only record, the manifest stands on offset 1
    assert len(world.faults.calls) - calls <= recovery.MAX_EMPTY_READS + 5


async def test_a_claim_behind_its_own_is_seen_in_recovery() -> None:
    world, _ = await undisturbed(2)
    first = world.owner()
    second = world.owner()
    await first.open({}, 0, T0)
    await second.open({}, 0, T0)
    world.feed(first)
    with pytest.raises(Fenced):
        await world.tick(first)


# Going on


async def test_an_owner_goes_on_where_the_last_one_stopped() -> None:
    world, _ = await undisturbed(3)
    again = await recovered(world)
    everything(world)
    await world.settled(again)
    alone, owner = await undisturbed(4)
    await world.flush(again)
    await alone.flush(owner)
    for table in (Table.PANES, Table.LEDGER):
        assert [row[:-1] for row in world.sink.rows(table)] == [row[:-1] for row in alone.sink.rows(table)]


async def test_versions_rise_across_owners() -> None:
    world, owner = await undisturbed(3)
    before = owner.confirmed_version
    again = await recovered(world)
    everything(world)
    await world.settled(again)
    assert again.confirmed_version > before
    assert again.confirmed_version == version_of(0, world.journal.memory.end(0) - 1)


async def test_new_rules_are_journaled_by_the_first_own_tick_and_history_is_judged_by_the_old() -> None:
    world, owner = await undisturbed(3)
    world.rules = quick_rules(pane_ms=30_000)
    world.store.named.clear()
    again = await recovered(world)
    assert dirty_rows(again) == dirty_rows(owner)
    assert again.state.rules.pane_ms == 10_000
    await world.tick(again)
    assert world.ticks()[-1].rules == world.rules
    assert again.state.rules.pane_ms == 30_000


async def test_the_starts_of_the_first_claim_decide_and_later_ones_do_not() -> None:
    world = World()
    world.produce(SOURCE, *(document(SOURCE, f"e{n}") for n in range(5)))
    owner = world.owner()
    await owner.open({TOPIC: 2}, 0, T0)
    await world.tick(owner)
    owner.offer(world.fetch(TOPIC, 2))
    await world.tick(owner)
    world.store.named.clear()
    later = world.owner()
    await later.open({TOPIC: 4}, 0, T0)
    assert later.expected[TOPIC] == 2
    assert later.offer(world.fetch(TOPIC, 4)) == 2
    later.offer(world.fetch(TOPIC, 2))
    assert later.state.inputs[SOURCE].ledger == {("counted", ""): 3}
    assert later.state.inputs[SOURCE].consumed() == 3


async def test_a_recovery_in_the_middle_of_idle_ticks_needs_no_input() -> None:
    world = World()
    owner = await world.opened()
    for _ in range(3):
        world.now_ms += 60 * SECOND
        await owner.advance(world.now_ms)
    again = await world.opened()
    assert not again.is_recovering
    assert again.state.seq == 3
    assert again.expected == dict.fromkeys(TOPICS, 0)
