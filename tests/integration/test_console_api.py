"""The API over a real engine: figures are exact, pages are whole, and nobody sees what is somebody else's."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient

from streams.adapters.clickhouse import connect
from streams.adapters.clickhouse_migrations import migrate
from streams.console.figures import day_start_s, settled_before_s
from streams.records import Table
from streams.settings import ClickHouseSettings
from streams.stages.rates import wilson
from tests.support.chdb_engine import new_settings
from tests.support.clickhouse_views import Database
from tests.support.console import answer, bearer, made_token, served, settings_with
from tests.support.rows import make_row

Client = TestClient[Any, Any]
API: Final = "/api/v1"
NOW: Final = int(datetime.now(UTC).timestamp()) // 60 * 60 - 60
OPERATOR = made_token("operator")
MINE = made_token("advertiser:adv-1")
OTHERS = made_token("advertiser:adv-2")
AGENCY, SHOP, CREATOR = made_token("agency:ag-1"), made_token("shop:s-2"), made_token("creator:cr-1")
SECRET: Final = "SECRET-OF-ANOTHER"
OWNERS: Final = {
    "c1": {"advertiser_id": "adv-1", "agency_id": "ag-1", "settings": '{"creator_id": "cr-1"}'},
    "c2": {"advertiser_id": "adv-2", "agency_id": "ag-1", "settings": '{"shop_id": "s-2"}'},
    "c3": {"advertiser_id": "adv-1", "settings": '{"alerts": {"invalid_share_ppm": 123456}, "goal": "lead"}'},
}


def pane(**values: Any) -> Any:
    at = values.pop("at", NOW)
    return make_row(Table.PANES, origin_pane=at, effect_pane=at, **values)


async def fill(database: Database) -> None:
    for campaign, own in OWNERS.items():
        names = {"name": f"Name of {campaign} {SECRET if own['advertiser_id'] == 'adv-2' else ''}".strip()}
        row = make_row(Table.CAMPAIGNS, campaign_id=campaign, currency="CNY", time_zone="Asia/Shanghai", **own, **names)
        await database.fill(Table.CAMPAIGNS, row)
    clicks = {"input": "clicks"}
    await database.fill(
        Table.PANES,
        pane(campaign_id="c1", impressions=1000, spend_millimicros=2_000_500, judged=1000),
        pane(campaign_id="c1", clicks=30, validity="valid", **clicks),
        pane(campaign_id="c1", clicks=10, clicks_card=10, spend_millimicros=500_000, validity="givt", **clicks),
        pane(campaign_id="c1", credited_millimicros=100_000, input="journal"),
        pane(campaign_id="c1", impressions=7, at=NOW - 3 * 86_400),
        pane(campaign_id="c2", impressions=50, spend_millimicros=9_000_000),
        pane(campaign_id="c2", clicks=60, **clicks),
        pane(campaign_id="unknown", impressions=5, currency="USD", spend_millimicros=1_000),
    )
    minute = NOW - NOW % 60
    begins = minute - 7200
    for campaign in ("c1", "c2"):
        looked = {"campaign_id": campaign, "currency": "CNY", "period_start": begins, "period_end": begins + 86_400}
        money = {"budget_micros": 1000, "target_micros": 100, "spend_micros": 90, "rate_ppm": 500_000}
        rows = [make_row(Table.PACING, minute=minute - 60 * n, reason="behind", **looked, **money) for n in range(3)]
        await database.fill(Table.PACING, *rows)
    alert = {"began": NOW - 60, "seen": 1.0, "expected": 2.0, "cause": "cause"}
    await database.fill(
        Table.ALERTS,
        make_row(Table.ALERTS, alert_id="a1", campaign_id="c1", text_en="yours", changed=NOW, **alert),
        make_row(Table.ALERTS, alert_id="a2", campaign_id="c2", text_en=SECRET, changed=NOW - 1, **alert),
        make_row(Table.ALERTS, alert_id="a5", campaign_id="c1", text_en=SECRET, state="pending", **alert),
        make_row(Table.ALERTS, alert_id="a3", campaign_id="c1", audience="operations", text_en=SECRET, **alert),
        make_row(
            Table.ALERTS,
            alert_id="a4",
            campaign_id="",
            kind="input_silent",
            audience="operations",
            text_en=SECRET,
            **alert,
        ),
    )
    flags = [
        make_row(Table.FLAGS, event=f"{n:032x}", campaign_id="c1", decided=NOW, evidence='{"score": 9}', state="raised")
        for n in range(5)
    ]
    await database.fill(Table.FLAGS, *flags)
    entries = {"consumed": 10, "counted": 8, "duplicate": 2}
    await database.fill(Table.LEDGER, *(make_row(Table.LEDGER, entry=e, records=n) for e, n in entries.items()))


@pytest.fixture(scope="module")
def filled() -> Iterator[ClickHouseSettings]:
    """A database that is filled once. A test that adds to it looks at nothing that others count."""
    settings = new_settings()
    keeper = connect(settings)
    migrate(keeper)

    async def work() -> None:
        async with Database(settings) as database:
            await fill(database)

    asyncio.run(work())
    yield settings
    keeper.command(f"DROP DATABASE {keeper.database}")
    keeper.close()


@pytest.fixture
async def client(filled: ClickHouseSettings) -> AsyncIterator[Client]:
    tokens = (OPERATOR, MINE, OTHERS, AGENCY, SHOP, CREATOR)
    async with served(settings_with(*tokens, refresh_ms=60_000), filled) as served_client:
        yield served_client


# Figures


async def test_figures_of_a_campaign_are_exact(client: Client) -> None:
    found = await answer(client, f"{API}/campaigns/c1", OPERATOR)
    total, day = found["windows"]["total"], found["windows"]["day"]
    assert (total["impressions"], day["impressions"], total["clicks"]) == (1007, 1000, 30)
    assert (
        total["gross_spend_micros"] == total["spend_micros"] + total["credited_micros"] + total["invalid_spend_micros"]
    )
    assert (total["spend_micros"], total["credited_micros"], total["invalid_spend_micros"]) == (1901, 100, 500)
    rate = wilson(30, 1000)
    assert rate is not None
    assert day["ctr"] == {"value": rate.value, "low": rate.low, "high": rate.high}
    assert day["invalid"]["givt_clicks"] == 10
    assert day["invalid"]["click_share"]["value"] == 0.25
    assert day["is_provisional"]


async def test_a_ratio_over_zero_or_above_one_is_absent(client: Client) -> None:
    two = await answer(client, f"{API}/campaigns/c2", OPERATOR)
    three = await answer(client, f"{API}/campaigns/c3", OPERATOR)
    assert two["windows"]["total"]["ctr"] is None  # 60 clicks, 50 impressions
    assert three["windows"]["total"]["ctr"] is None
    assert three["windows"]["total"]["cvr"] is None
    assert three["windows"]["total"]["spend_micros"] == 0


async def test_days_are_those_of_the_campaigns_zone_and_old_ones_are_settled(client: Client) -> None:
    found = await answer(client, f"{API}/campaigns/c1/days", MINE)
    assert found["time_zone"] == "Asia/Shanghai"
    assert [each["figures"]["impressions"] for each in found["days"]] == [1000, 7]
    assert [each["figures"]["is_provisional"] for each in found["days"]] == [True, False]


def test_a_day_is_settled_a_whole_day_after_its_end() -> None:
    noon = int(datetime(2026, 11, 5, 4, tzinfo=UTC).timestamp())  # the 5th, 12:00 in Shanghai
    assert datetime.fromtimestamp(settled_before_s(noon, "Asia/Shanghai"), UTC) == datetime(2026, 11, 3, 16, tzinfo=UTC)
    assert day_start_s(noon, "Asia/Shanghai") == noon - 12 * 3600
    assert day_start_s(noon, "No/Where") == noon - 4 * 3600


async def test_minutes_and_the_curve_come_in_order(client: Client) -> None:
    minutes = await answer(client, f"{API}/campaigns/c1/minutes", MINE)
    assert [each["impressions"] for each in minutes["minutes"]] == [1000]
    pacing = await answer(client, f"{API}/campaigns/c1/pacing", OPERATOR)
    assert pacing["period"]["budget_micros"] == 1000
    times = [each["minute"] for each in pacing["points"]]
    assert len(times) == 3
    assert times == sorted(times)
    assert pacing["points"][0]["rate"] == 0.5
    nothing = await answer(client, f"{API}/campaigns/c3/pacing", OPERATOR)
    assert nothing == {"currency": "CNY", "time_zone": "Asia/Shanghai", "period": None, "points": []}


async def test_campaigns_that_only_events_know_are_listed_for_operators(client: Client) -> None:
    page = await answer(client, f"{API}/campaigns?window=total", OPERATOR)
    lines = {line["campaign_id"]: line for line in page["campaigns"]}
    assert lines.keys() == {"c1", "c2", "c3", "unknown"}
    assert (lines["unknown"]["currency"], lines["unknown"]["time_zone"]) == ("USD", "UTC")
    assert sum(lines["c1"]["spark"]["impressions"]) == 1000
    assert lines["c1"]["firing_alerts"] == 2
    assert lines["c1"]["pacing"]["status"]
    assert (await answer(client, f"{API}/campaigns/unknown", OPERATOR))["windows"]["total"]["impressions"] == 5


@pytest.mark.parametrize(
    ("sort", "order"), [("name", "asc"), ("spend", "desc"), ("conversions", "asc"), ("ctr", "asc"), ("invalid", "desc")]
)
async def test_pages_hold_every_campaign_once_in_any_order(client: Client, sort: str, order: str) -> None:
    query, seen, cursor = f"window=total&sort={sort}&order={order}", [], ""
    for _ in range(5):
        page = await answer(client, f"{API}/campaigns?{query}&limit=1{cursor}", OPERATOR)
        seen += [line["campaign_id"] for line in page["campaigns"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    whole = await answer(client, f"{API}/campaigns?{query}", OPERATOR)
    assert seen == [line["campaign_id"] for line in whole["campaigns"]]
    assert sorted(seen) == ["c1", "c2", "c3", "unknown"]


async def test_what_is_absent_comes_last_in_either_order(client: Client) -> None:
    for order in ("asc", "desc"):
        page = await answer(client, f"{API}/campaigns?window=total&sort=ctr&order={order}", OPERATOR)
        ratios = [line["figures"]["ctr"] for line in page["campaigns"]]
        assert [ratio is None for ratio in ratios] == sorted(ratio is None for ratio in ratios)


@pytest.mark.parametrize("text", ["%", "_", "'", "\\", "\n", "\t", "{x:String}", "') OR 1=1 --", "名", "\x00", "%s"])
async def test_a_search_is_a_text_whatever_it_holds(client: Client, text: str) -> None:
    async with client.get(f"{API}/campaigns", params={"search": text}, headers=bearer(OPERATOR)) as response:
        assert response.status == 200
        found = [line["campaign_id"] for line in (await response.json())["campaigns"]]
    assert found == (["unknown"] if text in "unknown" else []) or text in "Name of c1"


async def test_pages_of_alerts_and_flags_are_whole(client: Client) -> None:
    for path, field, key, total in (("alerts", "alerts", "alert_id", 5), ("flags", "flags", "event", 5)):
        seen, cursor = [], ""
        for _ in range(total):
            page = await answer(client, f"{API}/{path}?limit=2{cursor}", OPERATOR)
            seen += [each[key] for each in page[field]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert len(seen) == len(set(seen)) == total, path


async def test_the_ledger_balances_and_flags_carry_their_evidence(client: Client) -> None:
    ledger = await answer(client, f"{API}/ledger", OPERATOR)
    assert ledger["is_balanced"]
    assert ledger["lines"][0]["counted"] == 8
    flag = (await answer(client, f"{API}/flags?campaign_id=c1&rule=declared_bot&limit=1", OPERATOR))["flags"][0]
    assert flag["evidence"] == {"score": 9}
    counts = (await answer(client, f"{API}/campaigns/c1/invalid", OPERATOR))["rules"]
    assert counts == [{"rule": "declared_bot", "invalid_class": "givt", "mode": "on", "state": "raised", "flags": 5}]


async def test_an_advertiser_is_told_classes_of_reasons_by_day_and_no_rules(client: Client) -> None:
    """Five clicks have flags of a rule, on the day of the rows' events; ten are invalid today without one."""
    found = await answer(client, f"{API}/campaigns/c1/invalid", MINE)
    assert "rules" not in found
    told = [
        {name: each[name] for name in ("reason_class", "invalid_class", "impressions", "clicks", "is_provisional")}
        for each in found["reasons"]
    ]
    other = {"reason_class": "other", "invalid_class": "givt", "impressions": 0, "clicks": 10, "is_provisional": True}
    flagged = {"reason_class": "automated", "impressions": 5, "clicks": 0, "is_provisional": False}
    assert told == [other, other | flagged]
    assert found["reasons"][1]["text_en"] == "The traffic came from an automated program."
    assert found["reasons"][0]["text_zh"] == "计为无效流量，未逐条记录。"


