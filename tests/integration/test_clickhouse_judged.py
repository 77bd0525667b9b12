"""What the pipeline makes of invalid traffic, as the views show it: its rows go through the real engine."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from streams.events import Input
from streams.invalid import InvalidRules, Mode, Rule
from streams.records import COLUMNS
from streams.settings import ClickHouseSettings
from streams.state.inputs import Batch
from streams.topics import VERDICTS
from streams.verdicts import Decision, Review
from tests.support.clickhouse_views import Database
from tests.unit.given import MINUTE, SECOND, T0, Fed, document, quick_rules, record

RULES = quick_rules(
    invalid=InvalidRules(modes={Rule.CLICK_TOO_SOON: Mode.ON, Rule.CONVERSION_WITHOUT_CLICK: Mode.ON}),
)
CLICK_MICROS, LEAD_MICROS = 2_500, 40_000
VIEWS = ("campaign_totals", "campaign_days", "campaign_minutes", "invalid_traffic")


@pytest.fixture
async def database(migrated_settings: ClickHouseSettings) -> AsyncIterator[Database]:
    async with Database(migrated_settings) as opened:
        yield opened


async def publish(fed: Fed, database: Database) -> None:
    """A tick, whose rows ClickHouse gets."""
    rows = fed.tick()
    for table, found in rows.items():
        values = [(*(row[name] for name in COLUMNS[table][:-1]), fed.state.seq) for row in found]
        await database.fill(table, *values)


async def shown(database: Database, campaign: str) -> dict[str, tuple[int, ...]]:
    """The same of every view: events gross, valid, givt, sivt; spend gross, valid, credited, givt, sivt."""
    found = []
    for view in VIEWS:
        kinds = ("gross_", "", "givt_", "sivt_")
        sums = [f"sum({kind}{measure}) AS s{measure}{kind}" for measure in ("clicks", "conversions") for kind in kinds]
        spends = [f"sum({kind}_micros) AS p{kind}" for kind in ("gross_spend", "spend", "credited")]
        spends += [f"sum({kind}_spend_micros) AS p{kind}" for kind in ("givt", "sivt")]
        row = await database.one(f"SELECT {', '.join((*sums, *spends))} FROM {view} WHERE campaign_id = '{campaign}'")
        values = tuple(row.values())
        found.append({"clicks": values[:4], "conversions": values[4:8], "spend": values[8:]})
    assert all(each == found[0] for each in found), found
    for gross, *parts in found[0].values():
        assert gross == sum(parts)
    return found[0]


def say(fed: Fed, event_id: str, decision: Decision) -> None:
    """A reviewer's word on a click of c2."""
    review = Review(
        campaign_id="c2",
        input=Input.CLICKS,
        event_id=event_id,
        decision=decision,
        reviewer="li.wei",
        reason="our own monitor",
        at_ms=T0,
    )
    offset = fed.state.position(VERDICTS)
    said = record(offset, msgspec.json.encode(review), T0)
    fed.state.apply(Batch(VERDICTS, 0, offset, offset + 1, [said]))


def click(event_id: str, at_ms: int, **fields: Any) -> dict[str, Any]:
    return document(Input.CLICKS, event_id, at_ms, campaign_id="c2", **fields)


async def test_clicks_are_told_apart_as_they_come_when_they_are_found_late_and_when_they_are_reviewed(
    database: Database,
) -> None:
    fed = Fed(RULES).settle("c2", billing={"model": "cpc", "price_micros": CLICK_MICROS})
    fed.tick()
    fed.feed(
        Input.CLICKS,
        click("good", T0 + 2 * SECOND, impression_id="i-1"),
        click("hidden", T0 + 2 * SECOND, placement_width_px=1, placement_height_px=1),
        click("soon", T0 + 50, impression_id="i-1"),
    )
    await publish(fed, database)
    assert await shown(database, "c2") == {
        "clicks": (3, 2, 1, 0),
        "conversions": (0, 0, 0, 0),
        "spend": (7_500, 5_000, 0, 2_500, 0),
    }
    fed.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "i-1", T0, campaign_id="c2"))
    await publish(fed, database)
    assert (await shown(database, "c2"))["clicks"] == (3, 1, 1, 1)
    assert (await shown(database, "c2"))["spend"] == (7_500, 2_500, 0, 2_500, 2_500)
    for event in ("soon", "hidden"):
        say(fed, event, Decision.OVERTURN)
    await publish(fed, database)
    assert (await shown(database, "c2"))["clicks"] == (3, 3, 0, 0)
    assert (await shown(database, "c2"))["spend"] == (7_500, 7_500, 0, 0, 0)
    say(fed, "good", Decision.CONFIRM)
    await publish(fed, database)
    assert (await shown(database, "c2"))["clicks"] == (3, 2, 0, 1)
    columns = "event_id, rule, state, counts_as, reviewer"
    flags = await database.ask(f"SELECT {columns} FROM flags ORDER BY event_id, review_ms")
    assert [tuple(row.values()) for row in flags] == [
        ("good", "review", "confirmed", "sivt", "li.wei"),
        ("hidden", "hidden_placement", "raised", "valid", ""),
        ("hidden", "review", "overturned", "valid", "li.wei"),
        ("soon", "click_too_soon", "raised", "valid", ""),
        ("soon", "review", "overturned", "valid", "li.wei"),
    ]


@pytest.mark.parametrize("is_rejected_first", [True, False])
async def test_a_lead_that_is_rejected_and_found_invalid_is_given_back_once(
    database: Database, is_rejected_first: bool
) -> None:
    fed = Fed(RULES).settle("c1", billing={"model": "cpa", "price_micros": LEAD_MICROS}, goal="lead")
    fed.tick()
    touch = {"touch_type": "click", "touch_id": "k-none", "touch_time_ms": T0}
    at_ms = T0 + MINUTE
    fed.feed(Input.CLICKS, document(Input.CLICKS, "k-0", T0))
    fed.feed(
        Input.CONVERSIONS,
        document(Input.CONVERSIONS, "lead-1", at_ms, conversion_type="lead", attribution=touch),
        document(Input.CONVERSIONS, "lead-2", at_ms, conversion_type="lead", attribution={**touch, "touch_id": "k-0"}),
    )
    await publish(fed, database)
    assert (await shown(database, "c1"))["spend"] == (80_000, 80_000, 0, 0, 0)

    def reject() -> None:
        rejection = {"adjustment_type": "rejected_lead", "adjusted_event_id": "lead-1", "adjusted_event_time_ms": at_ms}
        fed.feed(Input.ADJUSTMENTS, document(Input.ADJUSTMENTS, "a-1", at_ms, **rejection))

    def find_invalid() -> None:
        fed.feed(Input.CLICKS, document(Input.CLICKS, "k-9", T0 + 5 * MINUTE))

    steps = [(reject, (80_000, 40_000, 40_000, 0, 0)), (find_invalid, (80_000, 40_000, 0, 0, 40_000))]
    for step, expected in steps if is_rejected_first else steps[::-1]:
        step()
        await publish(fed, database)
        both_done = step is (find_invalid if is_rejected_first else reject)
        assert (await shown(database, "c1"))["spend"] == (steps[1][1] if both_done else expected)
    assert (await shown(database, "c1"))["conversions"] == (2, 1, 0, 1)
    row = await database.one("SELECT invalidated_later_micros FROM campaign_totals")
    assert row["invalidated_later_micros"] == 40_000
