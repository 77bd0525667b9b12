"""Live updates as server-sent events. Who sees the same is served by one loop, and only while somebody listens.

A reader that is slow gets the newest state, not a queue of old ones; alerts wait for it up to a bound.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from streams.console.access import Principal, Scope
from streams.console.parameters import AlertsAsked, CampaignsAsked, Window
from streams.console.service import Service
from streams.errors import CampaignStreamsError

log = logging.getLogger(__name__)

FIGURES: Final = 100
"""Campaigns of one update: the first page by spend."""
WAITING_ALERTS: Final = 50
SHARES: Final = 10
"""One token has at most this part of all streams, and at least one: no single one shuts the others out."""
REST: Final = 3.0
"""A loop rests at least so many times as long as it looked: where ClickHouse is busy, updates are rarer."""
HEARTBEAT_S: Final = 15.0
RETRY_MS: Final = 3_000


class Key(NamedTuple):
    """Who sees the same."""

    scopes: tuple[Scope, ...]
    window: Window


def event(name: str, body: bytes) -> bytes:
    """One event of a stream. JSON has no line breaks, so one line of data is enough."""
    return b"event: " + name.encode() + b"\ndata: " + body + b"\n\n"


class Listener:
    """One stream: what it has not been sent yet."""

    def __init__(self, who: Principal) -> None:
        self.who = who
        self._newest: dict[str, bytes] = {}
        self._alerts: deque[bytes] = deque(maxlen=WAITING_ALERTS)
        self._wakes = asyncio.Event()
        self.is_closed = False

    def put(self, name: str, body: bytes) -> None:
        """Something new; an older state that was not sent yet is replaced."""
        if name == "alert":
            self._alerts.append(body)
        else:
            self._newest[name] = body
        self._wakes.set()

    def close(self) -> None:
        """Ends the stream."""
        self.is_closed = True
        self._wakes.set()

    async def next(self) -> bytes:
        """What to send now: events, or a comment that keeps the connection open."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wakes.wait(), HEARTBEAT_S)
        self._wakes.clear()
        parts = [event(name, body) for name, body in self._newest.items()]
        parts += [event("alert", body) for body in self._alerts]
        self._newest.clear()
        self._alerts.clear()
        return b"".join(parts) or b": still here\n\n"


class Hub:
    """All streams of one worker."""

    def __init__(self, service: Service, *, every_ms: int, most: int, holds: Callable[[Principal], bool]) -> None:
        """`holds` tells whether a principal's token still does."""
        self._service = service
        self._every_s = every_ms / 1000
        self._most = most
        self._most_of_one = max(1, most // SHARES)
        self._holds = holds
        self._listeners: dict[Key, set[Listener]] = {}
        self._loops: dict[Key, asyncio.Task[None]] = {}
        self._told: dict[Key, dict[str, bytes]] = {}

    @property
    def count(self) -> int:
        """Open streams."""
        return sum(map(len, self._listeners.values()))

    @property
    def is_full(self) -> bool:
        """Whether no further stream is taken."""
        return self.count >= self._most

    def has_its_share(self, who: Principal) -> bool:
        """Whether this token has as many streams as one may. Where none is needed, this machine may have all."""
        own = sum(each.who.token_id == who.token_id for listeners in self._listeners.values() for each in listeners)
        return bool(who.token_id) and own >= self._most_of_one

    def listen(self, who: Principal, window: Window) -> Listener:
        """A new stream. Give it back with `leave`."""
        key, listener = Key(who.scopes, window), Listener(who)
        self._listeners.setdefault(key, set()).add(listener)
        for name, body in self._told.get(key, {}).items():
            listener.put(name, body)
        if key not in self._loops:
            self._loops[key] = asyncio.create_task(self._run(key))
        return listener

    def leave(self, listener: Listener, window: Window) -> None:
        """The stream has ended."""
        key = Key(listener.who.scopes, window)
        others = self._listeners.get(key, set())
        others.discard(listener)
        if not others:
            self._listeners.pop(key, None)
            self._told.pop(key, None)
            loop = self._loops.pop(key, None)
            if loop is not None:
                loop.cancel()

    async def close(self) -> None:
        """Ends every stream, so that the web server need not wait for them."""
        for loop in self._loops.values():
            loop.cancel()
        for listeners in list(self._listeners.values()):
            for listener in listeners:
                listener.close()

    async def _run(self, key: Key) -> None:
        seen: dict[str, str] | None = None
        told = self._told.setdefault(key, {})
        while True:
            for listener in list(self._listeners.get(key, ())):
                if not self._holds(listener.who):
                    listener.close()
            began = time.monotonic()
            try:
                seen = await self._look(key, seen, told)
            except CampaignStreamsError as error:  # ClickHouse is away: streams stay, and what is shown grows old
                log.debug("live updates wait: %s", error)
            except Exception:  # the next look may succeed; a loop that ended would leave its streams silent
                log.exception("live updates")
            await asyncio.sleep(max(self._every_s, REST * (time.monotonic() - began)))

    async def _look(self, key: Key, seen: dict[str, str] | None, told: dict[str, bytes]) -> dict[str, str]:
        """Tells what has changed; returns the alerts that have been told, with their states."""
        who = Principal("", key.scopes)
        page = await self._service.campaigns(who, CampaignsAsked(window=key.window, limit=FIGURES))
        self._tell(key, "figures", page, told)
        if who.is_operator:
            self._tell(key, "health", self._service.health(who), told)
        alerts = (await self._service.alerts(who, AlertsAsked(limit=WAITING_ALERTS))).alerts
        for alert in reversed(alerts):
            if seen is not None and seen.get(alert.alert_id) != alert.state:
                self._send(key, "alert", msgspec.json.encode(alert))
        return {alert.alert_id: alert.state for alert in alerts}

    def _tell(self, key: Key, name: str, document: Any, told: dict[str, bytes]) -> None:
        body = msgspec.json.encode(document)
        if told.get(name) != body:
            told[name] = body
            self._send(key, name, body)

    def _send(self, key: Key, name: str, body: bytes) -> None:
        for listener in self._listeners.get(key, ()):
            listener.put(name, body)
