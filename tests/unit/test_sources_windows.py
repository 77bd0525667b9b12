"""Source stage, window rules: what people do is not flagged, what farms do is; each verdict is told once."""

from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from streams.errors import CorruptCheckpoint
from streams.events import ClickType
from streams.invalid import FanOut, InvalidRules, Mode, Rule, SourceKind, Velocity
from streams.rules import DAY_MS, HOUR_MS, MINUTE_MS
from streams.stages.invalid.holding import KINDS, entries_of
from streams.stages.invalid.sources import LATENESS_MS, SourceDesk
from streams.verdicts import MAX_VERDICT_CLICKS, Clicks, EvidenceBatch, Verdict

T0 = 1_700_000_000_000
RULES = InvalidRules()


def clicks(
    kind: SourceKind, at_ms: Any, source: Any = 1 << 40, user: Any = 7, campaign: Any = 1, first: int = 0, **rest: Any
) -> Clicks:
    """One click at each time, with ids from `first` on."""
    ids = np.arange(first + 1, first + len(at_ms) + 1, dtype="<u8")
    mixed = ids * np.uint64(0x9E3779B97F4A7C15)
    columns = {"source": source, "user": user, "campaign": campaign, **rest}
    return entries_of(kind, high=mixed, low=ids, at_ms=at_ms, **columns)


def batch(entries: Clicks, sequence: int = 1, watermark_ms: int | None = None, **rest: Any) -> EvidenceBatch:
    """From partition 0, complete up to its newest click."""
    newest = int(entries["at_ms"].max()) if len(entries) else -1
    rest = {"from_partition": 0, "is_idle": False, **rest}
    watermark = newest if watermark_ms is None else watermark_ms
    return EvidenceBatch(sequence=sequence, watermark_ms=watermark, clicks=entries.tobytes(), **rest)


def verdicts(entries: Clicks, rules: InvalidRules = RULES) -> list[Verdict]:
    """What one batch leads to."""
    desk = SourceDesk(rules)
    desk.take(batch(entries))
    return desk.decide()


def flagged(told: list[Verdict], rule: Rule) -> int:
    return sum(len(verdict.clicks) for verdict in told if verdict.rule is rule)


def spaced(count: int, over_ms: int) -> Any:
    return T0 + np.arange(count) * over_ms // max(1, count - 1)


# What people do


def test_a_carrier_with_thousands_of_people_behind_one_address_is_not_flagged() -> None:
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(1, 5_001, dtype="<u8") << 33, rng.integers(1, 4, 5_000))
    at_ms = T0 + rng.integers(0, 10 * MINUTE_MS, len(users))
    entries = clicks(SourceKind.ADDRESS, at_ms, user=users, campaign=rng.integers(1, 2_000, len(users)))
    assert len(entries) > 2 * RULES.address_velocity.clicks
    assert verdicts(entries) == []


def test_twenty_cards_in_a_flash_sale_are_not_flagged() -> None:
    at_ms, cards = spaced(20, 5 * MINUTE_MS), np.arange(1, 21)
    parts = [clicks(kind, at_ms, campaign=cards) for kind in KINDS]
    crowd = clicks(SourceKind.ADDRESS, spaced(4_000, 5 * MINUTE_MS), user=np.arange(1, 4_001) << 33, first=100)
    assert verdicts(np.concatenate([*parts, crowd])) == []


CARD, ROOM = (tuple(ClickType).index(each) for each in (ClickType.CARD, ClickType.LIVE_ROOM_ENTRY))
"""Places in the evidence."""
BY_TYPE = {ClickType.CARD: 100, ClickType.LIVE_ROOM_ENTRY: 10}


def flash_sale(cards: int, rooms: int, kind: SourceKind, user: Any = 7, first: int = 0) -> Clicks:
    """Taps on product cards, and entries into live rooms, of one source in five minutes."""
    tapped = clicks(kind, spaced(cards, 5 * MINUTE_MS), click_type=CARD, user=user, first=first)
    entered = clicks(kind, spaced(rooms, 5 * MINUTE_MS), click_type=ROOM, user=user, first=first + cards)
    return np.concatenate((tapped, entered))


