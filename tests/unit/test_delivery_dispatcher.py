"""Which messages are due: grouping, caps, quiet hours, silences, digests, and what a rebuild from the logs finds."""

from collections.abc import Sequence

import pytest

from streams.signals import Alert, AlertState, Audience
from streams.stages.delivery.dispatcher import Dispatcher
from streams.stages.delivery.messages import (
    Action,
    AlertCommand,
    Message,
    MessageKind,
    Outcome,
    message_id,
    receipt_of,
)
from streams.stages.delivery.plan import DeliveryPlan, RoutePlan
from streams.terms import AlertKind
from tests.support.delivery import HOUR_MS, MINUTE_MS, NOON_MS, alert

FIRING, RESOLVED = AlertState.FIRING, AlertState.RESOLVED
WAIT_MS = 20_000
DAY_MS = 24 * HOUR_MS
NINE_MS = NOON_MS + 21 * HOUR_MS
"""09:00 UTC of the next day: the daily digest."""


def dispatcher(*routes: RoutePlan, **limits: int | bool) -> Dispatcher:
    return Dispatcher(DeliveryPlan(routes=routes or (RoutePlan(name="default"),), **limits))  # type: ignore[arg-type]


def taking(found: Dispatcher, *alerts: Alert, now_ms: int = NOON_MS) -> Dispatcher:
    for each in alerts:
        found.take_alert(each, now_ms)
    return found


def delivered(found: Dispatcher, messages: Sequence[Message], at_ms: int, outcome: Outcome = Outcome.DELIVERED) -> None:
    for message in messages:
        found.take_receipt(receipt_of(message, outcome, at_ms))


def sent(found: Dispatcher, now_ms: int) -> list[Message]:
    """What is due, delivered at once."""
    messages = found.due(now_ms)
    delivered(found, messages, now_ms)
    return messages


def told(messages: Sequence[Message]) -> list[list[tuple[str, str]]]:
    return [[(a.alert_id, a.state.value) for a in message.alerts] for message in messages]


def command(action: Action, at_ms: int = NOON_MS, **about: object) -> AlertCommand:
    return AlertCommand(action=action, by="li.wei", at_ms=at_ms, **about)  # type: ignore[arg-type]


# Grouping


def test_a_pushed_alert_waits_for_its_like_and_is_told_once() -> None:
    found = taking(dispatcher(), alert("a1"))
    assert found.due(NOON_MS + WAIT_MS - 1) == []
    taking(found, alert("a2", at_ms=NOON_MS + 15_000, campaign="c2"))
    (message,) = sent(found, NOON_MS + WAIT_MS)
    assert told([message]) == [[("a1", "firing"), ("a2", "firing")]]
    assert (message.kind, message.cause) == (MessageKind.PUSH, "account:a-7")
    assert sent(found, NOON_MS + DAY_MS) == []


def test_one_cause_of_three_thousand_campaigns_is_one_message_that_names_a_few() -> None:
    alerts = [alert(f"a{n}", campaign=f"c{n}", agency_id="ag", at_ms=NOON_MS + n) for n in range(3_000)]
    found = taking(dispatcher(RoutePlan(name="agency", agencies=("ag",))), *alerts)
    (message,) = sent(found, NOON_MS + WAIT_MS)
    assert len(message.alerts) == 3_000
    assert message.title == "[Campaign Streams] Alert: balance low, 3,000 campaigns"
    lines = message.text.splitlines()
    assert lines[1] == "• c0 is low on balance"
    assert lines[-1] == "… and 2,995 more"
    assert len(lines) == 7


def test_two_causes_are_two_messages() -> None:
    found = taking(dispatcher(), alert("a1"), alert("a2", cause="campaign:c2"))
    assert sorted(message.cause for message in sent(found, NOON_MS + WAIT_MS)) == ["account:a-7", "campaign:c2"]


def test_a_time_from_the_future_delays_nothing() -> None:
    found = taking(dispatcher(), alert("a1", at_ms=NOON_MS + HOUR_MS))
    assert told(sent(found, NOON_MS)) == [[("a1", "firing")]]


