"""Invalid traffic in the views, against numbers worked out by hand."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from streams.records import Row, Table
from streams.settings import ClickHouseSettings
from tests.support.clickhouse_views import Database
from tests.support.rows import make_row

PANES, REPORTS, CAMPAIGNS, FLAGS = Table.PANES, Table.REPORTS, Table.CAMPAIGNS, Table.FLAGS
VIEWS = ("campaign_totals", "campaign_days", "campaign_minutes")
EVERY_VIEW = (*VIEWS, "invalid_traffic")
COUNTED = ("impressions", "clicks", "conversions")
CLICK = 2_500
"""Cost of a click, thousandths of a micro: half of them do not round to a whole micro."""
LEAD = 20_000


@pytest.fixture
async def database(migrated_settings: ClickHouseSettings) -> AsyncIterator[Database]:
    async with Database(migrated_settings) as opened:
        yield opened


async def fill_both(database: Database, *rows: dict[str, Any]) -> None:
    """The same in both grains: views read either."""
    for values in rows:
        await database.fill(PANES, make_row(PANES, **values))
        await database.fill(REPORTS, make_row(REPORTS, pane_ms=60_000, **values))


async def shown(database: Database, view: str) -> dict[str, Any]:
    """The only row of a view, checked for what must hold in every row."""
    row = await database.one(f"SELECT * FROM {view}")
    for measure in COUNTED:
        assert row[f"gross_{measure}"] == row[measure] + row[f"givt_{measure}"] + row[f"sivt_{measure}"]
    assert row["gross_spend_micros"] == (
        row["spend_micros"] + row["credited_micros"] + row["givt_spend_micros"] + row["sivt_spend_micros"]
    )
    if "invalid_spend_micros" in row:
        assert row["invalid_spend_micros"] == row["givt_spend_micros"] + row["sivt_spend_micros"]
    return row


def money(row: dict[str, Any]) -> tuple[int, int, int, int, int]:
    """Gross, valid, credited, general and sophisticated, micros."""
    names = ("gross_spend_micros", "spend_micros", "credited_micros", "givt_spend_micros", "sivt_spend_micros")
    gross, valid, credited, general, sophisticated = (row[name] for name in names)
    return gross, valid, credited, general, sophisticated


def clicks(row: dict[str, Any]) -> tuple[int, int, int, int]:
    gross, valid, general, sophisticated = (row[f"{kind}clicks"] for kind in ("gross_", "", "givt_", "sivt_"))
    return gross, valid, general, sophisticated


CAME = (
    {"input": "clicks", "clicks": 5, "spend_millimicros": 5 * CLICK, "judged": 5, "undecided": 1},
    {"input": "clicks", "validity": "givt", "clicks": 2, "spend_millimicros": 2 * CLICK, "judged": 2},
    {"input": "conversions", "conversions": 2, "leads": 2, "spend_millimicros": 2 * LEAD, "judged": 2},
)
"""Five clicks that look valid, one of them undecidable; two of bots; and two leads."""


def moved(validity: str, version: int, **totals: int) -> dict[str, Any]:
    """What ticks have decided so far, as the journal's row of one validity."""
    return {"input": "journal", "validity": validity, "version": version, **totals}


FOUND_LATE = (
    moved("valid", 1, clicks=-1, spend_millimicros=-CLICK, judged=-1),
    moved("sivt", 1, clicks=1, spend_millimicros=CLICK, judged=1),
)
OVERTURNED = (
    moved("valid", 2),  # one has gone and one has come
    moved("givt", 2, clicks=-1, spend_millimicros=-CLICK, judged=-1),
)
LEAD_REJECTED = (moved("valid", 3, credited_millimicros=LEAD),)
LEAD_FLAGGED = (
    moved("valid", 4, conversions=-1, leads=-1, spend_millimicros=-LEAD, judged=-1),
    moved(
        "sivt", 4, clicks=1, conversions=1, leads=1, spend_millimicros=CLICK + LEAD, credited_millimicros=LEAD, judged=2
    ),
)


@pytest.mark.parametrize("view", EVERY_VIEW)
async def test_what_comes_invalid_is_gross_and_not_valid(database: Database, view: str) -> None:
    await fill_both(database, *CAME)
    row = await shown(database, view)
    assert clicks(row) == (7, 5, 2, 0)
    assert money(row) == (58, 53, 0, 5, 0)  # 57.5, 52.5 and 5.0
    assert row["decision_rate"] == pytest.approx(8 / 9)


