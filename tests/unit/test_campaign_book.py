"""Campaign settings in the pipeline: versions, when they hold, the one currency, and the bounds."""

import json

import pytest

from streams.campaigns import CampaignSettings
from streams.events import Input
from streams.records import Table
from streams.state import campaigns as module
from streams.state.campaigns import CampaignBook
from streams.state.inputs import Batch
from streams.topics import CAMPAIGNS
from tests.unit.given import DAY, HOUR, MINUTE, T0, Document, Fed, document, record

PANE = 10_000


def campaign_rows(fed: Fed) -> list[Document]:
    return fed.tick()[Table.CAMPAIGNS]


def test_a_version_holds_from_the_pane_after_its_record_was_appended() -> None:
    fed = Fed().settle(appended_ms=T0 + 1)
    assert [row["valid_from"] for row in campaign_rows(fed)] == [T0 + PANE]


def test_a_version_appended_at_the_begin_of_a_pane_holds_from_that_pane() -> None:
    fed = Fed().settle(appended_ms=T0)
    assert [row["valid_from"] for row in campaign_rows(fed)] == [T0]


@pytest.mark.parametrize(
    ("valid_from_ms", "expected"),
    [(None, T0 + PANE), (0, T0 + PANE), (T0 - DAY, T0 + PANE), (T0 + DAY + 1, T0 + DAY + PANE), (T0 + DAY, T0 + DAY)],
)
def test_a_version_never_holds_before_it_was_appended(valid_from_ms: int | None, expected: int) -> None:
    stated = {} if valid_from_ms is None else {"valid_from_ms": valid_from_ms}
    fed = Fed().settle(appended_ms=T0 + 3, **stated)
    assert [row["valid_from"] for row in campaign_rows(fed)] == [expected]


def test_the_row_holds_the_settings_as_they_were_given() -> None:
    given = {"name": "Singles' Day", "advertiser_id": "a", "time_zone": "Asia/Shanghai", "currency": "CNY"}
    (row,) = campaign_rows(Fed().settle(**given))
    assert {name: row[name] for name in given} == given
    assert (row["campaign_id"], row["agency_id"], row["account_id"]) == ("c1", "", "")
    assert json.loads(row["settings"])["time_zone"] == "Asia/Shanghai"


def test_each_version_has_a_row_once() -> None:
    fed = Fed().settle(name="first").settle(name="second", appended_ms=T0 + MINUTE)
    assert [row["name"] for row in campaign_rows(fed)] == ["first", "second"]
    assert campaign_rows(fed) == []


def test_the_later_version_is_the_current_one() -> None:
    fed = Fed().settle(name="first").settle(name="second")
    fed.tick()
    assert fed.state.campaigns.current["c1"].settings.name == "second"


def test_a_version_for_a_later_time_waits_until_event_time_has_come_there() -> None:
    fed = Fed().feed(Input.CLICKS, document(Input.CLICKS, "a"))
    fed.settle(time_zone="UTC").settle(time_zone="Asia/Shanghai", valid_from_ms=T0 + HOUR)
    assert len(campaign_rows(fed)) == 2
    assert fed.state.campaigns.zones == fed.state.windows.zones == {"c1": "UTC"}
    fed.feed(Input.CLICKS, document(Input.CLICKS, "b", T0 + HOUR - 1))
    fed.tick()
    assert fed.state.windows.zones == {"c1": "UTC"}
    fed.feed(Input.CLICKS, document(Input.CLICKS, "c", T0 + HOUR))
    assert campaign_rows(fed) == []
    assert fed.state.campaigns.zones == fed.state.windows.zones == {"c1": "Asia/Shanghai"}


def test_before_the_first_event_a_version_for_a_later_time_waits_too() -> None:
    fed = Fed().settle(time_zone="UTC").settle(time_zone="Asia/Shanghai", valid_from_ms=T0 + 300 * DAY)
    fed.tick()
    assert fed.state.campaigns.zones == {"c1": "UTC"}