@pytest.mark.parametrize("kind", [SourceKind.USER, SourceKind.DEVICE])
def test_cards_and_live_room_entries_each_have_their_own_number(kind: SourceKind) -> None:
    bound = Velocity(60, 10 * MINUTE_MS, BY_TYPE)
    rules = InvalidRules(user_velocity=bound, device_velocity=bound)
    assert verdicts(flash_sale(99, 9, kind), rules) == []
    (verdict,) = verdicts(flash_sale(100, 9, kind), rules)
    assert (len(verdict.clicks), verdict.evidence["threshold_clicks"], verdict.evidence["only_card"]) == (100, 100, 1)
    (verdict,) = verdicts(flash_sale(99, 10, kind), rules)
    assert (len(verdict.clicks), verdict.evidence["threshold_clicks"]) == (10, 10)
    assert verdict.evidence["only_live_room_entry"] == 1
    others = clicks(kind, spaced(60, 5 * MINUTE_MS), click_type=[1, 2] * 30, first=200)
    (verdict,) = verdicts(np.concatenate((others, flash_sale(99, 9, kind))), rules)
    assert (len(verdict.clicks), verdict.evidence["threshold_clicks"]) == (60, 60)
    assert not [name for name in verdict.evidence if name.startswith("only_")]


def test_people_behind_an_address_are_judged_by_the_numbers_of_their_click_types() -> None:
    """Half of what convicts a user: 50 cards, or 5 rooms; of the address, all but cards count together."""
    crowd = clicks(SourceKind.ADDRESS, spaced(3_000, 5 * MINUTE_MS), user=np.arange(1, 3_001) << 33, click_type=ROOM)
    rules = InvalidRules(
        user_velocity=Velocity(60, 10 * MINUTE_MS, BY_TYPE),
        address_velocity=Velocity(2_000, 10 * MINUTE_MS, {ClickType.CARD: 50}),
    )
    honest = flash_sale(49, 4, SourceKind.ADDRESS, user=9, first=5_000)
    assert verdicts(np.concatenate((crowd, honest)), rules) == []
    (verdict,) = verdicts(np.concatenate((crowd, flash_sale(50, 4, SourceKind.ADDRESS, 9, 5_000))), rules)
    assert (len(verdict.clicks), verdict.evidence["threshold_person_clicks"]) == (50, 50)
    (verdict,) = verdicts(np.concatenate((crowd, flash_sale(49, 5, SourceKind.ADDRESS, 9, 5_000))), rules)
    assert (len(verdict.clicks), verdict.evidence["threshold_person_clicks"]) == (5, 5)


def test_what_is_counted_apart_outlives_a_checkpoint() -> None:
    """Each type's clicks come in three looks, with a restart between."""
    rules = InvalidRules(user_velocity=Velocity(60, 10 * MINUTE_MS, BY_TYPE))
    found: list[Verdict] = []
    desk = SourceDesk(rules)
    for at in range(3):
        desk.take(batch(flash_sale(60, 6, SourceKind.USER, first=100 * at), at + 1))
        found += desk.decide()
        held, desk = desk.snapshot(), SourceDesk(rules)
        desk.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(held)))
    assert sum(len(verdict.clicks) for verdict in found) == 3 * 66
    assert len({click for verdict in found for click in verdict.clicks}) == 3 * 66


# What farms do


def test_a_user_beyond_the_threshold_is_flagged_with_all_clicks_of_the_window() -> None:
    quick = clicks(SourceKind.USER, spaced(60, 10 * MINUTE_MS))
    slow = clicks(SourceKind.USER, T0 + HOUR_MS + np.arange(59) * 1_000, first=60)
    (verdict,) = verdicts(np.concatenate((quick, slow)))
    assert (verdict.rule, verdict.source_kind, len(verdict.clicks)) == (Rule.USER_VELOCITY, SourceKind.USER, 60)
    assert verdict.source == f"{1 << 40:016x}"
    assert verdict.evidence == {"clicks": 60.0, "threshold_clicks": 60.0, "window_ms": 600_000.0}
    assert set(verdict.clicks) == {np.array([e["high"], e["low"]]).tobytes().hex() for e in quick}


def test_a_window_that_is_a_millisecond_too_long_is_not_flagged() -> None:
    assert verdicts(clicks(SourceKind.USER, spaced(60, 10 * MINUTE_MS + 1))) == []


def test_a_farm_of_few_phones_and_many_accounts_is_flagged() -> None:
    rng = np.random.default_rng(2)
    devices = np.repeat(np.arange(1, 31, dtype="<u8") << 40, 150)
    entries = clicks(
        SourceKind.DEVICE,
        T0 + rng.integers(0, HOUR_MS, len(devices)),
        source=devices,
        user=devices + rng.integers(1, 13, len(devices)).astype("<u8"),
        campaign=rng.integers(1, 200, len(devices)),
    )
    told = verdicts(entries)
    assert flagged(told, Rule.DEVICE_FAN_OUT) == len(entries)
    assert all(verdict.evidence["campaigns"] >= 20 and verdict.evidence["users"] >= 5 for verdict in told)


