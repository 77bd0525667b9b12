"""Campaign settings in the pipeline: versions, when they hold, the one currency, and the bounds."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_test
from hypothesis import strategies as st

from streams.campaigns import CampaignSettings
from streams.events import Click, ClickType, Input
from streams.records import Table
from streams.state import campaigns as module
from streams.state.campaigns import CampaignBook
from streams.state.inputs import Batch
from streams.state.prices import BY_EVENT, MAX_TARIFFS, OWN_PRICE
from streams.terms import Billing, BillingModel, Budget
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


# Which of two versions holds


def dated(daily_micros: int, valid_from_ms: int | None) -> CampaignSettings:
    return settings("c1", budget=Budget(daily_micros=daily_micros), valid_from_ms=valid_from_ms)


@pytest.mark.parametrize("looks", [[T0 + 3 * HOUR], [T0 + HOUR, T0 + 3 * HOUR], [T0 + HOUR, T0 + 2 * HOUR]])
@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_of_versions_that_wait_that_of_the_later_time_holds_however_they_were_appended(
    order: tuple[int, int], looks: list[int]
) -> None:
    book = CampaignBook()
    for hour in order:
        book.stage(dated(hour, T0 + hour * HOUR), T0)
    book.activate(PANE, T0, T0)
    changed = [change for now_ms in looks for change in book.activate(PANE, now_ms, now_ms)[1]]
    assert len(changed) == len(looks)  # where a tick passes both, the earlier one never holds
    assert [change.before for change in changed] == [None, *(change.after for change in changed[:-1])]
    assert book.current["c1"].settings.budget.daily_micros == 2


def test_a_version_that_holds_at_once_is_not_replaced_by_one_of_an_earlier_time() -> None:
    """Events lag behind: the one for 12:00 is reached when that of 13:00 bills already."""
    book = CampaignBook()
    book.stage(dated(1, T0 + 2 * HOUR), T0)
    book.activate(PANE, T0, T0)
    book.stage(dated(2, None), T0 + 3 * HOUR)
    _, changes = book.activate(PANE, T0 + HOUR, T0 + HOUR)
    assert [change.after.settings.budget.daily_micros for change in changes] == [2]
    assert book.activate(PANE, T0 + 4 * HOUR, T0 + 4 * HOUR) == ([], [])
    assert book.current["c1"].settings.budget.daily_micros == 2


def test_of_versions_of_one_time_the_last_holds_also_where_one_had_to_wait() -> None:
    book = CampaignBook()
    book.stage(dated(1, T0 + PANE), T0 - MINUTE)
    book.activate(PANE, T0 - MINUTE, T0 - MINUTE)
    book.stage(dated(2, None), T0 + 1)
    for now_ms in (T0 + 1, T0 + PANE, T0 + 2 * PANE):
        book.activate(PANE, now_ms, T0 - MINUTE)
        assert book.current["c1"].settings.budget.daily_micros == 2


def test_a_version_whose_clock_was_ahead_gives_way_to_what_is_put_after_it_until_its_time() -> None:
    book = CampaignBook()
    for daily, appended_ms in ((1, T0 + HOUR), (2, T0 + MINUTE)):
        book.stage(dated(daily, None), appended_ms)
        book.activate(PANE, T0, T0)
        assert book.current["c1"].settings.budget.daily_micros == daily
    seen = []
    for now_ms in (T0 + HOUR - 1, T0 + HOUR):  # prices are those of the later time, whatever was put last
        book.activate(PANE, now_ms, now_ms)
        seen.append(book.current["c1"].settings.budget.daily_micros)
    assert seen == [2, 1]


def test_a_version_replaces_one_of_the_same_pane_that_holds_already() -> None:
    book = CampaignBook()
    for daily in (1, 2, 3):
        book.stage(dated(daily, None), T0 + daily)
        book.activate(PANE, T0, T0)
        assert book.current["c1"].settings.budget.daily_micros == daily


def test_a_version_holds_from_the_pane_from_which_it_bills() -> None:
    book = CampaignBook()
    book.stage(dated(1, T0 + 3), T0)
    for now_ms in (T0, T0 + 3, T0 + PANE - 1):
        assert book.activate(PANE, now_ms, now_ms)[1] == []
    assert len(book.activate(PANE, T0 + PANE, T0 + PANE)[1]) == 1


PRICES = st.sampled_from([1, 2, None])
SKEWS = st.sampled_from([0, -2, 5])
"""Panes by which the clock of who appends differs: what holds before its time is not billed before."""
PUTS = st.lists(
    st.tuples(st.integers(1, 12), st.lists(st.tuples(PRICES, st.integers(-2, 30), SKEWS), max_size=3)), max_size=12
)


@settings_of_test(derandomize=True, max_examples=300, deadline=None)
@given(PUTS, st.integers(0, 12), st.booleans())
def test_what_paces_a_campaign_is_what_bills_it(
    puts: list[tuple[int, list[tuple[int | None, int, int]]]], at: int, is_skewed: bool
) -> None:
    """At any time, whatever waits, in whatever order it came, and across a restart; in the end with any clock."""
    book, now_ms = CampaignBook(), T0
    for number, (panes, versions) in enumerate(puts):
        now_ms += panes * PANE
        book.activate(PANE, now_ms, now_ms)
        if number == at:
            packed = msgspec.msgpack.encode(book.snapshot())
            book = CampaignBook()
            book.restore(msgspec.msgpack.decode(packed, strict=False))
        if book.current and not is_skewed:
            assert billed(book, now_ms) == price_of(book.current["c1"].settings)
        for price, ahead, skew in versions:
            billing = Billing(model=BillingModel.CPC, price_micros=price) if price else Billing()
            stated = None if ahead < 0 else now_ms + ahead * PANE // 2
            book.stage(settings("c1", billing=billing, valid_from_ms=stated), now_ms + is_skewed * skew * PANE)
        book.activate(PANE, now_ms, now_ms)
    now_ms += DAY
    book.activate(PANE, now_ms, now_ms)
    if book.current:
        assert billed(book, now_ms) == price_of(book.current["c1"].settings)


def price_of(version: CampaignSettings) -> int:
    return OWN_PRICE if version.billing.price_micros is None else version.billing.price_micros * 1000


def billed(book: CampaignBook, at_ms: int) -> int:
    """What a click costs then, millimicros."""
    cost = book.prices.costs[Input.CLICKS]["c1"]
    click = Click(event_id="e", event_time_ms=at_ms, campaign_id="c1", click_type=ClickType.CARD)
    return book.prices.price_of(click) if cost == BY_EVENT else cost


def test_changes_of_the_budget_alone_do_not_make_prices_depend_on_the_event() -> None:
    """And do not use up the tariffs that are remembered."""
    book = CampaignBook()
    for n in range(MAX_TARIFFS + 5):
        billing = Billing(model=BillingModel.CPC, price_micros=1)
        budget = Budget(daily_micros=n + 1)
        book.stage(settings("c1", billing=billing, budget=budget, valid_from_ms=T0 + (n + 1) * MINUTE), T0)
        book.activate(PANE, T0, T0)
        assert book.prices.costs[Input.CLICKS]["c1"] == 1_000
    book.stage(settings("c1", billing=Billing(model=BillingModel.CPC, price_micros=2)), T0 + DAY)
    book.activate(PANE, T0 + DAY, T0 + DAY)
    assert (billed(book, T0), billed(book, T0 + DAY), billed(book, T0 + DAY + PANE)) == (1_000, 1_000, 2_000)
    assert len(book.prices.snapshot()[0][1]) == 2


def test_the_first_version_bills_what_comes_before_one_that_is_put_before_it() -> None:
    book = CampaignBook()
    for price, hour in ((1, 2), (2, 1)):
        billing = Billing(model=BillingModel.CPC, price_micros=price)
        book.stage(settings("c1", billing=billing, valid_from_ms=T0 + hour * HOUR), T0)
        book.activate(PANE, T0, T0)
        assert billed(book, T0 + PANE) == 1_000
    assert [billed(book, T0 + hour * HOUR) for hour in (1, 2)] == [2_000, 1_000]


def test_versions_that_wait_without_another_price_do_not_make_a_price_forgotten() -> None:
    book = CampaignBook()
    for n in range(MAX_TARIFFS + 5):
        billing = Billing(model=BillingModel.CPC, price_micros=1 if n else 3)
        book.stage(settings("c1", billing=billing, valid_from_ms=T0 + n * MINUTE), T0)
        book.activate(PANE, T0, T0)
    assert (billed(book, T0), billed(book, T0 + MINUTE)) == (3_000, 1_000)


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