# Scopes

PARTS: Final = ("", "/days", "/minutes", "/pacing", "/invalid")


@pytest.mark.parametrize(
    ("token", "campaigns"),
    [(MINE, {"c1", "c3"}), (OTHERS, {"c2"}), (AGENCY, {"c1", "c2"}), (SHOP, {"c2"}), (CREATOR, {"c1"})],
    ids=["advertiser", "another", "agency", "shop", "creator"],
)
async def test_a_scope_sees_its_own_campaigns_and_no_other(client: Client, token: Any, campaigns: set[str]) -> None:
    page = await answer(client, f"{API}/campaigns?window=total", token)
    assert {line["campaign_id"] for line in page["campaigns"]} == campaigns
    alerts = await answer(client, f"{API}/alerts", token)
    assert {alert["campaign_id"] for alert in alerts["alerts"]} <= campaigns
    for campaign in ("c1", "c2", "c3", "unknown", "nowhere"):
        for part in PARTS:
            async with client.get(f"{API}/campaigns/{campaign}{part}", headers=bearer(token)) as response:
                assert response.status == (200 if campaign in campaigns else 404), (campaign, part)


async def test_somebody_elses_campaign_is_as_absent_as_none(client: Client) -> None:
    for part in PARTS:
        bodies = []
        for campaign in ("c2", "nowhere"):
            async with client.get(f"{API}/campaigns/{campaign}{part}", headers=bearer(MINE)) as response:
                bodies.append(await response.read())
        assert bodies[0] == bodies[1]