def test_a_message_is_named_by_its_route_and_what_it_tells() -> None:
    one, other = (taking(dispatcher(), alert("a1"), alert("a2")) for _ in range(2))
    (message,), (again,) = one.due(NOON_MS + WAIT_MS), other.due(NOON_MS + HOUR_MS)
    assert message.message_id == again.message_id == message_id("default", [("a2", "firing"), ("a1", "firing")])
    assert message.message_id != message_id("other", [("a1", "firing"), ("a2", "firing")])
    assert message.message_id != message_id("default", [("a1", "resolved"), ("a2", "firing")])


# Lives


def test_redelivered_and_overtaken_records_change_nothing() -> None:
    first, end = alert("a1", sequence=5), alert("a1", RESOLVED, NOON_MS + MINUTE_MS, sequence=9)
    found = taking(dispatcher(), first)
    sent(found, NOON_MS + WAIT_MS)
    taking(found, end, first, end, first)
    assert told(sent(found, NOON_MS + 2 * MINUTE_MS)) == [[("a1", "resolved")]]
    assert sent(found, NOON_MS + DAY_MS) == []
    assert found.counts["repeated"] == 3


def test_the_end_of_what_was_pushed_is_pushed() -> None:
    found = taking(dispatcher(), alert("a1"))
    sent(found, NOON_MS + WAIT_MS)
    taking(found, alert("a1", RESOLVED, NOON_MS + MINUTE_MS))
    (message,) = sent(found, NOON_MS + MINUTE_MS + WAIT_MS)
    assert message.kind is MessageKind.PUSH
    assert message.title == "[Campaign Streams] Resolved: balance low, c1"


def test_the_end_is_left_to_the_digest_where_the_settings_say_so() -> None:
    found = taking(dispatcher(push_resolved=False), alert("a1"))
    sent(found, NOON_MS + WAIT_MS)
    taking(found, alert("a1", RESOLVED, NOON_MS + MINUTE_MS))
    assert sent(found, NOON_MS + HOUR_MS) == []
    assert [message.kind for message in sent(found, NINE_MS)] == [MessageKind.DIGEST]


def test_what_ends_before_it_is_told_is_told_in_the_digest_alone() -> None:
    found = taking(dispatcher(), alert("a1"), alert("a1", RESOLVED, NOON_MS + 5_000))
    assert sent(found, NOON_MS + HOUR_MS) == []
    (message,) = sent(found, NINE_MS)
    assert told([message]) == [[("a1", "resolved")]]


def test_pending_alerts_are_told_to_nobody() -> None:
    found = taking(dispatcher(), alert("a1", AlertState.PENDING))
    assert sent(found, NOON_MS + 2 * DAY_MS) == []


# Digests


def test_what_is_not_pushed_waits_for_the_digest_of_the_receivers_zone() -> None:
    shanghai = RoutePlan(name="default", digest_hour=9, time_zone="Asia/Shanghai")
    found = taking(dispatcher(shanghai), alert("a1", is_pushed=False), alert("a2", is_pushed=False, cause="other"))
    at_ms = NOON_MS + 13 * HOUR_MS  # 01:00 UTC
    assert sent(found, at_ms - 1) == []
    (message,) = sent(found, at_ms)
    assert message.kind is MessageKind.DIGEST
    assert len(message.alerts) == 2


def test_an_hourly_digest_is_due_on_the_hour() -> None:
    found = taking(dispatcher(RoutePlan(name="default", digest="hourly")), alert("a1", is_pushed=False))
    assert sent(found, NOON_MS + HOUR_MS - 1) == []
    assert len(sent(found, NOON_MS + HOUR_MS)) == 1


def test_without_a_digest_what_is_not_pushed_is_counted_and_dropped() -> None:
    found = taking(dispatcher(RoutePlan(name="default", digest="off")), alert("a1", is_pushed=False))
    assert sent(found, NOON_MS + DAY_MS) == []
    assert found.counts["digest_off"] == 1


def test_a_digest_that_would_be_too_long_names_how_many_are_left_out() -> None:
    found = dispatcher(max_digest_alerts=10)
    taking(found, *(alert(f"a{n}", is_pushed=False, at_ms=NOON_MS + n) for n in range(25)))
    (message,) = sent(found, NINE_MS)
    assert [a.alert_id for a in message.alerts] == [f"a{n}" for n in range(15, 25)]
    assert "15 older alerts were left out" in message.text
    assert found.counts["left_out"] == 15