def test_bots_behind_a_crowded_address_are_flagged_and_their_neighbours_are_not() -> None:
    people = np.arange(1, 3_001, dtype="<u8") << 33
    crowd = clicks(SourceKind.ADDRESS, spaced(3_000, 10 * MINUTE_MS), user=people)
    bot = clicks(SourceKind.ADDRESS, spaced(40, 9 * MINUTE_MS), user=9, first=3_000)
    desk = SourceDesk(RULES)
    desk.take(batch(bot))
    assert desk.decide() == []
    desk.take(batch(crowd, 2))
    (verdict,) = desk.decide()
    assert verdict.rule is Rule.ADDRESS_VELOCITY
    assert len(verdict.clicks) == 40
    assert verdict.evidence["threshold_person_clicks"] == 30


def test_unknown_users_of_an_address_are_never_flagged() -> None:
    assert verdicts(clicks(SourceKind.ADDRESS, spaced(5_000, 10 * MINUTE_MS), user=0)) == []


def test_types_that_do_not_count_are_left_out() -> None:
    rules = InvalidRules(velocity_types=(ClickType.CARD,), user_velocity=Velocity(3, 1_000))
    others = [1, 0, 2, 0, 3, 0]  # places in ClickType; a card is the first
    (verdict,) = verdicts(clicks(SourceKind.USER, T0 + np.arange(6), click_type=others), rules)
    assert len(verdict.clicks) == 3


def test_a_rule_that_is_off_finds_nothing() -> None:
    rules = InvalidRules(modes={Rule.USER_VELOCITY: Mode.OFF})
    assert verdicts(clicks(SourceKind.USER, spaced(100, MINUTE_MS)), rules) == []


def test_sources_that_share_half_of_their_hash_are_two() -> None:
    sources = np.array([(5 << 32) + each for each in (1, 2)] * 40, dtype="<u8")
    assert verdicts(clicks(SourceKind.USER, spaced(80, MINUTE_MS), source=sources)) == []


# Once each, late, and in parts


def test_a_batch_that_comes_again_changes_nothing() -> None:
    entries = clicks(SourceKind.USER, spaced(59, MINUTE_MS))
    desk = SourceDesk(RULES)
    for _ in range(3):
        desk.take(batch(entries))
        assert desk.decide() == []
    desk.take(batch(clicks(SourceKind.USER, [T0 + 70], first=59), 2))
    assert flagged(desk.decide(), Rule.USER_VELOCITY) == 60
    desk.take(batch(entries))
    assert desk.decide() == []
    assert desk.figures().entries == 60


def test_a_late_click_completes_a_window_of_long_ago() -> None:
    desk = SourceDesk(RULES)
    desk.take(batch(clicks(SourceKind.USER, spaced(59, MINUTE_MS)), watermark_ms=T0 + DAY_MS))
    assert desk.decide() == []
    desk.take(batch(clicks(SourceKind.USER, [T0 + 1], first=59), 2, T0 + DAY_MS))
    assert flagged(desk.decide(), Rule.USER_VELOCITY) == 60


def test_only_new_clicks_of_a_flagged_window_are_told() -> None:
    desk = SourceDesk(RULES)
    desk.take(batch(clicks(SourceKind.USER, spaced(60, MINUTE_MS))))
    assert flagged(desk.decide(), Rule.USER_VELOCITY) == 60
    desk.take(batch(clicks(SourceKind.USER, [T0 + MINUTE_MS + 5], first=60), 2))
    assert flagged(desk.decide(), Rule.USER_VELOCITY) == 1


def test_verdicts_go_to_the_partitions_of_the_clicks_in_bounded_parts() -> None:
    desk = SourceDesk(RULES)
    many = MAX_VERDICT_CLICKS + 1
    desk.take(batch(clicks(SourceKind.USER, spaced(many, MINUTE_MS)), is_idle=True))
    desk.take(batch(clicks(SourceKind.USER, spaced(3, 30), first=many), from_partition=2, is_idle=True))
    told = [(verdict.to_partition, len(verdict.clicks)) for verdict in desk.decide()]
    assert told == [(0, MAX_VERDICT_CLICKS), (0, 1), (2, 3)]


def test_a_conversion_of_a_click_is_no_click_of_its_publisher_twice() -> None:
    at_ms = spaced(10, MINUTE_MS)
    desk = SourceDesk(RULES)
    both = np.concatenate(
        [clicks(SourceKind.PUBLISHER, at_ms), clicks(SourceKind.PUBLISHER, at_ms, delay_ms=np.arange(10))]
    )
    desk.take(batch(both))
    desk.take(batch(both))
    desk.decide()
    assert desk.figures().entries == 20


