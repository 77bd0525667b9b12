"""The worker's state in one document."""

import json
from typing import Any

from streams.agents.status import campaigns, status
from streams.events import Input
from streams.state.windows import DAY, WINDOWS_MS
from tests.unit.given import T0, document
from tests.unit.keeping import Kept


async def running() -> Kept:
    found = Kept()
    found.world.settle("c1", name="Singles' Day", currency="CNY")
    await found.assign()
    found.world.produce(Input.IMPRESSIONS, *(document(Input.IMPRESSIONS, f"i{n}") for n in range(50)), b"{")
    found.world.produce(Input.CLICKS, document(Input.CLICKS, "k"), document(Input.CLICKS, "k"))
    found.world.produce(Input.PLAYS, document(Input.PLAYS, "p", campaign_id="c2"))
    await found.step()
    return found


def told(found: Kept, top: int = 5) -> dict[str, Any]:
    return status(found.keeper, found.publisher, found.highwater, top)


async def test_the_document_is_plain_json() -> None:
    whole = told(await running())
    assert json.loads(json.dumps(whole)) == whole


async def test_the_ledger_is_by_input_and_balances() -> None:
    ledger = told(await running())["ledger"]
    assert ledger["impressions"] == {"consumed": 51, "counted": 50, "rejected/malformed_json": 1}
    assert ledger["clicks"] == {"consumed": 2, "counted": 1, "duplicate": 1}
    for entries in ledger.values():
        assert entries["consumed"] == sum(count for name, count in entries.items() if name != "consumed")


async def test_a_campaign_has_its_name_its_currency_and_its_windows() -> None:
    found = {entry["campaign_id"]: entry for entry in campaigns((await running()).keeper, 5)}
    assert (found["c1"]["name"], found["c1"]["currency"]) == ("Singles' Day", "CNY")
    assert (found["c2"]["name"], found["c2"]["currency"]) == ("", "")
    assert set(found["c1"]["windows"]) == {*WINDOWS_MS, DAY}
    window = found["c1"]["windows"]["1m"]
    assert (window["impressions"], window["clicks"]) == (50, 1)
    assert window["ctr"]["value"] == 0.02
    assert window["ctr"]["low"] < 0.02 < window["ctr"]["high"]


async def test_a_ratio_over_zero_is_null() -> None:
    found = {entry["campaign_id"]: entry for entry in campaigns((await running()).keeper, 5)}
    assert found["c2"]["windows"]["1m"]["ctr"] is None
    assert found["c2"]["windows"]["1m"]["cvr"] is None
    assert found["c1"]["windows"]["1m"]["cvr"]["value"] == 0.0


async def test_campaigns_beyond_the_top_are_other() -> None:
    found = {entry["campaign_id"]: entry for entry in campaigns((await running()).keeper, 1)}
    assert set(found) == {"c1", "other"}
    assert found["other"]["windows"]["1m"]["plays_started"] == 1


async def test_health_is_told() -> None:
    found = await running()
    before = told(found)
    assert (before["partitions"], before["recovering"], before["lag_records"]) == ([0], [], 0)
    assert before["newest_event_ms"] == T0
    assert (before["sink_up"], before["ticked"], before["dirty_rows"]) == (True, True, found.keeper.dirty_rows)
    assert before["dirty_rows"] > 0
    assert before["visible_ms"] is None
    await found.publisher.flush()
    after = told(found)
    assert (after["dirty_rows"], after["inserted_rows"]) == (0, before["dirty_rows"])
    assert after["visible_ms"]["ticks"] >= 1


async def test_what_is_not_ticked_is_told() -> None:
    found = await running()
    found.world.produce(Input.CLICKS, document(Input.CLICKS, "x"), document(Input.CLICKS, "y"))
    assert told(found)["lag_records"] == 2
    await found.feed()
    assert (told(found)["lag_records"], told(found)["ticked"]) == (0, False)
    await found.tick()
    assert told(found)["ticked"]


def test_a_worker_without_partitions_has_a_status() -> None:
    whole = told(Kept())
    assert (whole["partitions"], whole["campaigns"], whole["newest_event_ms"]) == ([], [], -1)
