"""Each view against numbers worked out by hand, over rows with superseded versions, partitions and effect panes."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from streams.commands.reconcile import BILLED_BY_TERMS
from streams.records import Table
from streams.settings import ClickHouseSettings
from streams.stages.rates import wilson
from tests.support.chdb_engine import empty_tables
from tests.support.clickhouse_views import Database
from tests.support.rows import PANE_S, make_row

PANES, REPORTS, CAMPAIGNS, LEDGER = Table.PANES, Table.REPORTS, Table.CAMPAIGNS, Table.LEDGER


@pytest.fixture
async def database(migrated_settings: ClickHouseSettings) -> AsyncIterator[Database]:
    async with Database(migrated_settings) as opened:
        yield opened


def epoch_s(text: str) -> int:
    """`2026-11-01 04:30` UTC as epoch s."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


async def test_totals_add_partitions_and_effect_panes_and_take_the_highest_version(database: Database) -> None:
    await database.fill(
        PANES,
        make_row(PANES, impressions=90, version=2),
        make_row(PANES, impressions=10, version=1),  # superseded, and inserted later
        make_row(PANES, partition=1, impressions=7),
        make_row(PANES, effect_pane=PANE_S + 10, impressions=3),  # late within the lateness
        make_row(PANES, log_epoch=1, impressions=1),
        make_row(PANES, input="clicks", clicks=6, version=1),
        make_row(PANES, input="clicks", clicks=5, version=2),
        make_row(PANES, input="clicks", origin_pane=PANE_S - 60, creative_id="k2", clicks=2, duplicates=4, late=1),
        make_row(PANES, campaign_id="c2", impressions=1000),
    )
    row = await database.one("SELECT * FROM campaign_totals WHERE campaign_id = 'c1'")
    assert (row["impressions"], row["clicks"], row["duplicates"], row["late"]) == (101, 7, 4, 1)
    assert row["ctr"] == pytest.approx(7 / 101)
    assert (row["first_pane"], row["last_pane"]) == ("2026-09-21 14:12:20", "2026-09-21 14:13:20")
    assert row["note"] == ""


async def test_campaigns_that_are_billed_by_terms_are_told_apart(database: Database) -> None:
    """Their spend is not in event logs, so `reconcile --mapping` leaves it out."""
    for campaign, billing in (("none", ""), ("own", '{"model":"clearing_price"}'), ("terms", '{"model":"cpc"}')):
        settings = f'{{"billing":{billing}}}' if billing else "{}"
        await database.fill(CAMPAIGNS, make_row(CAMPAIGNS, campaign_id=campaign, settings=settings))
    assert [row["campaign_id"] for row in await database.ask(BILLED_BY_TERMS)] == ["terms"]


async def test_merging_the_parts_changes_nothing(database: Database) -> None:
    await database.fill(PANES, *(make_row(PANES, impressions=version, version=version) for version in (3, 5, 4)))
    before = await database.ask("SELECT * FROM campaign_totals")
    database.command("OPTIMIZE TABLE pane_rows FINAL")
    assert await database.ask("SELECT * FROM campaign_totals") == before
    assert before[0]["impressions"] == 5


async def test_a_ratio_over_zero_is_null(database: Database) -> None:
    await database.fill(PANES, make_row(PANES, input="plays", plays_started=3))
    row = await database.one("SELECT * FROM campaign_totals")
    assert [row[name] for name in ("ctr", "ctr_low", "ctr_high", "cvr", "viewable_rate", "gross_ctr")] == [None] * 6
    assert row["play_3s_rate"] == 0


@pytest.mark.parametrize(("clicks", "impressions"), [(0, 10), (10, 10), (3, 1000), (1, 1), (123_456, 7_890_123)])
async def test_intervals_are_wilsons(database: Database, clicks: int, impressions: int) -> None:
    await database.fill(PANES, make_row(PANES, impressions=impressions), make_row(PANES, input="clicks", clicks=clicks))
    row = await database.one("SELECT ctr, ctr_low, ctr_high FROM campaign_totals")
    expected = wilson(clicks, impressions)
    assert expected is not None
    assert [row["ctr"], row["ctr_low"], row["ctr_high"]] == pytest.approx(
        [expected.value, expected.low, expected.high], rel=1e-12, abs=1e-15
    )


async def test_gross_is_valid_and_invalid_and_a_label_moves_a_click_from_one_to_the_other(database: Database) -> None:
    await database.fill(
        PANES,
        make_row(PANES, impressions=100, spend_millimicros=5_000),
        make_row(PANES, validity="givt", impressions=10, spend_millimicros=500),
        make_row(PANES, input="clicks", clicks=8),
        make_row(PANES, input="journal", clicks=-3),  # labelled later: taken from the valid ones
        make_row(PANES, input="journal", validity="sivt", clicks=3),
    )
    row = await database.one("SELECT * FROM campaign_totals")
    assert (row["impressions"], row["gross_impressions"]) == (100, 110)
    assert (row["clicks"], row["gross_clicks"]) == (5, 8)
    assert (row["ctr"], row["gross_ctr"]) == (pytest.approx(5 / 100), pytest.approx(8 / 110))
    assert (row["spend_micros"], row["gross_spend_micros"]) == (5, 6)  # 5.5 is rounded up