# Watermarks


def test_nothing_is_decided_beyond_the_least_watermark() -> None:
    desk = SourceDesk(RULES)
    desk.take(batch(clicks(SourceKind.USER, spaced(60, MINUTE_MS))))
    desk.take(batch(clicks(SourceKind.USER, [T0 + 1_000], first=60), from_partition=1))
    assert desk.decide() == []
    assert desk.figures().watermark_ms == T0 + 1_000
    desk.take(batch(clicks(SourceKind.USER, []), 2, T0 + MINUTE_MS, from_partition=1))
    assert flagged(desk.decide(), Rule.USER_VELOCITY) == 61


def test_an_idle_partition_is_not_waited_for_but_its_clicks_count() -> None:
    desk = SourceDesk(RULES)
    desk.take(batch(clicks(SourceKind.USER, spaced(59, MINUTE_MS))))
    desk.take(batch(clicks(SourceKind.USER, [T0 + 1], first=59), from_partition=1, is_idle=True))
    assert flagged(desk.decide(), Rule.USER_VELOCITY) == 60


def test_a_partition_that_was_never_heard_of_is_waited_for_until_it_says_that_it_is_idle() -> None:
    desk = SourceDesk(RULES, partitions=2)
    desk.take(batch(clicks(SourceKind.USER, spaced(60, MINUTE_MS))))
    assert desk.decide() == []
    assert desk.figures().watermark_ms == -1
    desk.take(batch(clicks(SourceKind.USER, []), from_partition=1, is_idle=True))
    assert flagged(desk.decide(), Rule.USER_VELOCITY) == 60


def test_the_watermark_never_goes_back() -> None:
    desk = SourceDesk(RULES)
    desk.take(batch(clicks(SourceKind.USER, []), 5, T0 + HOUR_MS))
    desk.decide()
    desk.take(batch(clicks(SourceKind.USER, []), 1, T0, from_partition=1))
    desk.take(batch(clicks(SourceKind.USER, []), 4, T0))
    desk.decide()
    assert desk.figures().watermark_ms == T0 + HOUR_MS


def test_without_a_watermark_nothing_is_decided() -> None:
    desk = SourceDesk(RULES)
    assert desk.decide() == []
    desk.take(batch(clicks(SourceKind.USER, []), is_idle=True))
    assert desk.decide() == []


# Bounds


def test_beyond_its_room_a_kind_forgets_its_oldest_and_no_other_kind_does() -> None:
    desk = SourceDesk(RULES, max_entries=400)
    desk.take(batch(clicks(SourceKind.DEVICE, T0 - 1_000_000 + np.arange(10)), is_idle=True))
    for number in range(20):
        entries = clicks(SourceKind.USER, T0 + 10_000 * number + np.arange(30), first=100 * number)
        desk.take(batch(entries, number + 2))
        desk.decide()
        assert desk.figures().entries <= 110
    figures = desk.figures()
    assert figures.forgotten == 20 * 30 + 10 - figures.entries > 400
    assert figures.floors_ms["user"] > T0
    desk.take(batch(clicks(SourceKind.USER, T0 + np.arange(30)), 1))
    assert desk.figures().ignored == 30
    assert desk.figures().floors_ms["device"] < T0 - 1_000_000


def test_what_waits_is_bounded_too() -> None:
    desk = SourceDesk(RULES, max_entries=400)
    entries = clicks(SourceKind.USER, T0 + np.arange(90))
    for number in range(20):
        desk.take(batch(entries, number, watermark_ms=T0 - 1))
    assert desk.figures().forgotten == 0
    assert desk.figures().entries == 90


def test_entries_leave_with_the_watermark() -> None:
    desk = SourceDesk(RULES)
    desk.take(batch(clicks(SourceKind.USER, spaced(60, MINUTE_MS))))
    desk.decide()
    later = T0 + LATENESS_MS + RULES.user_velocity.window_ms + 2 * MINUTE_MS
    desk.take(batch(clicks(SourceKind.USER, [later] * 100, first=100, source=np.arange(1, 101) << 33), 2))
    assert desk.figures().told == 60
    desk.decide()
    figures = desk.figures()
    assert (figures.entries, figures.forgotten, figures.told) == (100, 0, 0)
    desk.take(batch(clicks(SourceKind.USER, spaced(60, MINUTE_MS)), 3, later))
    assert (desk.decide(), desk.figures().ignored) == ([], 60)


def test_an_entry_takes_sixty_four_bytes() -> None:
    desk = SourceDesk(RULES)
    desk.take(batch(clicks(SourceKind.USER, spaced(59, MINUTE_MS))))
    desk.decide()
    assert desk.figures().bytes == 59 * 64


