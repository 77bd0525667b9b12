"""A console on a web server of its own, as the worker has it, over a test's database."""

import functools
import json
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from streams.console.documents import Health
from streams.console.tokens import NewToken, new_token
from streams.console.web import Console
from streams.settings import ClickHouseSettings, ConsoleSettings, TokenSettings

METRICS: Final = "secret_metric 1\n"
HEALTH: Final = Health(
    is_ready=True,
    reasons=[],
    version="0",
    partitions=[0],
    recovering=[],
    lag_records=0,
    dirty_rows=0,
    is_sink_up=True,
    visible_p50_ms=None,
    visible_p99_ms=None,
    newest_event=None,
)


class Backstage:
    """A worker that is well."""

    def health(self) -> Health:
        return HEALTH


@functools.cache
def made_token(*scopes: str) -> NewToken:
    """A token with these scopes, made once: hashing takes its time on purpose."""
    return new_token(scopes)


def settings_with(*tokens: NewToken, **more: Any) -> ConsoleSettings:
    """Settings that know these tokens."""
    known = {}
    for token in tokens:
        token_id, entry = entry_of(token)
        known[token_id] = TokenSettings.model_validate(entry)
    more.setdefault("requests_per_minute", 100_000)
    more.setdefault("refresh_ms", 250)
    return ConsoleSettings(tokens=known, **more)


def entry_of(token: NewToken) -> tuple[str, dict[str, Any]]:
    """The id and the fields of a token's line."""
    ((token_id, entry),) = tomllib.loads(token.line).items()
    return token_id, entry


def bearer(token: NewToken | str) -> dict[str, str]:
    """The header that shows a token."""
    return {"Authorization": f"Bearer {token if isinstance(token, str) else token.token}"}


def web_app(console: Console) -> web.Application:
    """The worker's web server: the console, and pages that are not the console's."""

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=METRICS)

    app = web.Application()
    for path in ("/metrics", "/api/status", "/router/", "/health/live", "/health/ready"):
        app.router.add_get(path, metrics)
    app.router.add_post("/api/query", metrics)
    console.install(app)
    return app


@asynccontextmanager
async def served(
    settings: ConsoleSettings, clickhouse: ClickHouseSettings | None = None
) -> AsyncIterator[TestClient[Any, Any]]:
    """A client of a running console. Without a database only what needs none is answered."""
    console = Console(settings, clickhouse or ClickHouseSettings(), Backstage())
    async with TestClient(TestServer(web_app(console))) as client:
        yield client


async def answer(client: TestClient[Any, Any], path: str, token: NewToken | str | None = None) -> Any:
    """The body of a GET that succeeds."""
    async with client.get(path, headers=bearer(token) if token else {}) as response:
        body = await response.read()
        assert response.status == 200, body
        return json.loads(body)
