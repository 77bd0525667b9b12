"""Operations get one alert for what is silent; advertisers none."""

import msgspec
import pytest

from streams.events import Input
from streams.signals import Alert, AlertState, Audience
from streams.stages.alerting.facts import PartitionFacts
from streams.stages.alerting.partition import PartitionAlerts
from tests.unit.given import SECOND, T0

SINCE = T0 - 40 * SECOND


def run(
    alerts: PartitionAlerts, seconds: int, silent: dict[Input, int], from_s: int = 0, is_catching_up: bool = False
) -> list[Alert]:
    """Event time stands: everything is silent."""
    told: list[Alert] = []
    for second in range(from_s, from_s + seconds, 5):
        wall = T0 + second * SECOND
        told += alerts.evaluate(PartitionFacts(SINCE, wall, 3, silent, is_catching_up))
    return told


def test_a_silent_input_is_told_once_to_operations_while_event_time_stands() -> None:
    (alert,) = run(PartitionAlerts(3), 600, {Input.IMPRESSIONS: SINCE})
    assert (alert.audience, alert.state, alert.is_pushed) == (Audience.OPERATIONS, AlertState.FIRING, True)
    assert (alert.cause, alert.began_ms, alert.campaign_id) == ("input:impressions", SINCE, "")
    assert "impressions" in alert.text.en
    assert "展示" in alert.text.zh


def test_a_silence_of_a_moment_is_not_told() -> None:
    alerts = PartitionAlerts(3)
    assert run(alerts, 10, {Input.IMPRESSIONS: SINCE}) == []
    assert run(alerts, 60, {}, 10) == []


def test_another_input_that_falls_silent_is_told_under_the_same_id() -> None:
    alerts = PartitionAlerts(3)
    told = run(alerts, 60, {Input.IMPRESSIONS: SINCE})
    told += run(alerts, 60, {Input.IMPRESSIONS: SINCE, Input.CLICKS: SINCE}, 60)
    told += run(alerts, 60, {Input.CLICKS: SINCE}, 120)
    assert [alert.state for alert in told] == [AlertState.FIRING] * 2
    assert len({alert.alert_id for alert in told}) == 1
    assert "impressions and clicks" in told[1].text.en


def test_it_resolves_when_nothing_is_silent_any_more() -> None:
    alerts = PartitionAlerts(3)
    (fired,) = run(alerts, 60, {Input.CLICKS: SINCE})
    (resolved,) = run(alerts, 120, {}, 60)
    assert (resolved.state, resolved.alert_id) == (AlertState.RESOLVED, fired.alert_id)
    assert "clicks again" in resolved.text.en


def test_while_history_is_read_silence_is_no_news() -> None:
    assert run(PartitionAlerts(3), 600, {Input.IMPRESSIONS: SINCE}, is_catching_up=True) == []


def test_partitions_have_their_own_ids_and_share_a_cause() -> None:
    told = [
        alert
        for partition in (1, 2)
        for alert in PartitionAlerts(partition).evaluate(PartitionFacts(SINCE, T0, partition, {}))
    ]
    assert told == []
    ones = [run(PartitionAlerts(partition), 60, {Input.CLICKS: SINCE})[0] for partition in (1, 2)]
    assert ones[0].alert_id != ones[1].alert_id
    assert ones[0].cause == ones[1].cause


@pytest.mark.parametrize("at", [5, 15, 60, 100])
def test_restored_operations_alerts_go_on_as_the_ones_that_were_kept(at: int) -> None:
    kept = PartitionAlerts(3)
    run(kept, at, {Input.CLICKS: SINCE})
    held = PartitionAlerts(3)
    held.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(kept.snapshot())))
    told = run(kept, 60, {Input.CLICKS: SINCE}, at) + run(kept, 120, {}, at + 60)
    assert told
    assert run(held, 60, {Input.CLICKS: SINCE}, at) + run(held, 120, {}, at + 60) == told
