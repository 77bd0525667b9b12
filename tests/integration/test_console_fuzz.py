"""The API is asked whatever its own description allows, and what it forbids: it never fails, and answers as it says."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from streams.adapters.clickhouse import connect
from streams.adapters.clickhouse_migrations import migrate
from streams.console.documents import OPERATORS_KEY
from streams.console.openapi import description
from streams.console.web import Console
from tests.integration.test_console_api import OWNERS, SECRET, fill, names_in
from tests.support.chdb_engine import new_settings
from tests.support.clickhouse_views import Database
from tests.support.console import Backstage, bearer, made_token, settings_with, web_app

schemathesis = pytest.importorskip("schemathesis", reason="pip install 'campaign-streams[dev]' brings schemathesis")

EXAMPLES = 12
"""Of each operation. They are the same in every run."""
SCOPED_EXAMPLES = 8
TOKEN, SCOPED = made_token("operator"), made_token("advertiser:adv-1")


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
        console = Console(
            settings_with(TOKEN, SCOPED, refresh_ms=60_000, failures_per_minute=1_000), database, Backstage()
        )
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
EVERY_WAY: Any = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


def described(*accepted: str) -> Any:
    """What is asked, by the description. A stream has no end; its parameter is judged as all others are."""
    config = {"checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTED, *accepted]}}}
    api = schemathesis.openapi.from_dict(description(), config=schemathesis.Config.from_dict(config))
    return api.exclude(path="/events")


by_an_operator, by_another = described(), described("403")


@by_an_operator.parametrize()
@settings(max_examples=EXAMPLES, **EVERY_WAY)
def test_the_api_answers_as_its_description_says(case: Any, address: str) -> None:
    response = case.call(base_url=f"{address}/api/v1", headers=bearer(TOKEN))
    case.validate_response(response)


def hidden_names(schema: Any) -> set[str]:
    """Fields that the description marks as the operators'."""
    if isinstance(schema, list):
        return set().union(*map(hidden_names, schema))
    if not isinstance(schema, dict):
        return set()
    fields = schema.get("properties", {})
    own = {name for name, each in fields.items() if isinstance(each, dict) and each.get(OPERATORS_KEY)}
    return own.union(*map(hidden_names, schema.values()))


HIDDEN = hidden_names(description()["components"]["schemas"])
OTHERS = {campaign for campaign, owner in OWNERS.items() if owner["advertiser_id"] != "adv-1"} | {"unknown"}
CAMPAIGNS = [*sorted(OWNERS), "unknown", ""]
"""Those that are there; the empty one leaves what was made up."""


@by_another.given(campaign=st.sampled_from(CAMPAIGNS))
@by_another.parametrize()
@settings(max_examples=SCOPED_EXAMPLES, **EVERY_WAY)
def test_an_advertiser_is_told_nothing_of_others_whatever_is_asked(case: Any, address: str, campaign: str) -> None:
    is_by_path = bool(campaign) and "campaign_id" in case.path_parameters
    is_by_filter = bool(campaign) and case.path == "/alerts"
    if is_by_path:
        case.path_parameters["campaign_id"] = campaign
    elif is_by_filter:
        case.query = {"campaign_id": campaign}
    response = case.call(base_url=f"{address}/api/v1", headers=bearer(SCOPED))
    if not is_by_path and not is_by_filter:
        case.validate_response(response)
    assert response.status_code < 500
    if response.status_code != 200:
        assert SECRET not in response.text
        return
    found = response.json()
    assert not names_in(found) & HIDDEN
    assert not texts_in(found) & (OTHERS | {"adv-2"})
    assert SECRET not in response.text
    assert not (is_by_path and campaign in OTHERS)


def texts_in(document: Any) -> set[str]:
    """Every text of a document."""
    if isinstance(document, dict):
        return set().union(*map(texts_in, document.values()))
    if isinstance(document, list):
        return set().union(*map(texts_in, document))
    return {document} if isinstance(document, str) else set()


def test_what_is_hidden_is_described_as_such() -> None:
    assert {"gross_spend_micros", "rate", "whole", "rules", "cause"} <= HIDDEN