async def test_spend_is_rounded_once(database: Database) -> None:
    await database.fill(PANES, *(make_row(PANES, partition=at, spend_millimicros=400) for at in range(3)))
    await database.fill(PANES, make_row(PANES, campaign_id="c2", spend_millimicros=-1_500))
    rows = await database.ask("SELECT spend_micros FROM campaign_totals ORDER BY campaign_id")
    assert [row["spend_micros"] for row in rows] == [1, -2]


async def test_currencies_are_never_summed(database: Database) -> None:
    await database.fill(
        PANES,
        make_row(PANES, currency="CNY", spend_millimicros=1_000, impressions=1),
        make_row(PANES, currency="USD", spend_millimicros=2_000, impressions=2),
        make_row(PANES, currency="", input="clicks", clicks=3),
    )
    rows = await database.ask("SELECT currency, spend_micros, clicks, note FROM campaign_totals ORDER BY currency")
    assert [(row["currency"], row["spend_micros"], row["clicks"]) for row in rows] == [
        ("", 0, 3),
        ("CNY", 1, 0),
        ("USD", 2, 0),
    ]
    assert rows[0]["note"] == "events that named no currency"


async def test_events_without_money_are_shown_under_their_campaigns_one_currency(database: Database) -> None:
    await database.fill(
        PANES,
        make_row(PANES, currency="CNY", impressions=10, spend_millimicros=7_000),
        make_row(PANES, currency="", input="clicks", clicks=2),
    )
    row = await database.one("SELECT * FROM campaign_totals")
    assert (row["currency"], row["ctr"], row["spend_micros"]) == ("CNY", 0.2, 7)


async def test_a_rate_above_one_is_null_and_noted(database: Database) -> None:
    await database.fill(
        PANES,
        make_row(PANES, input="clicks", clicks=1),
        make_row(PANES, input="conversions", conversions=2, orders=2, view_through_conversions=1),
    )
    row = await database.one("SELECT * FROM campaign_totals")
    assert (row["conversions"], row["clicks"], row["cvr"], row["cvr_high"]) == (2, 1, None, None)
    assert "more conversions than clicks" in row["note"]


async def test_net_value_goes_by_order_date_and_by_adjustment_date(database: Database) -> None:
    monday, tuesday = epoch_s("2026-09-21 10:00"), epoch_s("2026-09-22 10:00")
    at = {"effect_pane": tuesday}
    await database.fill(
        PANES,
        make_row(PANES, **at, input="conversions", origin_pane=monday, orders=2, ordered_value_micros=300),
        make_row(PANES, **at, input="conversions", origin_pane=monday, validity="givt", ordered_value_micros=40),
        make_row(PANES, **at, input="conversions", origin_pane=tuesday, paid_orders=1, paid_value_micros=100),
        make_row(PANES, **at, input="adjustments", origin_pane=tuesday, refunds=1, adjusted_micros=-100),
        make_row(PANES, **at, input="adjustments", origin_pane=monday, adjusted_by_order_micros=-100),
    )
    days = await database.ask("SELECT * FROM campaign_days ORDER BY day")
    shown = ("ordered_value_micros", "paid_value_micros", "net_value_by_order_micros", "net_value_by_adjustment_micros")
    assert [[day[name] for name in shown] for day in days] == [[300, 0, 200, 300], [0, 100, 0, -100]]
    total = await database.one("SELECT * FROM campaign_totals")
    assert [total[name] for name in shown] == [300, 100, 200, 200]
    assert total["gross_ordered_value_micros"] == 340


async def test_a_day_is_the_campaigns_own_and_25_hours_long_when_clocks_go_back(database: Database) -> None:
    await database.fill(CAMPAIGNS, make_row(CAMPAIGNS, campaign_id="ny", time_zone="America/New_York"))
    times = ["2026-11-01 03:59", "2026-11-01 04:00", "2026-11-02 04:59", "2026-11-02 05:00"]
    await database.fill(
        PANES,
        *(
            make_row(PANES, campaign_id="ny", origin_pane=epoch_s(text), impressions=10**at)
            for at, text in enumerate(times)
        ),
    )
    days = await database.ask("SELECT day, time_zone, impressions FROM campaign_days ORDER BY day")
    assert [(day["day"], day["impressions"]) for day in days] == [
        ("2026-10-31", 1),
        ("2026-11-01", 110),
        ("2026-11-02", 1000),
    ]
    assert {day["time_zone"] for day in days} == {"America/New_York"}


