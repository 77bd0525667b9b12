"""Reach from merged sketches, the report grain by minute, and CVR by click time with its maturity."""

import random
from collections.abc import AsyncIterator

import pytest

from streams.adapters.clickhouse import connect
from streams.adapters.clickhouse_migrations import record_rules
from streams.records import Table
from streams.rules import DAY_MS, HOUR_MS, Rules
from streams.settings import ClickHouseSettings
from streams.stages.count import AGE_BUCKETS_MS
from tests.support.clickhouse_views import Database
from tests.support.rows import PANE_S, make_row

PANES, REPORTS, COHORTS = Table.PANES, Table.REPORTS, Table.COHORTS
MINUTE_S = PANE_S - PANE_S % 60
HOUR_S = PANE_S - PANE_S % 3600
SPAN = 2**64


@pytest.fixture
async def database(migrated_settings: ClickHouseSettings) -> AsyncIterator[Database]:
    async with Database(migrated_settings) as opened:
        yield opened


def report(**values: object) -> tuple[object, ...]:
    return make_row(REPORTS, **{"pane_ms": 60_000, "origin_pane": MINUTE_S, "effect_pane": MINUTE_S, **values})


def sketch(users: list[int], size: int) -> list[int]:
    return sorted(users)[:size]


async def test_minutes_keep_dimensions_apart_and_add_inputs_and_effect_panes(database: Database) -> None:
    await database.fill(
        REPORTS,
        report(region="CN-31", impressions=9, version=1),
        report(region="CN-31", impressions=10, version=2),
        report(region="CN-31", effect_pane=MINUTE_S + 60, impressions=5),
        report(region="CN-31", input="clicks", clicks=3),
        report(region="CN-11", impressions=7),
        report(region="CN-11", origin_pane=MINUTE_S + 60, impressions=1),
    )
    rows = await database.ask("SELECT minute, region, impressions, clicks, ctr FROM campaign_minutes ORDER BY ALL")
    first, second = "2026-09-21 14:13:00", "2026-09-21 14:14:00"
    assert [tuple(row.values()) for row in rows] == [
        (first, "CN-11", 7, 0, 0),
        (first, "CN-31", 15, 3, 0.2),
        (second, "CN-11", 1, 0, 0),
    ]


async def test_reach_is_exact_while_sketches_are_complete(database: Database) -> None:
    await database.fill(
        REPORTS,
        report(impressions=4, users=[1, 2, 3]),
        report(impressions=2, partition=1, users=[3, SPAN - 1]),
        report(impressions=1, validity="givt", users=[9]),
    )
    row = await database.one("SELECT reach, reach_error, gross_reach FROM campaign_minutes")
    assert tuple(row.values()) == (4, 0, 5)


async def test_reach_is_null_where_no_user_is_known(database: Database) -> None:
    await database.fill(REPORTS, report(impressions=4), report(impressions=1, validity="givt", users=[5]))
    row = await database.one("SELECT reach, gross_reach FROM campaign_minutes")
    assert tuple(row.values()) == (None, 1)


async def test_reach_of_one_full_sketch_is_that_of_kmv(database: Database) -> None:
    users = [round((at + 0.5) * SPAN / 1000) for at in range(1000)]
    await database.fill(REPORTS, report(impressions=1000, users=sketch(users, 256)))
    row = await database.one("SELECT reach, reach_error FROM campaign_minutes")
    assert row["reach"] == pytest.approx(255 / (users[255] / SPAN))
    assert row["reach"] == pytest.approx(1000, rel=0.01)
    assert row["reach_error"] == pytest.approx(1 / 254**0.5)


async def test_reach_of_merged_sketches_counts_a_shared_user_once(database: Database) -> None:
    chance = random.Random(7)
    users = [chance.randrange(SPAN) for _ in range(20_000)]
    groups = [users[:12_000], users[8_000:], users[5_000:5_100]]  # the last is small: its sketch is complete
    sketches = [sketch(group, 256) for group in groups]
    await database.fill(REPORTS, *(report(region=str(at), users=kept) for at, kept in enumerate(sketches)))
    theta = min(sketches[0][-1], sketches[1][-1])
    below = {user for kept in sketches for user in kept if user < theta}
    row = await database.one("SELECT reach, reach_error FROM campaign_reach")
    assert row["reach"] == pytest.approx(len(below) / (theta / SPAN))
    assert abs(row["reach"] - 20_000) < 4 * row["reach_error"] * 20_000


async def test_reach_takes_the_size_of_the_sketches_from_the_recorded_rules(database: Database) -> None:
    rules = Rules(reach_sample=16)
    client = connect(database.settings)
    record_rules(client, rules, 1_000)
    client.close()
    users = [round((at + 0.5) * SPAN / 100) for at in range(100)]
    await database.fill(REPORTS, report(rules=rules.fingerprint(), users=sketch(users, 16)))
    row = await database.one("SELECT reach FROM campaign_minutes")
    assert row["reach"] == pytest.approx(15 / (users[15] / SPAN))


