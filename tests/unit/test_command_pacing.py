"""`pacing show` and `pacing list` over real rows in the embedded engine."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from streams.commands import asking, pacing
from streams.errors import ConfigurationError
from streams.records import Row, Table
from streams.settings import ClickHouseSettings
from tests.support.asking import ReaderAsker, asked_database
from tests.support.clickhouse_views import Database
from tests.support.rows import make_row

M = 10**6
START_S = int(datetime(2026, 9, 20, 16, tzinfo=UTC).timestamp())
"""Midnight of 21 September in Shanghai."""


@pytest.fixture
async def database(
    migrated_settings: ClickHouseSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Database]:
    async with asked_database(migrated_settings, monkeypatch) as opened:
        yield opened


def look(minute: int, **values: Any) -> Row:
    """A look at a campaign of Shanghai with a budget of 1,000 CNY, so many minutes into its day."""
    plan = 1_000 * M * minute // 1_440
    usual = {
        "campaign_id": "spring",
        "minute": START_S + 60 * minute,
        "reason": "on_plan",
        "version": minute + 1,
        "period_start": START_S,
        "period_end": START_S + 86_400,
        "budget_micros": 1_000 * M,
        "target_micros": plan,
        "spend_micros": plan,
        "gross_spend_micros": plan,
        "rate_ppm": 384_000,
    }
    return make_row(Table.PACING, **{**usual, **values})


def called(*words: str, columns: int = 80) -> str:
    result = CliRunner().invoke(pacing.app, words, env={"COLUMNS": str(columns)})
    if result.exception is not None:
        raise result.exception
    return result.output


async def fill_spring(database: Database) -> None:
    await database.fill(
        Table.CAMPAIGNS,
        make_row(Table.CAMPAIGNS, campaign_id="spring", name="Frühling 春", time_zone="Asia/Shanghai"),
    )
    told = {
        "spend_micros": 548_620_000,
        "gross_spend_micros": 551_620_000,
        "credited_micros": 3 * M,
        "in_flight_micros": 2 * M,
        "reason": "behind",
        "closed_credit_micros": 7 * M,
        "excess_credit_micros": 5 * M,
        "forecast_micros": 940 * M,
        "forecast_low_micros": 900 * M,
        "forecast_high_micros": 990 * M,
    }
    await database.fill_at_once(
        Table.PACING, *(look(minute) for minute in range(0, 899, 30)), look(899, **told, exhausts_at=START_S + 80_000)
    )


async def test_what_matters_stands_above_the_plot_in_the_campaigns_own_time(database: Database) -> None:
    await fill_spring(database)
    text = "A stall."
    await database.fill(Table.ALERTS, make_row(Table.ALERTS, campaign_id="spring", text_en=text, began=START_S + 3_600))
    shown = called("show", "spring")
    for line in (
        "campaign  Frühling 春 (spring)",
        "period    day 2026-09-21 00:00 – 24:00 Asia/Shanghai",
        "as of     2026-09-21 14:59",
        "status    well behind, 7.6 points of the budget below plan",
        "budget    CNY 1,000.00",
        "plan      CNY 624.31 by now (62.4%)",
        "spend     CNY 548.62 (54.9%); CNY 2.00 in flight; CNY 3.00 of CNY 551.62",
        "rate      38.4%: spend is behind plan",
        "forecast  CNY 940.00 at the end (94.0%), 90%: CNY 900.00 – CNY 990.00",
        "runs out  2026-09-21 22:13",
        "billing   CNY 7.00 given back after their day had closed",
        "billing   CNY 5.00 owed back for spend beyond what its periods may",
        "alert     A stall. (since 2026-09-21 01:00)",
    ):
        assert line in shown


@pytest.mark.parametrize("columns", [80, 100])
async def test_lines_keep_within_the_terminal_and_need_no_colour(database: Database, columns: int) -> None:
    await fill_spring(database)
    for shown in (called("show", "spring", columns=columns), called("list", columns=columns)):
        assert max(cell_len(line) for line in shown.splitlines()) <= columns
        assert "\x1b" not in shown


async def test_plan_budget_spend_and_forecast_are_told_apart_by_their_marks(database: Database) -> None:
    await fill_spring(database)
    lines = called("show", "spring").splitlines()
    top = next(line for line in lines if line.strip().startswith("1k"))
    assert top.count("-") > 60
    assert "┃" in top
    drawn = "\n".join(lines)
    assert any("⠀" < mark <= "⣿" for mark in drawn)
    assert sum("00:00" in line and "12:00" in line and "24:00" in line for line in lines) == 2
    below = lines[lines.index("pass-through rate") :]
    assert [line for line in below if line.strip().startswith("50%")] != []


async def test_a_line_of_spend_rises_from_the_lower_left(database: Database) -> None:
    await database.fill_at_once(Table.PACING, *(look(minute, target_micros=0) for minute in range(0, 1_440, 10)))
    lines = called("show", "spring").splitlines()
    first = next(at for at, line in enumerate(lines) if "spend  ···" in line)
    drawn = lines[first + 2 : first + 13]
    at = [next((at for at, mark in enumerate(line) if "⠀" < mark <= "⣿"), -1) for line in drawn]
    assert -1 not in at
    assert at == sorted(at, reverse=True)


async def test_campaigns_are_listed_by_their_distance_from_plan(database: Database) -> None:
    noon = {"target_micros": 500 * M}
    await database.fill(
        Table.PACING,
        look(719, **noon, campaign_id="even", spend_micros=505 * M),
        look(719, **noon, campaign_id="late", spend_micros=440 * M, reason="behind", forecast_micros=900 * M),
        look(719, **noon, campaign_id="early", spend_micros=700 * M, reason="ahead"),
        look(719, **noon, campaign_id="spent", spend_micros=1_000 * M, reason="exhausted", rate_ppm=0),
        look(719, **noon, campaign_id="asap", spend_micros=1, reason="as_soon_as_possible"),
        look(-1, campaign_id="even", period_start=START_S - 86_400, period_end=START_S, version=1),
    )
    alerts = [make_row(Table.ALERTS, alert_id=f"x{at}", campaign_id="late") for at in range(2)]
    await database.fill(Table.ALERTS, *alerts, make_row(Table.ALERTS, campaign_id="early", state="resolved"))
    lines = [line.split() for line in called("list").splitlines()[2:7]]
    assert [words[0] for words in lines] == ["early", "late", "even", "spent", "asap"]
    assert lines[1][1:] == ["well", "behind", "-6.0", "CNY", "1,000.00", "44.0%", "38%", "90.0%", "2"]
    assert lines[3][1:] == ["exhausted", "+50.0", "CNY", "1,000.00", "100.0%", "0%", "–"]
    assert lines[4][1:6] == ["as", "soon", "as", "possible", "–"]


async def test_an_empty_list_says_what_begins_it(database: Database) -> None:
    assert "no campaign is paced yet" in called("list")
    assert json.loads(called("list", "--json")) == []


async def test_json_carries_the_period_its_minutes_and_its_alerts(database: Database) -> None:
    await fill_spring(database)
    await database.fill(Table.ALERTS, make_row(Table.ALERTS, campaign_id="spring", text_zh="停滞。"))
    document = json.loads(called("show", "Frühling 春", "--json"))
    assert (document["campaign_id"], document["status"], document["is_current"]) == ("spring", "well_behind", True)
    assert document["period_start"] == "2026-09-20 16:00:00"
    assert [alert["text_zh"] for alert in document["alerts"]] == ["停滞。"]
    assert len(document["minutes"]) == 31
    assert document["minutes"][-1]["spend_micros"] == 548_620_000


async def test_an_earlier_period_is_found_by_the_local_date_on_which_it_began(database: Database) -> None:
    await fill_spring(database)
    before = {"period_start": START_S - 86_400, "period_end": START_S}
    await database.fill(Table.PACING, look(-60, **before, spend_micros=990 * M, version=1))
    await database.fill(Table.ALERTS, make_row(Table.ALERTS, campaign_id="spring", text_en="A stall."))
    shown = called("show", "spring", "--period", "2026-09-20")
    assert "day 2026-09-20 00:00 – 24:00" in shown
    assert "CNY 990.00" in shown
    assert "A stall." not in shown, "what fires now is not of that day"


async def test_a_long_period_is_asked_for_in_steps_and_keeps_its_last_minute(database: Database) -> None:
    count = 2 * pacing.MAX_POINTS + 5
    flight = {"period_kind": "flight", "period_start": 0, "period_end": 4_102_444_800}
    rows = [look(minute, **flight, target_micros=0, spend_micros=minute) for minute in range(count)]
    await database._sink.insert(Table.PACING, rows)
    minutes = json.loads(called("show", "spring", "--json"))["minutes"]
    assert pacing.MAX_POINTS / 2 < len(minutes) <= pacing.MAX_POINTS
    assert minutes[-1]["spend_micros"] == count - 1
    assert minutes == sorted(minutes, key=lambda minute: minute["minute"])
    shown = called("show", "spring")
    assert "flight open – open" in shown
    assert "by now (0.0%)" in shown


async def test_what_is_not_known_is_absent(database: Database) -> None:
    await database.fill(Table.PACING, look(0, budget_micros=0, target_micros=0))
    shown = called("show", "spring")
    assert "forecast  – (nothing to go by)" in shown
    assert "runs out  –" in shown
    assert "note      no budget: nothing to compare with" in shown


async def test_an_unknown_campaign_is_told_with_what_is_like_it(database: Database) -> None:
    await fill_spring(database)
    with pytest.raises(ConfigurationError, match=r"no campaign 'sprign' is paced; did you mean spring\?"):
        called("show", "sprign")
    with pytest.raises(ConfigurationError, match="`campaign-streams pacing list` shows all"):
        called("show", "zzz")
    with pytest.raises(ConfigurationError, match=r"no campaign \"a'.*\" is paced"):
        called("show", "a'\\ OR 1 -- ")


async def test_a_campaign_without_a_budget_is_told_what_it_lacks(database: Database) -> None:
    await database.fill(Table.CAMPAIGNS, make_row(Table.CAMPAIGNS, campaign_id="free"))
    with pytest.raises(ConfigurationError, match=r"'free' is not paced: it has no budget.*campaigns put FILE"):
        called("show", "free")


async def test_a_period_that_is_not_there_is_told_with_the_latest(database: Database) -> None:
    await fill_spring(database)
    with pytest.raises(ConfigurationError, match=r"no period of spring began on 2026-09-01; .* 2026-09-21"):
        called("show", "spring", "--period", "2026-09-01")
    with pytest.raises(ConfigurationError, match="--period: 'monday' is no period; write latest, or a date"):
        called("show", "spring", "--period", "monday")


async def test_two_campaigns_of_one_name_are_told_apart_by_id(database: Database) -> None:
    for campaign in ("c1", "c2"):
        await database.fill(Table.CAMPAIGNS, make_row(Table.CAMPAIGNS, campaign_id=campaign, name="Same"))
        await database.fill(Table.PACING, look(0, campaign_id=campaign))
    with pytest.raises(ConfigurationError, match="several campaigns are named 'Same'; give an id: c1, c2"):
        called("show", "Same")


async def test_a_database_of_an_older_version_is_told_with_its_remedy(
    chdb_settings: ClickHouseSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "asker_for", lambda _: ReaderAsker(chdb_settings))
    with pytest.raises(ConfigurationError, match="older version; start this version's worker once"):
        called("list")


@pytest.mark.parametrize(
    ("zone", "begins", "hours", "texts"),
    [
        ("Asia/Shanghai", "2026-09-21 00:00", 24, [f"{hour:02}:00" for hour in range(0, 25, 3)]),
        ("America/New_York", "2026-11-01 00:00", 25, [f"{hour:02}:00" for hour in range(0, 25, 6)]),
        (
            "Asia/Kolkata",
            "2026-09-21 20:10",
            2,
            ["20:15", "20:30", "20:45", "21:00", "21:15", "21:30", "21:45", "22:00"],
        ),
        ("UTC", "2026-09-01 00:00", 24 * 7, [f"09-0{day}" for day in range(1, 9)]),
    ],
)
def test_marks_stand_at_round_local_times(zone: str, begins: str, hours: int, texts: list[str]) -> None:
    first = int(datetime.fromisoformat(begins).replace(tzinfo=ZoneInfo(zone)).timestamp())
    marks, shown = pacing._ticks(first, first + 3_600 * hours, ZoneInfo(zone))
    assert shown == texts
    assert marks == sorted(marks)