def test_loaded_history_is_not_pushed_and_what_is_too_old_is_dropped() -> None:
    found = taking(
        dispatcher(),
        alert("loaded", changed_ms=NOON_MS - 7 * HOUR_MS),
        alert("ancient", at_ms=NOON_MS - 49 * HOUR_MS),
    )
    assert sent(found, NOON_MS + HOUR_MS) == []
    assert told(sent(found, NINE_MS)) == [[("loaded", "firing")]]
    assert found.counts["too_old"] == 1


# Caps


def test_beyond_the_hourly_cap_the_rest_is_one_summary_in_the_next_hour() -> None:
    found = dispatcher(RoutePlan(name="default", hourly_cap=2))
    taking(found, *(alert(f"a{n}", cause=f"k{n}", at_ms=NOON_MS + n) for n in range(7)))
    assert len(sent(found, NOON_MS + MINUTE_MS)) == 2
    assert found.receivers["default"].held_by_cap == 5
    assert sent(found, NOON_MS + HOUR_MS - 1) == []
    (summary,) = sent(found, NOON_MS + HOUR_MS)
    assert summary.kind is MessageKind.SUMMARY
    assert len(summary.alerts) == 5
    assert "Held back by the hourly cap: 5 firing" in summary.title


def test_digests_do_not_count_towards_the_cap() -> None:
    found = dispatcher(RoutePlan(name="default", hourly_cap=1, digest="hourly"))
    taking(found, alert("d", is_pushed=False, at_ms=NOON_MS - MINUTE_MS), alert("p"))
    assert sorted(message.kind for message in sent(found, NOON_MS + WAIT_MS)) == ["digest", "push"]


# Quiet hours


def quiet(alert_id: str, state: AlertState = FIRING, at_ms: int = NOON_MS, zone: str = "UTC") -> Alert:
    return alert(alert_id, state, at_ms, quiet_begins="11:30", quiet_ends="14:00", time_zone=zone)


def test_pushes_wait_until_the_campaigns_quiet_hours_end() -> None:
    found = taking(dispatcher(), quiet("a1"), alert("loud", campaign="c2"))
    assert told(sent(found, NOON_MS + WAIT_MS)) == [[("loud", "firing")]]
    assert sent(found, NOON_MS + 2 * HOUR_MS - 1) == []
    assert told(sent(found, NOON_MS + 2 * HOUR_MS)) == [[("a1", "firing")]]


def test_quiet_hours_are_those_of_the_campaigns_zone() -> None:
    found = taking(dispatcher(), quiet("a1", zone="Asia/Shanghai"))  # 20:00 there
    assert len(sent(found, NOON_MS + WAIT_MS)) == 1


def test_what_ends_in_quiet_hours_before_it_was_told_is_for_the_digest() -> None:
    found = taking(dispatcher(), quiet("a1"), quiet("a1", RESOLVED, NOON_MS + HOUR_MS))
    assert sent(found, NOON_MS + 3 * HOUR_MS) == []
    assert told(sent(found, NINE_MS)) == [[("a1", "resolved")]]


# Silences


def test_an_acknowledged_alert_is_told_no_more_until_it_ends_and_its_end_in_the_digest() -> None:
    found = taking(dispatcher(), alert("a1"), alert("a2"))
    found.take_command(command(Action.ACK, alert_id="a1"))
    assert told(sent(found, NOON_MS + WAIT_MS)) == [[("a2", "firing")]]
    taking(found, *(alert(name, RESOLVED, NOON_MS + HOUR_MS) for name in ("a1", "a2")))
    assert told(sent(found, NOON_MS + HOUR_MS + WAIT_MS)) == [[("a2", "resolved")]]
    assert told(sent(found, NINE_MS)) == [[("a1", "resolved")]]


def test_acknowledging_a_cause_silences_what_had_fired_and_nothing_later() -> None:
    """Not even what had begun, if it was pending then: nobody could know of it."""
    found = dispatcher()
    found.take_command(command(Action.ACK, cause="account:a-7"))
    hours_ago, later = NOON_MS - 2 * HOUR_MS, NOON_MS + MINUTE_MS
    taking(found, alert("before", at_ms=NOON_MS - MINUTE_MS, began_ms=hours_ago))
    taking(found, alert("after", at_ms=later), alert("pending", at_ms=later, began_ms=hours_ago))
    assert told(sent(found, NOON_MS + HOUR_MS)) == [[("after", "firing"), ("pending", "firing")]]