async def test_a_day_is_utc_where_the_time_zone_is_unknown(database: Database) -> None:
    await database.fill(CAMPAIGNS, make_row(CAMPAIGNS, campaign_id="sh", time_zone="Asia/Shanghai"))
    late = epoch_s("2026-09-21 16:00")
    for campaign in ("sh", "unknown"):
        await database.fill(PANES, make_row(PANES, campaign_id=campaign, origin_pane=late, impressions=1))
    days = await database.ask("SELECT campaign_id, day, time_zone FROM campaign_days ORDER BY campaign_id")
    assert [tuple(day.values()) for day in days] == [
        ("sh", "2026-09-22", "Asia/Shanghai"),
        ("unknown", "2026-09-21", "UTC"),
    ]


async def test_the_settings_that_hold_now_are_shown(database: Database) -> None:
    future = 4_000_000_000_000
    await database.fill(
        CAMPAIGNS,
        make_row(CAMPAIGNS, name="first", valid_from=1_000, version=1),
        make_row(CAMPAIGNS, name="second, wrong", valid_from=2_000, version=2),
        make_row(CAMPAIGNS, name="second", valid_from=2_000, version=3),
        make_row(CAMPAIGNS, name="to come", valid_from=future, version=4),
        make_row(CAMPAIGNS, campaign_id="c2", name="begins", valid_from=future, version=5),
        make_row(CAMPAIGNS, campaign_id="c2", name="goes on", valid_from=future + 1, version=6),
    )
    rows = await database.ask("SELECT campaign_id, name FROM campaigns ORDER BY campaign_id")
    assert [tuple(row.values()) for row in rows] == [("c1", "second"), ("c2", "begins")]
    await database.fill(PANES, make_row(PANES, impressions=1))
    assert (await database.one("SELECT campaign_name FROM campaign_totals"))["campaign_name"] == "second"


async def test_the_ledger_balances(database: Database) -> None:
    entries = [
        ("consumed", "", 100, 2),
        ("consumed", "", 60, 1),
        ("counted", "", 80, 1),
        ("duplicate", "", 5, 1),
        ("late", "", 4, 1),
        ("rejected", "too_deep", 3, 1),
        ("rejected", "future", 2, 1),
        ("lost_retention", "", 5, 1),
        ("no_record", "", 1, 1),
    ]
    for entry, reason, records, version in entries:
        row = make_row(LEDGER, input="clicks", entry=entry, reason=reason, records=records, version=version)
        await database.fill(LEDGER, row)
    await database.fill(LEDGER, make_row(LEDGER, input="plays", entry="consumed", records=9))
    rows = await database.ask("SELECT * FROM ledger ORDER BY input")
    assert rows[0]["rejected_by_reason"] == {"future": 2, "too_deep": 3}
    shown = ("consumed", "counted", "duplicate", "late", "rejected", "lost_retention", "no_record", "balance")
    assert [rows[0][name] for name in shown] == [100, 80, 5, 4, 5, 5, 1, 0]
    assert rows[1]["balance"] == 9


async def test_what_has_left_the_decision_grain_counts_from_the_report_grain_and_nothing_counts_twice(
    chdb_settings: ClickHouseSettings,
) -> None:
    minute = PANE_S - PANE_S % 60
    empty_tables(chdb_settings)
    async with Database(chdb_settings) as database:
        written_days_ago(database, 36)
        first = make_row(REPORTS, pane_ms=60_000, origin_pane=minute, effect_pane=minute, impressions=10)
        await database.fill(REPORTS, first)
        await database.fill(PANES, make_row(PANES, origin_pane=minute, effect_pane=minute + 50, impressions=10))
        written_days_ago(database, 0)
        await database.fill(PANES, make_row(PANES, origin_pane=minute, effect_pane=minute + 110, impressions=1))
        await database.fill(REPORTS, make_row(REPORTS, pane_ms=60_000, effect_pane=minute + 60, impressions=6))
        await database.fill(PANES, make_row(PANES, effect_pane=minute + 60, impressions=5))
        totals = "SELECT impressions FROM campaign_totals"
        assert (await database.one(totals))["impressions"] == 16
        database.command("OPTIMIZE TABLE pane_rows FINAL")
        assert (await database.one("SELECT count() AS n FROM pane_rows"))["n"] == 2, "the first row has expired"
        assert (await database.one(totals))["impressions"] == 16


def written_days_ago(database: Database, days: int) -> None:
    """Rows inserted from now on count as written then."""
    for table in (PANES, REPORTS):
        change = f"written_at DateTime('UTC') MATERIALIZED now() - INTERVAL {days} DAY"
        database.command(f"ALTER TABLE {table.value} MODIFY COLUMN {change}")


async def test_a_log_of_long_ago_stays(database: Database) -> None:
    await database.fill(PANES, make_row(PANES, origin_pane=1_370_000_000, effect_pane=1_370_000_000, impressions=3))
    database.command("OPTIMIZE TABLE pane_rows FINAL")
    assert (await database.one("SELECT impressions FROM campaign_totals"))["impressions"] == 3
