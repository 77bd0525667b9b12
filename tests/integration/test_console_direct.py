"""Who reads ClickHouse itself has views of the own campaigns, with what the console shows and nothing else."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from streams.adapters.clickhouse import connect
from streams.adapters.clickhouse_migrations import migrate
from streams.console.access import parse_scopes
from streams.console.direct import VIEWS, direct_access_sql
from streams.console.figures import DAY_S, day_start_s, settled_before_s
from streams.errors import ConfigurationError
from streams.records import Table
from tests.integration.test_console_api import INTERNAL, INTERNAL_TOO, NOW, SECRET, fill, pane
from tests.support.chdb_engine import new_settings
from tests.support.clickhouse_views import Database
from tests.support.rows import make_row

READER: Final = "reader_1"
ZONES: Final = {"east": "Pacific/Kiritimati", "west": "Pacific/Pago_Pago"}
"""The first and the last to begin a day: 25 hours apart."""
DAYS: Final = 5
RIGHTS: Final = ("CREATE ROLE", "GRANT")
"""Statements that the embedded engine does not know."""


async def fill_days(database: Database) -> None:
    """Campaigns at both ends of the earth, an old one, and alerts that never fired."""
    for campaign, zone in (*ZONES.items(), ("old", "UTC")):
        named = {"campaign_id": campaign, "advertiser_id": "adv-1", "currency": "CNY", "time_zone": zone}
        await database.fill(Table.CAMPAIGNS, make_row(Table.CAMPAIGNS, **named))
    days = range(DAYS)
    await database.fill(
        Table.PANES,
        *(pane(campaign_id=campaign, impressions=1, at=NOW - day * DAY_S) for campaign in ZONES for day in days),
        pane(campaign_id="old", impressions=1, at=NOW - 9 * DAY_S),
    )
    alert = {"campaign_id": "c1", "text_en": SECRET, "began": NOW - 60, "changed": NOW}
    await database.fill(Table.LEDGER, make_row(Table.LEDGER, log_epoch=2, entry="consumed"))
    await database.fill(
        Table.ALERTS,
        make_row(Table.ALERTS, alert_id="lost-pending", state="pending", log_epoch=1, **alert),
        make_row(Table.ALERTS, alert_id="lost-firing", state="firing", log_epoch=1, **alert | {"text_en": "yours"}),
    )


@pytest.fixture(scope="module")
def reader() -> Iterator[Any]:
    """A connection, with the views of an advertiser and a shop: the statements as they are printed, but for rights."""
    settings = new_settings()
    keeper = connect(settings)
    migrate(keeper)

    async def work() -> None:
        async with Database(settings) as database:
            await fill(database)
            await fill_days(database)

    asyncio.run(work())
    statements = direct_access_sql(keeper.database, READER, parse_scopes(("advertiser:adv-1", "shop:o'\\x")))
    for statement in statements:
        if not statement.startswith(RIGHTS):
            keeper.command(statement)
    yield keeper
    for database in (READER, keeper.database):
        keeper.command(f"DROP DATABASE {database}")
    keeper.close()


def test_a_reader_has_a_right_on_its_own_views_alone() -> None:
    """The embedded engine has no roles: that the role gets nothing else is read off the statements."""
    statements = direct_access_sql("campaign_streams", READER, parse_scopes(("advertiser:adv-1",)))
    rights = [each for each in statements if each.startswith(RIGHTS)]
    assert rights == [f"CREATE ROLE IF NOT EXISTS {READER}", f"GRANT SELECT ON {READER}.* TO {READER}"]


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_a_reader_sees_its_own_campaigns_and_nothing_internal(view: str, reader: Any) -> None:
    found = reader.query(f"SELECT campaign_id, * FROM {READER}.{view}")
    campaigns = {row[0] for row in found.result_rows}
    assert campaigns
    assert campaigns <= {"c1", "c3", "old", *ZONES}
    assert SECRET not in str(found.result_rows)
    assert not set(found.column_names) & (INTERNAL | INTERNAL_TOO)


def test_alerts_that_may_never_fire_are_not_there(reader: Any) -> None:
    found = reader.query(f"SELECT alert_id, state FROM {READER}.alerts ORDER BY alert_id").result_rows
    assert found == [("a1", "lost"), ("lost-firing", "lost")]


def test_days_are_provisional_as_in_the_console(reader: Any) -> None:
    """T+1 of each campaign's own zone."""
    for view in ("campaign_days", "invalid_traffic"):
        for campaign, zone in ZONES.items():
            sql = f"SELECT day, is_provisional FROM {READER}.{view} WHERE campaign_id = '{campaign}' ORDER BY day DESC"
            found = reader.query(sql).result_rows
            settled_s = settled_before_s(int(time.time()), zone)
            begins = [day_start_s(NOW - day * DAY_S, zone) for day in range(DAYS)]
            assert [is_provisional for _, is_provisional in found] == [begin >= settled_s for begin in begins], zone
            assert [is_provisional for _, is_provisional in found][:2] == [True, True]
            assert not found[-1][1]


def test_a_total_is_provisional_while_a_day_of_it_is(reader: Any) -> None:
    found = reader.query(f"SELECT campaign_id, is_provisional FROM {READER}.campaign_totals").result_rows
    assert dict(found) == {"c1": True, "east": True, "west": True, "old": False}


def test_invalid_traffic_is_told_by_class_and_without_what_is_internal(reader: Any) -> None:
    """No rules or evidence; and no gross spend, nor what would give it."""
    sql = f"SELECT clicks, givt_clicks, sivt_clicks, invalid_click_share FROM {READER}.invalid_traffic"
    assert reader.query(f"{sql} WHERE campaign_id = 'c1' ORDER BY day DESC LIMIT 1").result_rows == [(30, 10, 0, 0.25)]
    columns = set(reader.query(f"SELECT * FROM {READER}.invalid_traffic").column_names)
    internal = {"gross_spend_micros", "givt_spend_micros", "sivt_spend_micros", "invalid_spend_share", "decision_rate"}
    assert not columns & (internal | {"note", "rule", "evidence", "reviewer"})


@pytest.mark.parametrize(("reader_name", "scope"), [("Reader", "shop:s"), ("a b", "shop:s"), ("reader", "operator")])
def test_a_reader_needs_a_plain_name_and_a_scope(reader_name: str, scope: str) -> None:
    with pytest.raises(ConfigurationError):
        direct_access_sql("campaign_streams", reader_name, parse_scopes((scope,)))
