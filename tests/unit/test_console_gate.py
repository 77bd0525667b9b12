"""Who is let in, and what everybody is told who is not: the same about what is there and what is not theirs."""

import logging
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from streams.console import gate
from streams.console.gate import COOKIE
from streams.settings import ConsoleSettings
from tests.support.console import bearer, made_token, served, settings_with
from tests.support.tools import REPOSITORY

OPERATOR, ADVERTISER = made_token("operator"), made_token("advertiser:adv-1")
SESSION = "/api/v1/session"
OPERATORS_PAGES = ("/metrics", "/api/status", "/router/")


async def status(client: TestClient[Any, Any], path: str, **more: Any) -> int:
    async with client.get(path, allow_redirects=False, **more) as response:
        return response.status


# Without a token


async def test_without_tokens_this_machine_is_the_operator() -> None:
    async with served(settings_with()) as client, client.get(SESSION) as response:
        session = await response.json()
    assert (session["is_operator"], session["is_open"]) == (True, True)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "console.example"},
        {"Host": "127.0.0.1.example"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
    ],
    ids=str,
)
async def test_a_name_from_elsewhere_or_a_proxy_is_not_this_machine(headers: dict[str, str]) -> None:
    async with served(settings_with()) as client:
        for path in (SESSION, "/console/", *OPERATORS_PAGES):
            assert await status(client, path, headers=headers) == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:6066", "127.0.0.1:1", "127.1.2.3", "[::1]:6066"])
async def test_every_own_name_is_this_machine(host: str) -> None:
    async with served(settings_with()) as client:
        assert await status(client, SESSION, headers={"Host": host}) == 200


async def test_other_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_is_loopback", lambda text: False)
    async with served(settings_with()) as client:
        for path in (SESSION, "/console/", "/", *OPERATORS_PAGES):
            assert await status(client, path) == 403
        assert await status(client, "/health/live") == 200  # probes come from elsewhere
    async with served(settings_with(open_metrics=True)) as client:
        assert await status(client, "/metrics") == 200
        assert await status(client, "/api/status") == 403


# With tokens


async def test_with_tokens_this_machine_needs_one_too() -> None:
    async with served(settings_with(OPERATOR)) as client:
        for path in (SESSION, *OPERATORS_PAGES):
            assert await status(client, path) == 401
            assert await status(client, path, headers=bearer(OPERATOR)) == 200
        for path in ("/health/live", "/health/ready", "/console/", "/console/app.js", "/api/v1/openapi.json"):
            assert await status(client, path) == 200


async def test_pages_of_operators_are_closed_to_the_others() -> None:
    async with served(settings_with(OPERATOR, ADVERTISER)) as client:
        for path in OPERATORS_PAGES:
            assert await status(client, path, headers=bearer(ADVERTISER)) == 403
        async with client.post("/api/query", data=b"SELECT 1", headers=bearer(ADVERTISER)) as response:
            assert response.status == 403
        for path in ("flags", "ledger", "health"):
            assert await status(client, f"/api/v1/{path}", headers=bearer(ADVERTISER)) == 403


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer x", "Basic eDp5", "bearer " + "y" * 5_000, "Bearer cs_a_b"])
async def test_any_other_header_is_nobody(value: str) -> None:
    async with served(settings_with(OPERATOR)) as client:
        assert await status(client, SESSION, headers={"Authorization": value}) == 401


async def test_a_login_gives_a_cookie_that_scripts_cannot_read() -> None:
    async with served(settings_with(OPERATOR)) as client:
        async with client.post(SESSION, json={"token": OPERATOR.token}) as response:
            assert response.status == 200
            cookie = response.cookies[COOKIE]
            assert cookie["httponly"]
            assert cookie["samesite"] == "Strict"
            assert cookie["path"] == "/"
        jar = {COOKIE: cookie.value}
        assert await status(client, SESSION, cookies=jar) == 200
        async with client.delete(SESSION) as response:
            assert response.status == 204
            assert response.cookies[COOKIE]["max-age"] == "0"


