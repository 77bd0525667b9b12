"""Webhooks and notifiers against a real server on this machine that fails, hangs, redirects, refuses and recovers."""

import asyncio
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from streams.adapters import notifiers
from streams.adapters.clock import SystemClock
from streams.adapters.delivery_channels import Attempt, Channel, Delivered, Refused, TryAgain
from streams.adapters.delivery_routes import channel_of, masked_url
from streams.adapters.embedded_broker import free_port
from streams.adapters.notifiers import Notifier
from streams.adapters.webhooks import Webhook
from streams.agents.delivery_sender import Sender, SenderCounts
from streams.errors import ConfigurationError
from streams.settings import LOOPBACK, DeliverySettings, RouteSettings
from streams.stages.delivery.messages import Message, Outcome, Receipt
from streams.stages.delivery.plan import DeliveryPlan, RoutePlan
from streams.stages.delivery.receiver import Life
from streams.stages.delivery.receiver import Receiver as RouteState
from streams.stages.delivery.silences import Silences
from tests.support.delivery import SECRET, Receiver, alert, ok

Answering = Callable[[int], web.Response | float]


def status(code: int, **headers: str) -> Answering:
    return lambda _n: web.Response(status=code, headers={k.replace("_", "-"): v for k, v in headers.items()})


def message(name: str = "a1", composed_ms: int | None = None) -> Message:
    """One push, as the dispatcher composes it."""
    now_ms = int(time.time() * 1000) if composed_ms is None else composed_ms
    lives = {name: Life(alert(name, at_ms=now_ms - 60_000), None, ("default",))}
    state = RouteState(DeliveryPlan(), RoutePlan(name="default"), lives, Silences(1), Counter())
    state.expect(name)
    (found,) = state.due(now_ms)
    return found


@asynccontextmanager
async def webhook(url: str, *, allow: bool = True, timeout_s: float = 2.0) -> AsyncIterator[Webhook]:
    channel = Webhook(url, SECRET, timeout_s=timeout_s, allow_private=allow)
    try:
        yield channel
    finally:
        await channel.close()


async def attempted(answer: Answering, timeout_s: float = 2.0) -> Attempt:
    async with Receiver(answer) as receiver, webhook(receiver.url, timeout_s=timeout_s) as channel:
        return await channel.send(message())


# One attempt


async def test_a_request_is_signed_carries_its_key_and_both_texts() -> None:
    async with Receiver() as receiver, webhook(receiver.url) as channel:
        sent = message()
        assert isinstance(await channel.send(sent), Delivered)
        (got,) = receiver.requests
        assert got.is_genuine
        assert got.key == sent.message_id == got.document["message_id"]
        assert got.document["alerts"][0]["text"] == {"en": "c1 is low on balance", "zh": "c1 余额不足"}
        assert got.told == {("a1", "firing")}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (status(200), Delivered),
        (status(202), Delivered),
        (status(400), Refused),
        (status(404), Refused),
        (status(410), Refused),
        (status(408), TryAgain),
        (status(429), TryAgain),
        (status(500), TryAgain),
        (status(503), TryAgain),
    ],
)
async def test_the_status_decides_whether_trying_again_helps(answer: Answering, expected: type[Attempt]) -> None:
    assert isinstance(await attempted(answer), expected)


async def test_a_receiver_that_says_when_is_believed() -> None:
    assert await attempted(status(429, Retry_After="7")) == TryAgain("HTTP 429", 7.0)
    assert await attempted(status(503, Retry_After="86400")) == TryAgain("HTTP 503", 3600.0)
    assert await attempted(status(503, Retry_After="soon")) == TryAgain("HTTP 503", None)


async def test_a_receiver_that_hangs_is_left_after_the_timeout() -> None:
    started = time.monotonic()
    assert await attempted(lambda _n: 30.0, timeout_s=0.3) == TryAgain("no answer in time")
    assert time.monotonic() - started < 5


async def test_a_redirect_is_not_followed() -> None:
    async with Receiver() as other, Receiver(status(307, Location=other.url)) as receiver:
        async with webhook(receiver.url) as channel:
            attempt = await channel.send(message())
        assert isinstance(attempt, Refused)
        assert "redirects are not followed" in attempt.detail
        assert other.requests == []


async def test_nobody_at_the_address_is_tried_again_and_the_url_is_not_told() -> None:
    async with webhook(f"http://{LOOPBACK}:{free_port()}/token-in-the-path") as channel:
        attempt = await channel.send(message())
    assert isinstance(attempt, TryAgain)
    assert "token" not in attempt.detail


