"""Credits, pacing and alerts in the views, against numbers worked out by hand."""

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rich.console import Console

from streams.adapters.clickhouse_query import ClickHouseReader
from streams.commands.query import as_csv, as_json, as_table
from streams.records import Row, Table
from streams.settings import ClickHouseSettings
from streams.signals import RateReason
from tests.support.clickhouse_views import Database
from tests.support.rows import PANE_S, make_row

PANES, REPORTS, CAMPAIGNS = Table.PANES, Table.REPORTS, Table.CAMPAIGNS
DAY_S = PANE_S - PANE_S % 86_400
"""2026-09-21, midnight UTC."""
NOON_S = DAY_S + 12 * 3_600 - 60
"""The minute that ends at noon."""
SPENDING_VIEWS = ("campaign_totals", "campaign_days", "campaign_minutes")
TOLD_APART = "gross_spend_micros, spend_micros, credited_micros, invalid_spend_micros"


@pytest.fixture
async def database(migrated_settings: ClickHouseSettings) -> AsyncIterator[Database]:
    async with Database(migrated_settings) as opened:
        yield opened


def looked(**values: Any) -> Row:
    """A look at noon at a campaign whose even plan spends 1,000 micros a day, on plan unless told otherwise."""
    usual = {"minute": NOON_S, "budget_micros": 1_000, "target_micros": 500, "spend_micros": 500, "reason": "on_plan"}
    return make_row(Table.PACING, **{**usual, "gross_spend_micros": 500, **values})


# Credits


async def fill_both(database: Database, *rows: dict[str, Any]) -> None:
    """The same in both grains: views read either."""
    for values in rows:
        await database.fill(PANES, make_row(PANES, **values))
        await database.fill(REPORTS, make_row(REPORTS, pane_ms=60_000, **values))


@pytest.mark.parametrize("view", SPENDING_VIEWS)
async def test_gross_is_valid_credited_and_invalid(database: Database, view: str) -> None:
    await fill_both(
        database,
        {"spend_millimicros": 90_000, "impressions": 9},
        {"validity": "givt", "spend_millimicros": 10_000, "impressions": 1},
        {"input": "journal", "credited_millimicros": 30_000},
    )
    assert await database.one(f"SELECT {TOLD_APART} FROM {view}") == {
        "gross_spend_micros": 100,
        "spend_micros": 60,
        "credited_micros": 30,
        "invalid_spend_micros": 10,
    }


@pytest.mark.parametrize("view", SPENDING_VIEWS)
@pytest.mark.parametrize(
    ("valid", "credited", "invalid"),
    [(1_500, 500, 0), (1_400, 600, 0), (500, 0, 500), (499, 499, 499), (2_500, 2_500, 1), (0, 0, 0), (7_777, 1, 333)],
)
async def test_the_parts_sum_to_the_micro_however_they_are_rounded(
    database: Database, view: str, valid: int, credited: int, invalid: int
) -> None:
    await fill_both(
        database,
        {"spend_millimicros": valid, "impressions": 1},
        {"validity": "sivt", "spend_millimicros": invalid, "impressions": 1},
        {"input": "journal", "credited_millimicros": credited, "impressions": -1},
    )
    row = await database.one(f"SELECT {TOLD_APART} FROM {view}")
    gross, spend, back, bad = row.values()
    assert gross == spend + back + bad == (valid + invalid + 500) // 1_000
    assert spend == (valid - credited + 500) // 1_000
    for shown, exact in ((back, credited), (bad, invalid)):
        assert abs(shown - exact / 1_000) <= 1
        assert shown == 0 if exact == 0 else shown >= 0


async def test_a_credit_stands_under_its_campaigns_currency(database: Database) -> None:
    await database.fill(
        PANES,
        make_row(PANES, currency="CNY", spend_millimicros=9_000),
        make_row(PANES, currency="", input="journal", credited_millimicros=1_000),
    )
    rows = await database.ask("SELECT currency, credited_micros FROM campaign_totals ORDER BY currency")
    assert [tuple(row.values()) for row in rows] == [("", 1), ("CNY", 0)], "money without a currency is not adopted"


HUGE = 9 * 10**18
"""Thousandths of a micro in one row; two of them are more than 64 bits hold."""