def test_a_snoozed_alert_is_told_when_the_snooze_ends_if_it_still_fires() -> None:
    found = taking(dispatcher(), alert("a1"), alert("a2", campaign="c2"))
    found.take_command(command(Action.SNOOZE, campaign_id="c1", until_ms=NOON_MS + 2 * HOUR_MS))
    assert told(sent(found, NOON_MS + WAIT_MS)) == [[("a2", "firing")]]
    assert sent(found, NOON_MS + 2 * HOUR_MS - 1) == []
    assert told(sent(found, NOON_MS + 2 * HOUR_MS)) == [[("a1", "firing")]]


def test_a_later_snooze_of_the_same_target_replaces_the_one_before() -> None:
    found = taking(dispatcher(), alert("a1"))
    long, ended = (
        command(Action.SNOOZE, NOON_MS + n, alert_id="a1", until_ms=until_ms)
        for n, until_ms in enumerate((NOON_MS + DAY_MS, NOON_MS + 1_000))
    )
    for each in (long, ended, long):
        found.take_command(each)
    assert len(sent(found, NOON_MS + WAIT_MS)) == 1


def test_a_silence_for_one_receiver_leaves_the_others_informed() -> None:
    found = taking(dispatcher(RoutePlan(name="one"), RoutePlan(name="two")), alert("a1", routes=("one", "two")))
    found.take_command(command(Action.ACK, alert_id="a1", route="one"))
    assert [message.route for message in sent(found, NOON_MS + WAIT_MS)] == ["two"]


# Routes


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"routes": ("named", "gone")}, ["named"]),
        ({"routes": ("gone",)}, ["advertiser"]),
        ({}, ["advertiser"]),
        ({"advertiser_id": "another", "agency_id": "ag"}, ["agency"]),
        ({"advertiser_id": "another"}, ["default"]),
        ({"audience": Audience.OPERATIONS}, ["operations"]),
    ],
)
def test_an_alert_goes_to_the_routes_it_names_else_to_the_nearest_that_serves_it(
    fields: dict[str, object], expected: list[str]
) -> None:
    routes = (
        RoutePlan(name="named"),
        RoutePlan(name="advertiser", advertisers=("adv",)),
        RoutePlan(name="agency", agencies=("ag",)),
        RoutePlan(name="operations", is_for_operations=True),
        RoutePlan(name="default"),
    )
    found = taking(dispatcher(*routes), alert("a1", **fields))  # type: ignore[arg-type]
    assert [message.route for message in sent(found, NOON_MS + WAIT_MS)] == expected


def test_an_alert_that_nobody_is_to_be_told_is_counted() -> None:
    found = taking(dispatcher(RoutePlan(name="other")), alert("a1"), alert("o", audience=Audience.OPERATIONS))
    assert sent(found, NINE_MS) == []
    assert found.counts["without_route"] == 2


# Words


def test_a_message_is_in_the_receivers_language_or_that_of_most_of_its_campaigns() -> None:
    both = (alert("a1", language="zh"), alert("a2", language="zh", campaign="c2"), alert("a3", campaign="c3"))
    (message,) = sent(taking(dispatcher(), *both), NOON_MS + WAIT_MS)
    assert message.title == "[Campaign Streams] 告警：余额不足，3 个计划"
    assert "• c1 余额不足" in message.text
    (message,) = sent(taking(dispatcher(RoutePlan(name="default", language="en")), *both), NOON_MS + WAIT_MS)
    assert message.title == "[Campaign Streams] Alert: balance low, 3 campaigns"


def test_every_kind_of_alert_has_words_in_both_languages() -> None:
    for language in ("en", "zh"):
        for kind in AlertKind:
            (message,) = sent(taking(dispatcher(), alert("a", kind=kind, language=language)), NOON_MS + WAIT_MS)
            assert kind.value not in message.title.split(",")[0] or "_" not in kind.value


def test_a_text_is_short_enough_for_chat_and_says_what_is_missing() -> None:
    kinds = list(AlertKind)
    long = [alert(f"a{n}", kind=kinds[n % len(kinds)], campaign=f"c{n}", campaign_name="名" * 100) for n in range(200)]
    (message,) = sent(taking(dispatcher(), *long), NOON_MS + WAIT_MS)
    assert len(message.text) <= 3_500
    assert message.text.splitlines()[-1].startswith("… and ")


