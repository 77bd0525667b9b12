"""Sources by hand: crowds that are honest, one that is not, watermarks, idleness, and bounds."""

from random import Random
from unittest import mock

import numpy as np
import pytest

from streams.events import ClickType
from streams.invalid import InvalidRules, SourceKind, Velocity
from streams.stages.invalid import source_store, sources
from streams.stages.invalid.source_store import ENTRY, SourceStore, entries_of
from streams.stages.invalid.sources import SourceDesk
from tests.support.sources import Seen, batch_of, digest_of, must_be_told, reloaded, told_by

T0 = 1_700_000_000_000
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000


def shown(click: int, user: int, device: int, address: int, at_ms: int, campaign: int) -> list[Seen]:
    """One click as all of its sources see it."""
    ids = ((SourceKind.USER, user), (SourceKind.DEVICE, device), (SourceKind.ADDRESS, address))
    return [Seen(kind, source, click, at_ms, campaign, user) for kind, source in ids]


def told_of(clicks: list[Seen], rules: InvalidRules | None = None) -> set[tuple[str, str]]:
    """What a desk tells of them, with nothing left to wait for."""
    desk = SourceDesk(rules or InvalidRules())
    desk.take(batch_of(clicks, 1, max(each.at_ms for each in clicks)))
    told = told_by(desk.decide())
    assert len(told) == len(set(told))
    return set(told)


def test_thousands_of_honest_users_behind_one_address_are_not_flagged() -> None:
    rng, clicks = Random(1), []
    for user in range(1, 5_001):
        for _ in range(rng.randint(1, 3)):
            clicks += shown(len(clicks), user, 10_000 + user, 7, T0 + rng.randrange(HOUR), rng.randrange(1, 400))
    assert told_of(clicks) == set()


def test_a_flash_sale_is_not_flagged() -> None:
    rng, clicks = Random(1), []
    for user in range(1, 30):
        for card in range(20):
            clicks += shown(len(clicks), user, 100 + user, user % 3, T0 + rng.randrange(5 * MINUTE), 1 + card % 4)
    assert told_of(clicks) == set()


def farm(rng: Random) -> list[Seen]:
    """30 devices behind 3 addresses, each device under many users, on hundreds of campaigns."""
    clicks: list[Seen] = []
    for number in range(9_000):
        device = number % 30
        user = 1_000 + device * 12 + rng.randrange(12)
        clicks += shown(number, user, 1 + device, 1 + device % 3, T0 + rng.randrange(HOUR), rng.randrange(1, 400))
    return clicks


def test_a_click_farm_is_flagged() -> None:
    told = told_of(farm(Random(1)))
    flagged = {click for rule, click in told if rule == "device_fan_out"}
    assert len(flagged) == 9_000


def test_of_a_shared_address_only_the_farm_is_flagged() -> None:
    """A carrier's address: the farm's users roam over campaigns, its honest neighbours do not."""
    rng = Random(2)
    clicks = [each._replace(source=1) for each in farm(rng) if each.kind is SourceKind.ADDRESS]
    clicks = [each._replace(user=1 + each.user % 12) for each in clicks]  # few accounts, each everywhere
    for user in range(2_000, 6_000):
        clicks.append(Seen(SourceKind.ADDRESS, 1, 100_000 + user, T0 + rng.randrange(HOUR), 1 + user % 300, user))
    told = told_of(clicks)
    assert {rule for rule, _ in told} == {"address_fan_out", "address_velocity"}
    honest = {digest_of(100_000 + user) for user in range(2_000, 6_000)}
    assert not honest & {click for _, click in told}
    assert {digest_of(number) for number in range(9_000)} <= {click for _, click in told}


FAST = InvalidRules(user_velocity=Velocity(3, MINUTE))


def user_clicks(*at: int, first: int = 0) -> list[Seen]:
    """Clicks of one user at these seconds."""
    return [Seen(SourceKind.USER, 5, first + n, T0 + s * SECOND, user=5) for n, s in enumerate(at)]


def test_a_window_is_as_long_as_it_says_and_no_longer() -> None:
    assert told_of(user_clicks(0, 30, 60), FAST) == {("user_velocity", digest_of(n)) for n in range(3)}
    late = [*user_clicks(0, 30), Seen(SourceKind.USER, 5, 2, T0 + 60_001, user=5)]
    assert told_of(late, FAST) == set()
    assert told_of(user_clicks(0, 0, 0), FAST) == {("user_velocity", digest_of(n)) for n in range(3)}


def test_two_kinds_with_one_id_are_two_sources() -> None:
    clicks = [each._replace(kind=kind) for each in user_clicks(0, 1) for kind in (SourceKind.USER, SourceKind.DEVICE)]
    assert told_of(clicks, FAST) == set()


def test_only_chosen_types_count() -> None:
    rules = InvalidRules(user_velocity=Velocity(3, MINUTE), velocity_types=(ClickType.BUTTON,))
    assert told_of(user_clicks(0, 1, 2), rules) == set()


def test_a_conversion_is_no_click() -> None:
    clicks = [each._replace(delay_ms=5) for each in user_clicks(0, 1, 2)]
    assert told_of(clicks, FAST) == set()


def test_nothing_is_told_beyond_the_slowest_watermark() -> None:
    desk = SourceDesk(FAST)
    desk.take(batch_of([], 1, T0 - 1, partition=1))
    desk.take(batch_of(user_clicks(0, 1, 2), 1, T0 + HOUR, partition=0))
    assert desk.decide() == []
    desk.take(batch_of([], 2, T0 + SECOND, partition=1))
    assert desk.decide() == []  # two clicks lie within it
    desk.take(batch_of([], 3, T0 + 2 * SECOND, partition=1))
    assert len(told_by(desk.decide())) == 3
    assert desk.watermark_ms == T0 + 2 * SECOND