async def test_no_path_filter_or_order_shows_what_is_somebody_elses(client: Client) -> None:
    paths = [f"campaigns?window={w}&sort={s}" for w, s in (("day", "name"), ("total", "spend"))]
    paths += ["campaigns?search=c2", f"campaigns?search={SECRET}", "campaigns?search=adv-2", "alerts?campaign_id=c2"]
    paths += ["alerts", "alerts?kind=input_silent", "alerts?state=firing", "campaigns/c1", "campaigns/c3"]
    paths += [f"campaigns/c1{part}" for part in PARTS] + ["campaigns/c2%00", "campaigns/c1%2F..%2Fc2", "campaigns/C2"]
    for path in paths:
        async with client.get(f"{API}/{path}", headers=bearer(MINE)) as response:
            text = await response.text()
            assert response.status in (200, 400, 404), path
            assert SECRET not in text, path
            assert "adv-2" not in text, path
            assert '"c2"' not in text, path


async def test_cursors_of_another_lead_into_ones_own_list_only(client: Client) -> None:
    page = await answer(client, f"{API}/campaigns?window=total&limit=1", OPERATOR)
    cursor = page["next_cursor"]
    own = await answer(client, f"{API}/campaigns?window=total&cursor={cursor}", MINE)
    assert {line["campaign_id"] for line in own["campaigns"]} <= {"c1", "c3"}