# Private networks

INSIDE = ["127.0.0.1", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "localhost", "169.254.169.254"]


@pytest.mark.parametrize("host", INSIDE)
async def test_an_address_inside_is_refused_however_it_is_written(host: str) -> None:
    async with Receiver() as receiver, webhook(f"http://{host}:{receiver.port}/hook", allow=False) as channel:
        attempt = await channel.send(message())
        assert isinstance(attempt, Refused)
        assert "inside a private network" in attempt.detail
        assert "delivery.allow_private_networks" in attempt.detail
        assert receiver.requests == []


@pytest.mark.parametrize("host", ["127.1", "2130706433"])
async def test_a_number_that_is_no_address_to_http_is_refused_too(host: str) -> None:
    async with Receiver() as receiver, webhook(f"http://{host}:{receiver.port}/hook", allow=False) as channel:
        assert isinstance(await channel.send(message()), Refused)
        assert receiver.requests == []


async def test_a_name_that_is_bound_to_another_address_meanwhile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name resolves to a public address when it is looked at, and to a private one when it is connected to."""
    answers = iter(["93.184.216.34", "127.0.0.1", "127.0.0.1"])
    asked = socket.getaddrinfo

    def rebinding(host: str, port: int, *args: object, **kwargs: object) -> object:
        return asked(next(answers) if host == "rebind.example" else host, port, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    socket.getaddrinfo("rebind.example", 80)  # somebody looks first
    async with Receiver() as receiver:
        async with webhook(f"http://rebind.example:{receiver.port}/", allow=False) as channel:
            attempt = await channel.send(message())
        assert isinstance(attempt, Refused)
        assert receiver.requests == []


# Until it is delivered


class Sending:
    """A sender with a log that is a list."""

    def __init__(self, channel: Channel, **more: object) -> None:
        self.receipts: list[Receipt] = []
        options = {"circuit_open_ms": 200, "circuit_failures": 3, "attempts": 2, **more}
        self.sender = Sender(
            "default", channel, DeliverySettings(**options), self._record, SystemClock(), SenderCounts()
        )  # type: ignore[arg-type]
        self.task = asyncio.ensure_future(self.sender.run())

    async def _record(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)

    async def until(self, count: int, timeout_s: float = 15.0) -> list[Receipt]:
        deadline = time.monotonic() + timeout_s
        while len(self.receipts) < count:
            assert time.monotonic() < deadline, self.receipts
            await asyncio.sleep(0.02)
        return self.receipts

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def sending(channel: Channel, **more: object) -> AsyncIterator[Sending]:
    found = Sending(channel, **more)
    try:
        yield found
    finally:
        await found.stop()


async def test_a_receiver_that_fails_hangs_and_recovers_gets_everything_and_can_tell_duplicates() -> None:
    moods: list[web.Response | float] = [
        web.Response(status=500),
        web.Response(status=429, headers={"Retry-After": "0"}),
        1.0,
        web.Response(status=503),
    ]
    answer: Answering = lambda n: moods[n - 1] if n <= len(moods) else ok(n)  # noqa: E731
    async with Receiver(answer) as receiver, webhook(receiver.url, timeout_s=0.4) as channel:
        async with sending(channel) as found:
            messages = [message(name) for name in ("a1", "a2", "a3")]
            for each in messages:
                found.sender.put(each)
            receipts = await found.until(3)
        assert {receipt.outcome for receipt in receipts} == {Outcome.DELIVERED}
        assert receiver.told() == {(name, "firing") for name in ("a1", "a2", "a3")}
        assert {request.key for request in receiver.requests} == {each.message_id for each in messages}
        assert len(receiver.requests) == len(moods) + 3
        assert all(request.is_genuine for request in receiver.requests)


async def test_the_circuit_opens_and_a_probe_closes_it() -> None:
    async with Receiver(status(500)) as receiver, webhook(receiver.url) as channel:
        async with sending(channel, circuit_failures=2, attempts=5, circuit_open_ms=500) as found:
            found.sender.put(message())
            await receiver.until(lambda r: len(r.requests) == 2)
            await asyncio.sleep(0.2)
            assert len(receiver.requests) == 2
            assert found.sender.circuit.opened == 1
            receiver.answer = ok
            (receipt,) = await found.until(1)
        assert (receipt.outcome, receipt.attempts, found.sender.circuit.failures) == (Outcome.DELIVERED, 3, 0)


async def test_a_message_that_a_receiver_cannot_take_holds_up_no_other() -> None:
    poison = message("poison")
    async with Receiver() as receiver, webhook(receiver.url) as channel:
        receiver.answer = lambda _n: web.Response(status=500 if receiver.requests[-1].key == poison.message_id else 200)
        async with sending(channel) as found:
            found.sender.put(poison)
            found.sender.put(message("a2"))
            receipts = await found.until(1)
            assert receipts[0].firing == ("a2",)
            assert found.sender.message_ids == [poison.message_id]


async def test_what_is_refused_for_good_is_recorded_as_failed_with_the_reason() -> None:
    async with Receiver(status(403)) as receiver, webhook(receiver.url) as channel:
        async with sending(channel) as found:
            found.sender.put(message())
            (receipt,) = await found.until(1)
        assert (receipt.outcome, receipt.detail, len(receiver.requests)) == (Outcome.FAILED, "HTTP 403", 1)
        assert found.sender.counts.outcomes["push", Outcome.FAILED] == 1


async def test_a_message_that_is_too_old_is_given_up_with_a_receipt() -> None:
    old_ms = int(time.time() * 1000) - 72 * 3_600_000
    async with Receiver() as receiver, webhook(receiver.url) as channel, sending(channel) as found:
        found.sender.put(message(composed_ms=old_ms))
        (receipt,) = await found.until(1)
        assert (receipt.outcome, receipt.detail) == (Outcome.FAILED, "too old to be told")
        assert receiver.requests == []


async def test_a_dry_run_sends_nothing_and_says_so() -> None:
    async with Receiver() as receiver:
        route = RouteSettings(url=receiver.url, secret=SECRET)  # type: ignore[arg-type]
        channel = channel_of("default", route, DeliverySettings(dry_run=True))
        async with sending(channel) as found:
            found.sender.put(message())
            (receipt,) = await found.until(1)
        assert receipt.outcome is Outcome.DRY_RUN
        assert receiver.requests == []


# Chat and mail


async def test_a_notifier_hands_title_and_text_to_the_service() -> None:
    pytest.importorskip("apprise", reason="chat and mail need campaign-streams[notify]")
    got: list[dict[str, str]] = []

    async def take(request: web.Request) -> web.Response:
        got.append(await request.json())
        return web.Response(status=200 if len(got) == 1 else 500)

    app = web.Application()
    app.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, LOOPBACK, port).start()
    try:
        notifier = Notifier("chat", f"json://user:secret-token@{LOOPBACK}:{port}/hooks", timeout_s=5)
        assert isinstance(await notifier.send(message()), Delivered)
        assert got[0]["title"] == "[Campaign Streams] Alert: balance low, c1"
        assert got[0]["message"] == "c1 is low on balance"
        failed = await notifier.send(message())
        assert isinstance(failed, TryAgain)
        assert "500" in failed.detail
        assert "secret-token" not in failed.detail
    finally:
        await runner.cleanup()


async def test_a_service_that_hangs_is_left_and_not_asked_twice_at_once() -> None:
    pytest.importorskip("apprise", reason="chat and mail need campaign-streams[notify]")
    with socket.socket() as deaf:
        deaf.bind((LOOPBACK, 0))
        deaf.listen()
        notifier = Notifier("chat", f"json://{LOOPBACK}:{deaf.getsockname()[1]}/", timeout_s=0.3)
        assert await notifier.send(message()) == TryAgain("no answer in time")
        assert await notifier.send(message()) == TryAgain("an earlier attempt still hangs")


def test_without_apprise_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigurationError, match=r"delivery\.routes\.chat: .*pip install 'campaign-streams\[notify\]'"):
        notifiers.apprise_module("chat")


def test_a_url_that_apprise_does_not_understand_is_named_without_being_shown() -> None:
    pytest.importorskip("apprise", reason="chat and mail need campaign-streams[notify]")
    with pytest.raises(ConfigurationError, match=r"delivery\.routes\.chat\.url") as caught:
        Notifier("chat", "nosuch://secret-token", timeout_s=1)
    assert "secret-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@hooks.example/T0/B0", "https://hooks.example/…"),
        ("slack://tokenA/tokenB", "slack://…"),
        ("mailto://user:pw@example.com", "mailto://…"),
    ],
)
def test_urls_are_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert masked_url(url) == shown