def test_who_has_nothing_to_read_is_not_waited_for() -> None:
    desk = SourceDesk(FAST)
    desk.take(batch_of([], 1, T0 - HOUR, partition=1))
    desk.take(batch_of(user_clicks(0, 1, 2), 1, T0 + HOUR))
    assert desk.decide() == []
    desk.take(batch_of([], 2, T0 - HOUR, partition=1, is_idle=True))
    assert len(told_by(desk.decide())) == 3


def test_a_watermark_never_goes_back() -> None:
    desk = SourceDesk(FAST)
    desk.take(batch_of(user_clicks(0, 1, 2), 5, T0 + HOUR))
    desk.decide()
    desk.take(batch_of([], 6, T0 - HOUR))  # an idle partition begins again with old clicks
    desk.take(batch_of([], 4, T0 + 9 * HOUR))  # an old owner's batch: a place before the last
    desk.decide()
    assert desk.watermark_ms == T0 + HOUR


def test_a_click_that_comes_hours_late_meets_those_of_its_time() -> None:
    desk = SourceDesk(FAST)
    desk.take(batch_of(user_clicks(0, 1), 1, T0 + 6 * HOUR))
    assert desk.decide() == []
    desk.take(batch_of(user_clicks(2, first=2), 2, T0 + 6 * HOUR))
    assert {click for _, click in told_by(desk.decide())} == {digest_of(n) for n in range(3)}


def test_what_is_older_than_every_window_is_forgotten_for_good() -> None:
    desk = SourceDesk(FAST)
    desk.take(batch_of(user_clicks(0, 1), 1, T0 + 2 * SECOND))
    desk.decide()
    desk.take(batch_of([], 2, T0 + 9 * HOUR))
    desk.decide()
    desk.take(batch_of(user_clicks(2, 3, 4, first=2), 3, T0 + 9 * HOUR))
    assert desk.decide() == []
    assert desk.store.of_kind(0).tolist() == []


def test_verdicts_go_to_the_partitions_of_their_clicks_in_parts() -> None:
    desk = SourceDesk(FAST)
    clicks = user_clicks(*[n / 100 for n in range(40)])  # type: ignore[arg-type]
    clicks = [each._replace(at_ms=int(each.at_ms)) for each in clicks]
    with mock.patch.object(sources, "MAX_VERDICT_CLICKS", 8):
        for partition in range(2):
            desk.take(batch_of(clicks[partition::2], 1, T0 + HOUR, partition))
        verdicts = desk.decide()
    assert [(v.to_partition, len(v.clicks)) for v in verdicts] == [(0, 8), (0, 8), (0, 4), (1, 8), (1, 8), (1, 4)]
    for verdict in verdicts:
        assert set(verdict.clicks) <= {each.digest for each in clicks[verdict.to_partition :: 2]}
        assert verdict.evidence["clicks"] == 40


def test_what_was_told_is_remembered_up_to_a_bound() -> None:
    desk = SourceDesk(FAST)
    with mock.patch.object(sources, "MAX_TOLD", 10):
        desk.take(batch_of(user_clicks(*range(30)), 1, T0 + HOUR))
        assert len(told_by(desk.decide())) == 30
        assert len(desk.snapshot()["told"]) == 17 * 10
        assert reloaded(desk).snapshot()["told"] == desk.snapshot()["told"]


def test_clicks_that_wait_for_their_watermark_survive_a_reload() -> None:
    desk = SourceDesk(FAST)
    desk.take(batch_of(user_clicks(0, 1, 2), 1, T0))
    assert desk.decide() == []
    again = reloaded(desk)
    again.take(batch_of([], 2, T0 + 2 * SECOND))
    assert len(told_by(again.decide())) == 3


def test_without_room_the_oldest_go_first() -> None:
    store = SourceStore(max_entries=100)
    clicks = [Seen(SourceKind.USER, n % 7, n, T0 + n * MINUTE) for n in range(150)]
    for at in range(0, 150, 10):
        store.add(entries_of(batch_of(clicks[at : at + 10]).array(), 0))
        store.forget(0)
        assert len(store) <= 100
    left = sorted(store.of_kind(0)["at_ms"].tolist())
    assert left == [each.at_ms for each in clicks[-len(left) :]]
    assert store.forgotten == 150 - len(left)
    store.add(entries_of(batch_of(clicks[:10]).array(), 0))  # older than what had to go
    assert sorted(store.of_kind(0)["at_ms"].tolist()) == left


def test_a_run_that_is_not_whole_is_corrupt() -> None:
    desk = SourceDesk(FAST)
    desk.take(batch_of(user_clicks(0, 1), 1, T0))
    snapshot = desk.snapshot()
    runs = {run.name: run.encode()[:-1] for run in desk.store.runs}
    with pytest.raises(source_store.CorruptCheckpoint):
        SourceDesk(FAST).restore(snapshot, runs)


def test_an_entry_costs_what_is_stated() -> None:
    assert ENTRY.itemsize == 76
    assert np.dtype(ENTRY).isbuiltin == 0


def test_the_oracle_itself_sees_a_fast_user() -> None:
    """So that the properties do not compare nothing with nothing."""
    assert must_be_told(user_clicks(0, 1, 2), FAST) == {("user_velocity", digest_of(n)) for n in range(3)}