async def test_an_alert_that_may_never_fire_is_for_operators(client: Client) -> None:
    for token, of_all, waiting in ((OPERATOR, {"a1", "a2", "a3", "a4", "a5"}, {"a5"}), (MINE, {"a1"}, set())):
        for path, expected in (("alerts", of_all), ("alerts?state=pending", waiting)):
            found = (await answer(client, f"{API}/{path}", token))["alerts"]
            assert {alert["alert_id"] for alert in found} - {"new"} == expected


INTERNAL: Final = {"rate", "reason", "reason_text", "in_flight_micros", "note", "rules", "evidence", "seen", "expected"}
INTERNAL_TOO: Final = {"cause", "unit", "audience", "whole", "late", "duplicates", "judged", "gross_spend_micros"}


def names_in(document: Any) -> set[str]:
    if isinstance(document, dict):
        return set(document).union(*map(names_in, document.values()))
    return set().union(*map(names_in, document)) if isinstance(document, list) else set()


async def test_an_advertiser_sees_what_is_billed_and_nothing_internal(client: Client) -> None:
    for path in ("campaigns?window=total", "alerts", *(f"campaigns/c1{part}" for part in PARTS), "campaigns/c3"):
        found = await answer(client, f"{API}/{path}", MINE)
        assert not names_in(found) & (INTERNAL | INTERNAL_TOO), path
        assert "123456" not in json.dumps(found)
    operators = names_in(await answer(client, f"{API}/campaigns/c1/pacing", OPERATOR))
    assert operators & INTERNAL