# Rebuilds


def test_a_message_under_way_is_sent_again_under_its_id_by_whoever_takes_over() -> None:
    first = alert("a1")
    found = taking(dispatcher(), first)
    (message,) = found.due(NOON_MS + WAIT_MS)
    after = dispatcher()
    after.take_receipt(receipt_of(message, Outcome.COMPOSED, NOON_MS + WAIT_MS))
    taking(after, first, alert("a2", at_ms=NOON_MS + WAIT_MS), alert("a1", RESOLVED, NOON_MS + MINUTE_MS))
    again = after.due(NOON_MS + 2 * MINUTE_MS)
    assert (again[0].message_id, again[0].text, again[0].is_recorded) == (message.message_id, message.text, True)
    assert told(again[1:]) == [[("a2", "firing"), ("a1", "resolved")]]
    assert after.due(NOON_MS + 3 * MINUTE_MS) == []


def test_what_was_delivered_or_refused_for_good_is_not_told_again() -> None:
    alerts = alert("a1"), alert("a2", cause="k2")
    found = taking(dispatcher(), *alerts)
    messages = found.due(NOON_MS + WAIT_MS)
    after = dispatcher()
    delivered(after, messages[:1], NOON_MS, Outcome.DELIVERED)
    delivered(after, messages[1:], NOON_MS, Outcome.FAILED)
    delivered(after, messages, NOON_MS, Outcome.COMPOSED)  # read late
    taking(after, *alerts)
    assert after.due(NINE_MS) == []


def test_the_cap_holds_across_a_rebuild() -> None:
    found = taking(dispatcher(RoutePlan(name="default", hourly_cap=1)), alert("a1"))
    messages = found.due(NOON_MS + WAIT_MS)
    after = taking(dispatcher(RoutePlan(name="default", hourly_cap=1)), alert("a2", cause="k2"))
    delivered(after, messages, NOON_MS + WAIT_MS)
    assert after.due(NOON_MS + HOUR_MS - 1) == []
    assert len(after.due(NOON_MS + HOUR_MS)) == 1


def test_a_message_whose_alerts_are_forgotten_comes_back_empty() -> None:
    (message,) = taking(dispatcher(), alert("a1")).due(NOON_MS + WAIT_MS)
    after = dispatcher()
    delivered(after, [message], NOON_MS, Outcome.COMPOSED)
    assert told(after.due(NOON_MS + HOUR_MS)) == [[]]


# Bounds


def test_while_a_receiver_does_not_answer_alerts_group_in_place_of_messages_piling_up() -> None:
    found = dispatcher(max_under_way=2)
    taking(found, alert("a1"), alert("a2", cause="k2"))
    messages = found.due(NOON_MS + WAIT_MS)
    taking(found, *(alert(f"b{n}", at_ms=NOON_MS + n * MINUTE_MS) for n in range(1, 30)))
    assert found.due(NOON_MS + 40 * MINUTE_MS) == []
    delivered(found, messages, NOON_MS + 41 * MINUTE_MS)
    (message,) = found.due(NOON_MS + 41 * MINUTE_MS)
    assert len(message.alerts) == 29


def test_beyond_the_bound_told_alerts_go_first_then_digests_and_pushes_are_asked_for_again() -> None:
    found = dispatcher(max_alerts=20)
    taking(found, *(alert(f"told{n}") for n in range(5)))
    sent(found, NOON_MS + WAIT_MS)
    taking(found, *(alert(f"d{n}", is_pushed=False) for n in range(15)))
    taking(found, *(alert(f"p{n}") for n in range(25)))
    assert sum(life.latest.is_pushed for life in found.lives.values()) == len(found.lives) == 20
    assert (found.counts["left_out"], found.counts["refused"], found.is_incomplete) == (15, 5, True)


def test_old_alerts_and_receipts_are_forgotten_but_not_how_they_were_told() -> None:
    found = taking(dispatcher(), alert("a1"))
    sent(found, NOON_MS + WAIT_MS)
    later_ms = NOON_MS + 3 * DAY_MS
    found.prune(later_ms)
    assert found.lives == {}
    taking(found, alert("a1", RESOLVED, later_ms), now_ms=later_ms)
    (message,) = sent(found, later_ms + WAIT_MS)
    assert message.kind is MessageKind.PUSH