async def test_reach_of_a_day_merges_all_its_minutes(database: Database) -> None:
    await database.fill(
        REPORTS,
        report(region="CN-31", users=[1, 2]),
        report(region="CN-11", origin_pane=MINUTE_S + 60, users=[2, 3]),
        report(region="CN-11", origin_pane=MINUTE_S + 86_400, users=[1]),
    )
    rows = await database.ask("SELECT day, reach FROM campaign_reach ORDER BY day")
    assert [tuple(row.values()) for row in rows] == [("2026-09-21", 3), ("2026-09-22", 1)]


async def test_a_cohort_relates_conversions_to_the_clicks_of_their_hour(database: Database) -> None:
    as_of = HOUR_S + 3 * 3600
    await database.fill(
        PANES,
        make_row(PANES, input="clicks", origin_pane=HOUR_S, clicks=60),
        make_row(PANES, input="clicks", origin_pane=HOUR_S + 3590, clicks=40),
        make_row(PANES, input="clicks", origin_pane=HOUR_S, validity="givt", clicks=5),
        make_row(PANES, input="clicks", origin_pane=HOUR_S - 10, clicks=1),
        make_row(PANES, campaign_id="another", effect_pane=as_of, impressions=1),  # the partition has come so far
    )
    conversion = {"input": "conversions", "click_hour": HOUR_S}
    await database.fill(
        COHORTS,
        make_row(COHORTS, **conversion, conversions=4, conversion_value_micros=10, version=1),
        make_row(COHORTS, **conversion, conversions=5, conversion_value_micros=20, version=2),
        make_row(COHORTS, **conversion, effect_pane=PANE_S + 60, age_bucket_ms=HOUR_MS, conversions=3),
        make_row(COHORTS, **conversion, validity="sivt", conversions=1),
    )
    rows = await database.ask("SELECT * FROM campaign_cohorts ORDER BY click_hour")
    row = rows[1]
    shown = ("clicks", "gross_clicks", "conversions", "gross_conversions", "conversion_value_micros", "cvr")
    assert [row[name] for name in shown] == [100, 105, 8, 9, 20, 0.08]
    assert row["ages"] == {"0": 5, str(HOUR_MS): 3}
    assert row["as_of"] == "2026-09-21 17:00:00"
    assert row["age_ms"] == 2 * HOUR_MS
    assert row["maturity"] == pytest.approx(2 * HOUR_MS / (30 * DAY_MS))
    assert row["maturity_basis"] == "elapsed time"
    assert (rows[0]["clicks"], rows[0]["conversions"], rows[0]["cvr"]) == (1, 0, 0)


async def test_maturity_follows_the_ages_of_the_campaigns_own_old_cohorts(database: Database) -> None:
    old, as_of = HOUR_S - 31 * 86_400, HOUR_S + 3 * 3600
    ages = {0: 40, HOUR_MS: 40, 7 * DAY_MS: 20, 30 * DAY_MS: 900}  # the last came after the window
    await database.fill(
        COHORTS,
        *(
            make_row(COHORTS, input="conversions", click_hour=old, age_bucket_ms=age, conversions=number)
            for age, number in ages.items()
        ),
    )
    await database.fill(
        PANES,
        make_row(PANES, input="clicks", origin_pane=old, clicks=5_000),
        make_row(PANES, input="clicks", origin_pane=HOUR_S, effect_pane=as_of, clicks=10),
    )
    rows = await database.ask("SELECT maturity, maturity_basis FROM campaign_cohorts ORDER BY click_hour")
    assert rows[0]["maturity"] == 1
    # two hours old: all of the first 5 minutes, and half of what comes between 1 and 3 hours
    assert rows[1] == {"maturity": pytest.approx(0.6), "maturity_basis": "own cohorts"}


async def test_a_cohort_whose_clicks_are_unknown_has_no_cvr(database: Database) -> None:
    await database.fill(COHORTS, make_row(COHORTS, input="conversions", conversions=2))
    row = await database.one("SELECT cvr, note FROM campaign_cohorts")
    assert tuple(row.values()) == (None, "no click of this hour is known")


async def test_a_cohort_cvr_above_one_is_null_and_noted(database: Database) -> None:
    await database.fill(PANES, make_row(PANES, input="clicks", clicks=1))
    await database.fill(COHORTS, make_row(COHORTS, input="conversions", conversions=2))
    row = await database.one("SELECT cvr, note FROM campaign_cohorts")
    assert row["cvr"] is None
    assert "more conversions than clicks" in row["note"]


async def test_the_view_knows_the_same_age_buckets_as_the_pipeline(database: Database) -> None:
    row = await database.one("SELECT as_select FROM system.tables WHERE name = 'campaign_cohorts' LIMIT 1")
    assert f"[{', '.join(map(str, AGE_BUCKETS_MS))}]" in row["as_select"]