# The stream


async def told(response: ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """The events of a stream, each with its name."""
    assert response.headers["Content-Type"] == "text/event-stream"
    name = ""
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


async def test_the_stream_tells_what_has_changed_and_new_alerts(filled: ClickHouseSettings) -> None:
    async with served(settings_with(OPERATOR), filled) as client:
        path = f"{API}/events?window=total"
        async with asyncio.timeout(30), client.get(path, headers=bearer(OPERATOR)) as response:
            found = told(response)
            assert {(await anext(found))[0], (await anext(found))[0]} == {"figures", "health"}
            async with Database(filled) as database:
                await database.fill(Table.PANES, pane(campaign_id="c3", impressions=11, partition=1))
                row = make_row(Table.ALERTS, alert_id="new", campaign_id="c3", changed=NOW + 5)
                await database.fill(Table.ALERTS, row)
            shown, alerts = set[int](), list[str]()
            while not alerts or 11 not in shown:
                name, document = await anext(found)
                if name == "alert":
                    alerts.append(document["alert_id"])
                elif name == "figures":
                    lines = {line["campaign_id"]: line for line in document["campaigns"]}
                    shown.add(lines["c3"]["figures"]["impressions"])
            assert alerts == ["new"]


async def test_the_stream_of_an_advertiser_holds_nothing_of_others(client: Client) -> None:
    async with asyncio.timeout(30), client.get(f"{API}/events", headers=bearer(MINE)) as response:
        name, page = await anext(told(response))
    assert name == "figures"
    assert {line["campaign_id"] for line in page["campaigns"]} == {"c1", "c3"}
    assert not names_in(page) & (INTERNAL | INTERNAL_TOO)


async def test_streams_are_bounded_and_closed_places_are_free_again(filled: ClickHouseSettings) -> None:
    async with served(settings_with(OPERATOR, max_streams=1), filled) as client:
        path, headers = f"{API}/events", bearer(OPERATOR)
        first = await client.get(path, headers=headers)
        await first.content.readline()
        async with client.get(path, headers=headers) as second:
            assert second.status == 503
            assert second.headers["Retry-After"]
        first.close()
        for _ in range(50):
            await asyncio.sleep(0.1)
            async with client.get(path, headers=headers) as again:
                if again.status == 200:
                    return
        pytest.fail("the place is still taken")


async def test_one_token_leaves_streams_to_the_others(filled: ClickHouseSettings) -> None:
    """A tenth each: whoever opens more is told so, and an operator still gets one."""
    async with served(settings_with(OPERATOR, MINE, max_streams=20), filled) as client:
        path = f"{API}/events"
        mine = [await client.get(path, headers=bearer(MINE)) for _ in range(2)]
        assert [response.status for response in mine] == [200, 200]
        async with client.get(path, headers=bearer(MINE)) as third:
            assert (third.status, third.content_type) == (429, "application/problem+json")
            assert int(third.headers["Retry-After"]) > 0
            problem = await third.json()
            assert (problem["status"], problem["title"]) == (429, "Too Many Requests")
            assert "streams" in problem["detail"]
        async with client.get(path, headers=bearer(OPERATOR)) as another:
            assert another.status == 200


async def test_without_tokens_this_machine_may_have_every_stream(filled: ClickHouseSettings) -> None:
    async with served(settings_with(max_streams=2), filled) as client:
        found = [await client.get(f"{API}/events") for _ in range(3)]
        assert [response.status for response in found] == [200, 200, 503]


async def test_an_open_stream_does_not_hold_up_a_shutdown(filled: ClickHouseSettings) -> None:
    async with asyncio.timeout(10):
        async with served(settings_with(OPERATOR), filled) as client:
            response = await client.get(f"{API}/events", headers=bearer(OPERATOR))
            await response.content.readline()