@pytest.mark.parametrize("view", EVERY_VIEW)
async def test_a_click_found_invalid_later_moves_with_its_cost(database: Database, view: str) -> None:
    await fill_both(database, *CAME, *FOUND_LATE)
    row = await shown(database, view)
    assert clicks(row) == (7, 4, 2, 1)
    assert money(row) == (58, 50, 0, 5, 3)
    assert row["decision_rate"] == pytest.approx(8 / 9)
    later = row["given_back_micros"] if view == "invalid_traffic" else row["invalidated_later_micros"]
    assert later == 3  # 2.5


@pytest.mark.parametrize("view", EVERY_VIEW)
async def test_an_overturned_flag_gives_the_click_back(database: Database, view: str) -> None:
    await fill_both(database, *CAME, *FOUND_LATE, *OVERTURNED)
    row = await shown(database, view)
    assert clicks(row) == (7, 5, 1, 1)
    assert money(row) == (58, 53, 0, 2, 3)  # 52.5 valid, 55.0 with general


@pytest.mark.parametrize("view", EVERY_VIEW)
async def test_a_rejected_lead_is_credited_and_where_it_is_flagged_too_its_cost_is_given_back_once(
    database: Database, view: str
) -> None:
    await fill_both(database, *CAME, *FOUND_LATE, *OVERTURNED, *LEAD_REJECTED)
    row = await shown(database, view)
    assert money(row) == (58, 33, 20, 2, 3)
    await fill_both(database, *LEAD_FLAGGED)
    row = await shown(database, view)
    assert money(row) == (58, 33, 0, 2, 23)
    assert (row["conversions"], row["sivt_conversions"]) == (1, 1)
    later = row["given_back_micros"] if view == "invalid_traffic" else row["invalidated_later_micros"]
    assert later == 20


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("valid", "credited", "general", "sophisticated"),
    [(1_500, 499, 499, 500), (0, 0, 500, 1), (2_500, 2_500, 1_499, 333), (499, 0, 499, 499)],
)
async def test_the_parts_sum_to_the_micro_and_none_is_below_zero(
    database: Database, view: str, valid: int, credited: int, general: int, sophisticated: int
) -> None:
    await fill_both(
        database,
        {"spend_millimicros": valid, "impressions": 1},
        {"input": "journal", "credited_millimicros": credited},
        {"validity": "givt", "spend_millimicros": general, "impressions": 1},
        {"validity": "sivt", "spend_millimicros": sophisticated, "credited_millimicros": sophisticated},
    )
    gross, *parts = money(await shown(database, view))
    assert gross == (valid + general + sophisticated + 500) // 1_000
    exact = (valid - credited, credited, general, sophisticated)
    assert all(
        part >= 0 and abs(1_000 * part - thousandths) <= 1_000 for part, thousandths in zip(parts, exact, strict=True)
    )