@pytest.mark.parametrize("view", SPENDING_VIEWS)
async def test_spend_beyond_64_bits_of_thousandths_does_not_wrap(database: Database, view: str) -> None:
    await fill_both(
        database,
        {"spend_millimicros": HUGE},
        {"spend_millimicros": HUGE, "partition": 1},
        {"spend_millimicros": HUGE, "partition": 2, "validity": "sivt"},
        {"input": "journal", "credited_millimicros": HUGE},
    )
    row = await database.one(f"SELECT {TOLD_APART} FROM {view}")
    assert list(row.values()) == [3 * HUGE // 1_000, HUGE // 1_000, HUGE // 1_000, HUGE // 1_000]


@pytest.mark.parametrize("view", SPENDING_VIEWS)
async def test_every_format_shows_huge_spend_as_a_whole_number(
    migrated_settings: ClickHouseSettings,
    view: str,
) -> None:
    async with Database(migrated_settings) as database:
        await fill_both(database, {"spend_millimicros": HUGE}, {"spend_millimicros": HUGE, "partition": 1})
    reader = ClickHouseReader(migrated_settings)
    result = await reader.query(f"SELECT spend_micros, gross_spend_micros FROM {view}")
    await reader.close()
    expected = 2 * HUGE // 1_000
    assert result.types == ("Int64", "Int64")
    assert json.loads("".join(as_json(result))) == [{"spend_micros": expected, "gross_spend_micros": expected}]
    assert list(csv.reader(io.StringIO("".join(as_csv(result)))))[1] == [str(expected)] * 2
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(as_table(result, console))
    assert console.export_text().count(str(expected)) == 2


# Pacing


async def test_a_period_is_shown_as_it_was_looked_at_last(database: Database) -> None:
    await database.fill(CAMPAIGNS, make_row(CAMPAIGNS, name="Spring", advertiser_id="a1", time_zone="Asia/Shanghai"))
    await database.fill(
        Table.PACING,
        looked(minute=NOON_S - 60, spend_micros=1, forecast_micros=999, version=1),
        looked(spend_micros=2, version=2),
        looked(spend_micros=490, gross_spend_micros=510, credited_micros=20, in_flight_micros=3, version=3),
        looked(spend_micros=3, version=1),  # superseded, and inserted later
    )
    row = await database.one("SELECT * FROM campaign_pacing")
    told = {
        "campaign_name": "Spring",
        "advertiser_id": "a1",
        "currency": "CNY",
        "time_zone": "Asia/Shanghai",
        "period_kind": "day",
        "period_start": "2026-09-21 00:00:00",
        "period_end": "2026-09-22 00:00:00",
        "minute": "2026-09-21 11:59:00",
        "is_current": True,
        "status": "on_pace",
        "note": "",
        "gross_spend_micros": 510,
        "credited_micros": 20,
        "spend_micros": 490,
        "in_flight_micros": 3,
        "forecast_micros": None,
        "exhausts_at": None,
        "rate": 1,
        "reason_text": "spend is on plan",
    }
    assert {name: row[name] for name in told} == told
    assert row["elapsed_share"] == 0.5
    assert row["is_current"] is True
    assert [row[name] for name in ("spent_share", "progress", "osi", "off_plan_points")] == pytest.approx(
        [0.49, 0.98, 0.98, -1.0]
    )


async def test_periods_stay_apart_and_the_latest_is_current(database: Database) -> None:
    next_day = {"period_start": DAY_S + 86_400, "period_end": DAY_S + 2 * 86_400, "minute": DAY_S + 86_400}
    await database.fill(
        Table.PACING,
        looked(spend_micros=990),
        looked(**next_day, spend_micros=5),
        looked(campaign_id="c2", spend_micros=7),
    )
    rows = await database.ask("SELECT campaign_id, is_current, spend_micros FROM campaign_pacing ORDER BY ALL")
    assert [tuple(row.values()) for row in rows] == [("c1", False, 990), ("c1", True, 5), ("c2", True, 7)]


async def test_the_state_of_a_period_is_that_of_its_newest_minute_whatever_is_inserted_again(
    database: Database,
) -> None:
    looks = [looked(minute=NOON_S + 60 * at, spend_micros=100 * at, version=at) for at in (1, 2, 3)]
    await database.fill(Table.PACING, looks[2], looks[0], looks[1], looks[2], looks[0])
    joined = """
        SELECT p.spend_micros AS shown, m.spend_micros AS newest FROM campaign_pacing AS p
        INNER JOIN (SELECT * FROM campaign_pacing_minutes ORDER BY minute DESC LIMIT 1) AS m ON m.minute = p.minute"""
    assert await database.one(joined) == {"shown": 300, "newest": 300}
    database.command("OPTIMIZE TABLE pacing_periods FINAL")
    assert await database.one(joined) == {"shown": 300, "newest": 300}
    assert (await database.one("SELECT count() AS n FROM pacing_periods"))["n"] == 1


async def test_a_later_log_epoch_is_what_holds_even_at_an_earlier_minute(database: Database) -> None:
    await database.fill(
        Table.PACING,
        looked(log_epoch=1, minute=NOON_S - 600, spend_micros=20, version=1),
        looked(log_epoch=0, spend_micros=500, version=9),
        looked(log_epoch=0, minute=NOON_S - 600, spend_micros=400, version=8),
    )
    assert (await database.one("SELECT spend_micros FROM campaign_pacing"))["spend_micros"] == 20
    minutes = await database.ask("SELECT spend_micros FROM campaign_pacing_minutes ORDER BY minute")
    assert [row["spend_micros"] for row in minutes] == [20, 500]


@pytest.mark.parametrize(
    ("spend", "reason", "status"),
    [
        (480, "behind", "on_pace"),
        (520, "ahead", "on_pace"),
        (479, "behind", "behind"),
        (450, "behind", "behind"),
        (449, "behind", "well_behind"),
        (400, "behind", "well_behind"),
        (399, "closing", "far_behind"),
        (521, "allowance", "ahead"),
        (551, "ahead", "well_ahead"),
        (601, "ahead", "far_ahead"),
        (1_000, "exhausted", "exhausted"),
        (0, "not_started", "not_started"),
        (0, "ended", "ended"),
        (0, "as_soon_as_possible", "as_soon_as_possible"),
        (500, "unknown_input", "unknown"),
        (500, "unpaced", "unpaced"),
    ],
)
async def test_status_follows_the_points_between_spend_and_plan(
    database: Database, spend: int, reason: str, status: str
) -> None:
    await database.fill(Table.PACING, looked(spend_micros=spend, reason=reason))
    assert (await database.one("SELECT status FROM campaign_pacing"))["status"] == status


async def test_a_campaign_that_nothing_limits_any_more_has_no_current_period(database: Database) -> None:
    last = {"minute": NOON_S + 60, "reason": "unpaced", "budget_micros": 0, "target_micros": 0, "version": 2}
    await database.fill(
        Table.PACING,
        looked(reason="exhausted"),
        looked(**last),
        looked(campaign_id="c2", period_start=DAY_S - 86_400, period_end=DAY_S, minute=NOON_S - 86_400),
        looked(campaign_id="c2", **last),
        looked(campaign_id="c3", **last),
        looked(campaign_id="c3", minute=NOON_S + 120, version=3),
    )
    rows = await database.ask("SELECT campaign_id FROM campaign_pacing WHERE is_current")
    assert [row["campaign_id"] for row in rows] == ["c3"]


async def test_what_is_owed_back_for_billing_is_shown_as_it_was_told_last(database: Database) -> None:
    await database.fill(
        Table.PACING,
        looked(excess_credit_micros=5, closed_credit_micros=2, version=1),
        looked(minute=NOON_S + 60, excess_credit_micros=12, closed_credit_micros=3, version=2),
    )
    row = await database.one("SELECT excess_credit_micros, closed_credit_micros FROM campaign_pacing")
    assert row == {"excess_credit_micros": 12, "closed_credit_micros": 3}


async def test_a_ratio_over_zero_and_an_open_period_are_null(database: Database) -> None:
    open_ends = {"period_kind": "flight", "period_start": 0, "period_end": 4_102_444_800}
    await database.fill(
        Table.PACING,
        looked(**open_ends, spend_micros=2_000),
        looked(campaign_id="c2", budget_micros=0, target_micros=0),
    )
    rows = await database.ask("SELECT * FROM campaign_pacing ORDER BY campaign_id")
    flight, broke = rows
    assert [flight[name] for name in ("period_start", "period_end", "elapsed_share", "progress")] == [None] * 4
    assert flight["spent_share"] == 2
    assert flight["note"] == "an open period: no share of its time; spend exceeds the budget"
    assert [broke[name] for name in ("spent_share", "off_plan_points", "progress", "osi")] == [None] * 4
    assert (broke["status"], broke["elapsed_share"]) == ("unknown", 0.5)


async def test_spend_without_a_budget_exceeds_none(database: Database) -> None:
    about = {"reason": "as_soon_as_possible", "spend_micros": 4_000, "gross_spend_micros": 4_000}
    await database.fill(Table.PACING, looked(budget_micros=0, target_micros=0, **about))
    (row,) = await database.ask("SELECT * FROM campaign_pacing")
    assert (row["status"], row["note"]) == ("as_soon_as_possible", "no budget: nothing to compare with")


async def test_every_reason_of_a_rate_has_words(database: Database) -> None:
    for reason in RateReason:
        await database.fill(Table.PACING, looked(campaign_id=reason.value, reason=reason.value))
    rows = await database.ask("SELECT reason, reason_text FROM campaign_pacing")
    words = {row["reason"]: row["reason_text"] for row in rows}
    assert words.keys() == set(RateReason)
    assert [reason for reason, text in words.items() if " " not in text] == []


async def test_a_periods_history_keeps_what_was_known_then(database: Database) -> None:
    await database.fill(
        Table.PACING,
        looked(minute=NOON_S - 60, rate_ppm=250_000, forecast_micros=900, exhausts_at=NOON_S, version=1),
        looked(minute=NOON_S, rate_ppm=500_000, forecast_micros=None, version=2),
    )
    rows = await database.ask(
        "SELECT minute, rate, forecast_micros, exhausts_at FROM campaign_pacing_minutes ORDER BY minute"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("2026-09-21 11:58:00", 0.25, 900, "2026-09-21 11:59:00"),
        ("2026-09-21 11:59:00", 0.5, None, None),
    ]


@pytest.mark.parametrize("view", ["campaign_pacing", "campaign_pacing_minutes"])
async def test_one_campaign_is_found_by_the_index(database: Database, view: str) -> None:
    await database.fill(Table.PACING, looked(campaign_id="c1"), looked(campaign_id="c2"))
    rows = await database.ask(f"EXPLAIN indexes = 1 SELECT * FROM {view} WHERE campaign_id = 'c1'")
    plan = "\n".join(row["explain"] for row in rows)
    assert "campaign_id in ['c1', 'c1']" in plan


# Alerts


async def test_an_alert_is_shown_in_its_latest_state(database: Database) -> None:
    await database.fill(CAMPAIGNS, make_row(CAMPAIGNS, name="Spring", time_zone="Asia/Shanghai"))
    texts = {"text_en": "“Spring” has stalled.", "text_zh": "“Spring”投放停滞。"}
    await database.fill(
        Table.ALERTS,
        make_row(Table.ALERTS, **texts, seen=7.0, version=1),
        make_row(Table.ALERTS, **texts, state="resolved", changed=PANE_S + 90, version=3),
        make_row(Table.ALERTS, **texts, changed=PANE_S + 60, version=2),  # superseded, and inserted later
        make_row(Table.ALERTS, alert_id="a2", kind="exhausted", version=2),
    )
    resolved, firing = await database.ask("SELECT * FROM alerts ORDER BY alert_id")
    told = {
        "state": "resolved",
        "campaign_name": "Spring",
        "time_zone": "Asia/Shanghai",
        "seen": None,
        **texts,
        "began": "2026-09-21 14:13:20",
        "changed": "2026-09-21 14:14:50",
        "duration_ms": 90_000,
    }
    assert {name: resolved[name] for name in told} == told
    assert (firing["state"], firing["kind"], firing["duration_ms"]) == ("firing", "exhausted", None)


async def test_what_had_not_resolved_when_the_log_was_created_anew_is_lost(database: Database) -> None:
    await database.fill(Table.LEDGER, make_row(Table.LEDGER, log_epoch=1, records=1))
    await database.fill(
        Table.ALERTS,
        make_row(Table.ALERTS, alert_id="a1"),
        make_row(Table.ALERTS, alert_id="a2", state="resolved"),
        make_row(Table.ALERTS, alert_id="a3", state="resolved"),
        make_row(Table.ALERTS, alert_id="a3", log_epoch=1),
    )
    rows = await database.ask("SELECT alert_id, state FROM alerts ORDER BY alert_id")
    assert [tuple(row.values()) for row in rows] == [("a1", "lost"), ("a2", "resolved"), ("a3", "firing")]