async def test_a_login_ends_in_the_browser_and_the_token_ends_on_the_server() -> None:
    """What the setting and the README say: no session is kept, so none is ended here."""
    async with served(settings_with(OPERATOR, session_ms=60_000)) as client:
        async with client.post(SESSION, json={"token": OPERATOR.token}) as response:
            cookie = response.cookies[COOKIE]
        assert cookie.value == OPERATOR.token
        assert cookie["max-age"] == "60"
        async with client.delete(SESSION):
            pass
        assert await status(client, SESSION, cookies={COOKIE: cookie.value}) == 200
    assert "The server ends none" in (ConsoleSettings.model_fields["session_ms"].description or "")
    assert "no login sessions on the server" in (REPOSITORY / "README.md").read_text()


async def test_a_secure_cookie_is_a_setting() -> None:
    settings, login = settings_with(OPERATOR, secure_cookie=True), {"token": OPERATOR.token}
    async with served(settings) as client, client.post(SESSION, json=login) as response:
        assert response.cookies[COOKIE]["secure"]


async def test_other_sites_cannot_change_a_session() -> None:
    async with served(settings_with(OPERATOR)) as client:
        headers = {"Sec-Fetch-Site": "cross-site"}
        async with client.post(SESSION, json={"token": OPERATOR.token}, headers=headers) as response:
            assert response.status == 403
        async with client.post(SESSION, data='{"token": "x"}', headers={"Content-Type": "text/plain"}) as response:
            assert response.status == 400  # a form of another site cannot send JSON


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": "x", "more": 1}', b"\xff", b"x" * 9_000]
)
async def test_a_login_that_is_none_is_told_as_such(body: bytes) -> None:
    async with served(settings_with(OPERATOR)) as client:
        headers = {"Content-Type": "application/json"}
        async with client.post(SESSION, data=body, headers=headers) as response:
            assert response.status == 400
            assert response.content_type == "application/problem+json"


async def test_wrong_tokens_are_slowed_down_and_right_ones_are_not() -> None:
    async with served(settings_with(OPERATOR, failures_per_minute=2)) as client:
        assert await status(client, SESSION, headers=bearer(OPERATOR)) == 200
        found = [await status(client, SESSION, headers=bearer(f"cs_aaaa_{n}")) for n in range(4)]
        assert found == [401, 401, 429, 429]
        assert await status(client, SESSION, headers=bearer(OPERATOR)) == 200


async def test_a_token_that_asks_too_often_is_told_when_to_come_back() -> None:
    async with served(settings_with(OPERATOR, requests_per_minute=10)) as client:
        found = [await status(client, SESSION, headers=bearer(OPERATOR)) for _ in range(11)]
        assert found == [200] * 10 + [429]
        async with client.get(SESSION, headers=bearer(OPERATOR)) as response:
            assert int(response.headers["Retry-After"]) >= 1


# Every answer


async def test_every_answer_carries_the_headers_of_safety() -> None:
    async with served(settings_with(OPERATOR)) as client:
        for path in ("/", "/console/", SESSION, "/nowhere", "/metrics", "/api/v1/openapi.json"):
            async with client.get(path, allow_redirects=False) as response:
                policy = response.headers["Content-Security-Policy"]
                assert "unsafe" not in policy
                assert "frame-ancestors 'none'" in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["Referrer-Policy"] == "no-referrer"
                assert "Server" not in response.headers


async def test_what_is_not_there_is_a_problem_document() -> None:
    async with served(settings_with()) as client:
        async with client.get("/api/v1/nowhere") as response:
            assert response.status == 404
            assert set(await response.json()) == {"type", "title", "status", "detail"}
        async with client.put(SESSION) as response:
            assert response.status == 405
            assert response.headers["Allow"]


@pytest.mark.parametrize(
    "query", ["sort=x", "limit=0", "limit=201", "limit=a", "nope=1", "window=1m&window=5m", "cursor=x"]
)
async def test_a_wrong_parameter_is_refused_before_anything_is_asked(query: str) -> None:
    async with served(settings_with()) as client, client.get(f"/api/v1/alerts?{query}") as response:
        assert response.status == 400


async def test_no_secret_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with served(settings_with(OPERATOR)) as client:
        await status(client, SESSION, headers=bearer(OPERATOR))
        await status(client, SESSION, headers=bearer(OPERATOR.token + "wrong"))
        await status(client, "/api/v1/alerts", headers=bearer(OPERATOR))  # no ClickHouse there: a warning
        async with client.post(SESSION, json={"token": OPERATOR.token}):
            pass
    secret = OPERATOR.token.split("_", 2)[2]
    assert caplog.records
    assert not [record for record in caplog.records if secret in record.getMessage()]
