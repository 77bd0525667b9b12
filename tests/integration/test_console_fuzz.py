"""The API is asked whatever its own description allows, and what it forbids: it never fails, and answers as it says."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, settings

from streams.adapters.clickhouse import connect
from streams.adapters.clickhouse_migrations import migrate
from streams.console.openapi import description
from streams.console.web import Console
from tests.integration.test_console_api import fill
from tests.support.chdb_engine import new_settings
from tests.support.clickhouse_views import Database
from tests.support.console import Backstage, bearer, made_token, settings_with, web_app

schemathesis = pytest.importorskip("schemathesis", reason="pip install 'campaign-streams[dev]' brings schemathesis")

EXAMPLES = 12
"""Of each operation. They are the same in every run."""
TOKEN = made_token("operator")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A console in a thread of its own, for schemathesis asks as any client does."""
    database = new_settings()
    keeper = connect(database)
    migrate(keeper)
    loop, ready, found = asyncio.new_event_loop(), threading.Event(), list[TestServer]()

    async def begin() -> None:
        async with Database(database) as filled:
            await fill(filled)
        console = Console(settings_with(TOKEN, refresh_ms=60_000, failures_per_minute=1_000), database, Backstage())
        found.append(TestServer(web_app(console)))
        await found[0].start_server()
        ready.set()

    def run() -> None:
        loop.run_until_complete(begin())
        loop.run_forever()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(60)
    yield str(found[0].make_url("")).rstrip("/")
    asyncio.run_coroutine_threadsafe(found[0].close(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()
    keeper.command(f"DROP DATABASE {keeper.database}")
    keeper.close()


ACCEPTED = ["200", "204", "400", "401", "404"]
"""For data that the description allows. 400: a cursor may look like one and be none; 401: so may a token."""

config = schemathesis.Config.from_dict({"checks": {"positive_data_acceptance": {"expected-statuses": ACCEPTED}}})
api = schemathesis.openapi.from_dict(description(), config=config)
asked = api.exclude(path="/events")  # a stream has no end; its parameter is judged as all others are


@asked.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_the_api_answers_as_its_description_says(case: Any, address: str) -> None:
    response = case.call(base_url=f"{address}/api/v1", headers=bearer(TOKEN))
    case.validate_response(response)
