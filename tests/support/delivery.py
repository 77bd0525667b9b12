"""Alerts as a worker would write them, and a receiver of webhooks that can be told how to behave."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from aiohttp import web

from streams.adapters.embedded_broker import free_port
from streams.adapters.webhooks import KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, verify
from streams.settings import LOOPBACK
from streams.signals import Alert, AlertState, Audience, Text
from streams.terms import AlertKind

SECRET = "correct-horse"
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
NOON_MS = 1_795_608_000_000
"""2026-11-25 12:00 UTC."""
_SEQUENCE = itertools.count(1)


def alert(
    alert_id: str = "a1",
    state: AlertState = AlertState.FIRING,
    at_ms: int = NOON_MS,
    *,
    kind: AlertKind = AlertKind.BALANCE_LOW,
    is_pushed: bool = True,
    campaign: str = "c1",
    cause: str = "account:a-7",
    sequence: int | None = None,
    **more: Any,
) -> Alert:
    """One change, decided as soon as it happened; later ones have higher sequences unless told otherwise."""
    fields: dict[str, Any] = {
        "audience": Audience.ADVERTISER,
        "campaign_id": campaign,
        "advertiser_id": "adv",
        "began_ms": at_ms if state is AlertState.FIRING else at_ms - MINUTE_MS,
        "changed_ms": at_ms,
        "decided_ms": at_ms,
        "text": Text(f"{campaign} is low on balance", f"{campaign} 余额不足"),
    }
    return Alert(
        alert_id=alert_id,
        kind=kind,
        state=state,
        is_pushed=is_pushed,
        cause=cause,
        sequence=next(_SEQUENCE) if sequence is None else sequence,
        **(fields | more),
    )


class Request(NamedTuple):
    """What the receiver got."""

    key: str
    document: dict[str, Any]
    is_genuine: bool

    @property
    def told(self) -> set[tuple[str, str]]:
        """(alert, state) that it tells of."""
        told: dict[str, list[str]] = self.document["told"]
        return {(alert_id, state) for state, ids in told.items() for alert_id in ids}


Answer = Callable[[int], web.Response | float]
"""Of the request's number: a response, or so many seconds of silence."""


def ok(_number: int) -> web.Response:
    return web.Response(status=204)


class Receiver:
    """`async with Receiver() as receiver:`; `receiver.answer` decides, `receiver.requests` remembers."""

    def __init__(self, answer: Answer = ok) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.accepted: list[Request] = []
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/hook"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=16 * 1024**2)
        app.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self.port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = request.headers
        is_genuine = verify(SECRET, headers[TIMESTAMP_HEADER], body, headers[SIGNATURE_HEADER], time.time())
        got = Request(headers[KEY_HEADER], json.loads(body), is_genuine)
        self.requests.append(got)
        answer = self.answer(len(self.requests))
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return web.Response(status=503)
        if answer.status < 300:
            self.accepted.append(got)
        return answer

    async def until(self, holds: Callable[[Self], bool], timeout_s: float = 20.0) -> None:
        """Waits until something holds of what was received."""
        deadline = time.monotonic() + timeout_s
        while not holds(self):
            assert time.monotonic() < deadline, [(r.key, sorted(r.told)) for r in self.requests]
            await asyncio.sleep(0.05)

    def told(self) -> set[tuple[str, str]]:
        """Everything that was accepted."""
        return {pair for request in self.accepted for pair in request.told}