def test_a_version_that_waits_survives_a_snapshot() -> None:
    fed = Fed().feed(Input.CLICKS, document(Input.CLICKS, "a"))
    fed.settle(time_zone="UTC").settle(time_zone="Asia/Shanghai", valid_from_ms=T0 + HOUR)
    fed.tick()
    restored = CampaignBook()
    restored.restore(json.loads(json.dumps(fed.state.campaigns.snapshot())))
    assert restored.zones == {"c1": "UTC"}
    restored.activate(PANE, T0 + HOUR, T0 + HOUR)
    assert restored.zones == {"c1": "Asia/Shanghai"}
    assert restored.currencies == {"c1": "USD"}


# One currency


def test_a_campaigns_currency_is_that_of_its_first_version() -> None:
    fed = Fed().settle(currency="EUR").settle(currency="USD", name="dearer")
    assert [row["currency"] for row in campaign_rows(fed)] == ["EUR"]
    fed.settle(currency="USD", name="later")
    assert campaign_rows(fed) == []
    assert fed.state.campaigns.refused == 2
    assert fed.state.campaigns.current["c1"].settings.name == ""


def test_a_version_after_a_refused_one_is_taken() -> None:
    fed = Fed().settle(currency="EUR").settle(currency="USD").settle(currency="EUR", name="third")
    assert [row["name"] for row in campaign_rows(fed)] == ["", "third"]


def test_a_refused_version_is_no_rejected_record() -> None:
    fed = Fed().settle(currency="EUR").settle(currency="USD")
    fed.tick()
    assert fed.state.notices[CAMPAIGNS].ledger == {("counted", ""): 2}
    assert fed.letters == []


def test_the_currency_is_known_while_its_version_still_waits() -> None:
    fed = Fed().feed(Input.CLICKS, document(Input.CLICKS, "a"))
    fed.settle(currency="EUR", valid_from_ms=T0 + HOUR).tick()
    fed.feed(Input.CLICKS, document(Input.CLICKS, "b", currency="USD", clearing_price_millimicros=5))
    fed.tick()
    assert fed.total("money_rejected") == 1


# Bounds


def settings(campaign: str, **fields: object) -> CampaignSettings:
    return CampaignSettings(campaign_id=campaign, currency="USD", **fields)


def test_beyond_their_number_new_campaigns_are_refused_and_known_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CAMPAIGNS", 2)
    book = CampaignBook()
    for name in ("a", "b", "c", "a"):
        book.stage(settings(name), T0)
    accepted, _ = book.activate(PANE, T0, T0)
    assert [version.settings.campaign_id for version in accepted] == ["a", "b", "a"]
    assert (set(book.current), book.refused) == ({"a", "b"}, 1)


def test_beyond_their_number_no_more_versions_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UPCOMING", 2)
    book = CampaignBook()
    for tick in range(5):
        book.stage(settings(f"c{tick}", valid_from_ms=T0 + HOUR), T0)
        book.activate(PANE, T0, T0)
    assert book.refused == 3
    _, in_force = book.activate(PANE, T0 + HOUR, T0 + HOUR)
    assert len(in_force) == 2


# The topic's ledger


def test_every_record_of_the_settings_topic_has_its_entry() -> None:
    fed = Fed().settle()
    topic = "ads.campaigns"
    for value in (b"{", None, b'{"campaign_id":"c1","currency":"XXZ"}'):
        at = fed.state.position(topic)
        fed.state.apply(of_one(topic, at, value))
    fed.state.apply(of_one(topic, 4, None)._replace(to_offset=9, records=[]))
    fed.state.apply(of_one(topic, 9, None)._replace(to_offset=12, records=[], is_lost=True))
    rows = [row for row in fed.tick()[Table.LEDGER] if row["input"] == "campaigns"]
    entries = {(row["entry"], row["reason"]): row["records"] for row in rows}
    assert entries == {
        ("counted", ""): 1,
        ("rejected", "malformed_json"): 1,
        ("rejected", "empty"): 1,
        ("rejected", "unknown_value"): 1,
        ("no_record", ""): 5,
        ("lost_retention", ""): 3,
        ("consumed", ""): 12,
    }


def of_one(topic: str, at: int, value: bytes | None) -> Batch:
    return Batch(topic, 0, at, at + 1, [record(at, value)])