# Rules that change, and checkpoints


def test_other_rules_judge_what_comes_from_then_on() -> None:
    desk = SourceDesk(RULES)
    desk.take(batch(clicks(SourceKind.USER, spaced(40, MINUTE_MS))))
    assert desk.decide() == []
    desk.change_rules(InvalidRules(user_velocity=Velocity(30, 10 * MINUTE_MS)))
    assert desk.decide() == []
    desk.take(batch(clicks(SourceKind.USER, [T0 + 90_000], first=40), 2))
    assert flagged(desk.decide(), Rule.USER_VELOCITY) == 41
    desk.change_rules(RULES)
    desk.take(batch(clicks(SourceKind.USER, [T0 + 91_000], first=41), 3))
    assert desk.decide() == []


def test_other_rules_find_users_of_addresses_among_those_held() -> None:
    desk = SourceDesk(RULES)
    bot = clicks(SourceKind.ADDRESS, spaced(20, MINUTE_MS))
    desk.take(batch(bot))
    desk.decide()
    desk.change_rules(InvalidRules(user_velocity=Velocity(20, 10 * MINUTE_MS)))
    desk.take(batch(clicks(SourceKind.ADDRESS, spaced(2_000, 2_000), user=np.arange(2_000) << 33, first=50), 2))
    desk.take(batch(clicks(SourceKind.ADDRESS, []), 3, T0 + MINUTE_MS))
    assert flagged(desk.decide(), Rule.ADDRESS_VELOCITY) == 20


def test_a_run_that_is_torn_is_refused() -> None:
    desk = SourceDesk(RULES)
    desk.take(batch(clicks(SourceKind.USER, spaced(3, MINUTE_MS))))
    desk.decide()
    snapshot = desk.snapshot()
    store, name, data = snapshot["runs"][0]
    snapshot["runs"][0] = (store, name, data[:-1])
    with pytest.raises(CorruptCheckpoint):
        SourceDesk(RULES).restore(snapshot)


def test_a_run_keeps_its_content_under_its_name() -> None:
    desk, known = SourceDesk(RULES), {}
    rng = Random(3)
    for number in range(60):
        size = rng.randint(1, 80)
        at_ms = T0 + 1_000 * number + np.arange(size)
        desk.take(batch(clicks(SourceKind.USER, at_ms, first=100 * number), number))
        desk.decide()
        for store, name, data in msgspec.msgpack.decode(msgspec.msgpack.encode(desk.runs())):
            assert known.setdefault((store, name), data) == data
    assert len([1 for store, *_ in desk.runs() if store == "user"]) < 8


def test_a_device_of_very_many_users_is_flagged_whatever_it_clicks_on() -> None:
    """Twenty-nine accounts of one device are a busy till; thirty within the hour are a farm on one campaign."""
    few = clicks(SourceKind.DEVICE, spaced(58, 50 * MINUTE_MS), user=np.arange(58) % 29 + 1)
    assert verdicts(few) == []
    (verdict,) = verdicts(clicks(SourceKind.DEVICE, spaced(30, 50 * MINUTE_MS), user=np.arange(1, 31)))
    assert (verdict.rule, len(verdict.clicks)) == (Rule.DEVICE_FAN_OUT, 30)
    assert (verdict.evidence["users"], verdict.evidence["threshold_users_alone"]) == (30, 30)
    crowd = clicks(SourceKind.ADDRESS, spaced(3_000, 50 * MINUTE_MS), user=np.arange(1, 3_001))
    assert verdicts(crowd) == []


def test_a_device_on_very_many_campaigns_is_flagged_where_that_is_asked_for() -> None:
    entries = clicks(SourceKind.DEVICE, spaced(40, 50 * MINUTE_MS), campaign=np.arange(1, 41))
    assert verdicts(entries) == []
    rules = InvalidRules(device_fan_out=FanOut(20, HOUR_MS, 5, campaigns_alone=40))
    assert flagged(verdicts(entries, rules), Rule.DEVICE_FAN_OUT) == 40
    assert verdicts(entries[1:], rules) == []


def test_fan_out_without_users_counts_campaigns_alone() -> None:
    rules = InvalidRules(device_fan_out=FanOut(3, 1_000))
    entries = clicks(SourceKind.DEVICE, [T0, T0 + 1, T0 + 2, T0 + 5_000], campaign=[1, 2, 3, 4], user=0)
    (verdict,) = verdicts(entries, rules)
    assert len(verdict.clicks) == 3
    assert verdict.evidence["threshold_campaigns"] == 3