@pytest.mark.parametrize("view", VIEWS)
async def test_a_cvr_above_one_after_invalidation_is_null_and_noted(database: Database, view: str) -> None:
    await fill_both(
        database,
        {"input": "clicks", "clicks": 3, "impressions": 9},
        {"input": "conversions", "conversions": 2},
        moved("valid", 1, clicks=-2),
        moved("sivt", 1, clicks=2),
    )
    row = await shown(database, view)
    assert (row["clicks"], row["conversions"], row["cvr"]) == (1, 2, None)
    assert "more conversions than clicks" in row["note"]
    assert row["gross_cvr"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("view", VIEWS)
async def test_where_nothing_was_judged_there_is_no_decision_rate(database: Database, view: str) -> None:
    await fill_both(database, {"impressions": 3})
    assert (await shown(database, view))["decision_rate"] is None


# What advertisers see


async def test_advertisers_see_classes_and_money_and_nothing_of_rules(database: Database) -> None:
    await database.fill(CAMPAIGNS, make_row(CAMPAIGNS, name="Spring", advertiser_id="a1"))
    await database.fill(PANES, *(make_row(PANES, **values) for values in (*CAME, *FOUND_LATE)))
    await database.fill(PANES, make_row(PANES, campaign_id="", impressions=5))
    row = await database.one("SELECT * FROM invalid_traffic")
    assert (row["campaign_name"], row["advertiser_id"], row["day"]) == ("Spring", "a1", "2026-09-21")
    assert row["invalid_click_share"] == pytest.approx(3 / 7)
    assert row["invalid_spend_share"] == pytest.approx(8 / 58)
    assert row["invalid_impression_share"] is None
    assert not {"evidence", "rule", "event", "user", "address", "publisher_id"} & row.keys()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/Los_Angeles"])
async def test_a_day_is_provisional_until_the_next_one_has_ended_where_the_campaign_is(
    database: Database, zone: str
) -> None:
    await database.fill(CAMPAIGNS, make_row(CAMPAIGNS, time_zone=zone))
    noon = datetime.now(ZoneInfo(zone)).replace(hour=12, minute=0, second=0)
    days = [noon - timedelta(days=back) for back in (0, 1, 2)]
    panes = [int(day.astimezone(UTC).timestamp()) // 10 * 10 for day in days]
    await database.fill(PANES, *(make_row(PANES, origin_pane=pane, impressions=1) for pane in panes))
    rows = await database.ask("SELECT day, is_provisional, note FROM invalid_traffic ORDER BY day DESC")
    assert [row["is_provisional"] for row in rows] == [True, True, False]
    assert [row["day"] for row in rows] == [f"{day:%Y-%m-%d}" for day in days]
    assert [bool(row["note"]) for row in rows] == [True, True, False]


# Flags


def flag(rule: str = "declared_bot", **values: Any) -> Row:
    return make_row(FLAGS, input="clicks", rule=rule, event="ab" * 16, event_id="k-1", **values)


async def test_a_flag_is_shown_in_its_latest_state_with_its_evidence(database: Database) -> None:
    await database.fill(
        FLAGS,
        flag(evidence='{"pattern":"bot"}', version=1),
        flag(state="overturned", reviewer="li.wei", review_reason="our monitor", evidence="{}", version=5),
        flag(version=3),  # superseded, and inserted later
        flag(rule="data_centre", cost_millimicros=-1, version=2),
        flag(log_epoch=1, rule="data_centre", cost_millimicros=7, version=1),
    )
    first, second = await database.ask("SELECT * FROM flags ORDER BY rule")
    assert (first["rule"], first["cost_millimicros"], first["log_epoch"]) == ("data_centre", 7, 1)
    told = {"state": "overturned", "reviewer": "li.wei", "review_reason": "our monitor", "evidence": "{}"}
    assert {name: second[name] for name in told} == told


@pytest.mark.parametrize(
    ("told", "counts_as"),
    [
        ([("declared_bot", "givt", "on", "raised")], "givt"),
        ([("declared_bot", "givt", "observe", "raised")], "valid"),
        ([("click_too_soon", "sivt", "on", "raised")], "sivt"),
        ([("click_too_soon", "sivt", "on", "raised"), ("declared_bot", "givt", "on", "raised")], "givt"),
        ([("click_without_impression", "sivt", "on", "withdrawn")], "valid"),
        ([("click_too_soon", "sivt", "on", "overturned")], "valid"),
        ([("click_too_soon", "sivt", "on", "overturned"), ("user_velocity", "sivt", "on", "raised")], "valid"),
        ([("click_too_soon", "sivt", "observe", "confirmed")], "sivt"),
        ([("declared_bot", "givt", "on", "confirmed")], "givt"),
        ([("review", "sivt", "on", "confirmed")], "sivt"),
        ([("review", "sivt", "on", "overturned"), ("click_too_soon", "sivt", "observe", "confirmed")], "sivt"),
        ([("click_too_soon", "sivt", "on", "raised"), ("review", "sivt", "on", "overturned")], "valid"),
        ([("click_too_soon", "sivt", "on", "withdrawn"), ("review", "sivt", "on", "confirmed")], "sivt"),
        ([("review", "sivt", "on", "confirmed"), ("click_too_soon", "sivt", "on", "withdrawn")], "sivt"),
        ([("review", "sivt", "on", "overturned"), ("click_too_soon", "sivt", "on", "raised")], "valid"),
        ([("review", "givt", "on", "confirmed")], "givt"),
        ([("review", "givt", "on", "overturned")], "valid"),
    ],
)
async def test_what_an_event_counts_as_follows_from_all_its_flags(
    database: Database, told: list[tuple[str, str, str, str]], counts_as: str
) -> None:
    for at, (rule, kind, mode, state) in enumerate(told):
        await database.fill(FLAGS, flag(rule, **{"class": kind}, mode=mode, state=state, version=at + 1))
    await database.fill(FLAGS, make_row(FLAGS, input="conversions", event="ab" * 16, mode="observe"))
    rows = await database.ask("SELECT counts_as FROM flags WHERE input = 'clicks'")
    assert {row["counts_as"] for row in rows} == {counts_as}
    assert len(rows) == len(told)


async def test_one_event_is_found_by_the_index(database: Database) -> None:
    await database.fill(FLAGS, flag(), make_row(FLAGS, input="clicks", event="cd" * 16))
    rows = await database.ask(f"EXPLAIN indexes = 1 SELECT * FROM flags WHERE event = '{'ab' * 16}'")
    assert f"event in ['{'ab' * 16}', '{'ab' * 16}']" in "\n".join(row["explain"] for row in rows)
