"""`flags explain | list | rules` over real rows in the embedded engine, and what reviews are checked for."""

import getpass
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import xxhash
from rich.cells import cell_len
from typer.testing import CliRunner

from streams.commands import flags
from streams.commands.flag_words import evidence_text, rule_text, thresholds_of
from streams.errors import ConfigurationError
from streams.events import ClickType, Input
from streams.invalid import GENERAL, InvalidRules, Rule, Velocity
from streams.records import Row, Table
from streams.settings import ClickHouseSettings
from streams.state import flags as state_flags
from streams.verdicts import Decision, FlagState, Review, decode_word
from tests.support.asking import asked_database
from tests.support.clickhouse_views import Database
from tests.support.rows import make_row


@pytest.fixture
async def database(
    migrated_settings: ClickHouseSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Database]:
    async with asked_database(migrated_settings, monkeypatch) as opened:
        yield opened


def called(*words: str, columns: int = 160) -> str:
    result = CliRunner().invoke(flags.app, words, env={"COLUMNS": str(columns)})
    if result.exception is not None:
        raise result.exception
    return result.output


def flag(event_id: str, rule: str = "click_too_soon", /, **values: Any) -> Row:
    usual = {
        "input": "clicks",
        "event": xxhash.xxh3_128_hexdigest(event_id.encode()),
        "event_id": event_id,
        "class": "sivt",
        "state": "raised",
        "currency": "CNY",
        "cost_millimicros": 1_500_000_000,
        "evidence": '{"delay_ms":120,"below_ms":300}',
    }
    return make_row(Table.FLAGS, **{**usual, **values}, rule=rule)


# Looking


async def test_an_event_is_explained_by_all_its_flags_and_what_it_counts_as(database: Database) -> None:
    await database.fill(
        Table.FLAGS,
        flag("k-1"),
        flag("k-1", "user_velocity", mode="observe", evidence='{"clicks":71,"source_kind":"user"}'),
        flag("k-2", "data_centre"),
    )
    shown = called("explain", "k-1")
    for line in (
        "event      k-1",
        "input      clicks, at 2026-09-21 14:13:20 UTC",
        "campaign   c1",
        "counts as  sophisticated invalid traffic: in gross figures only, not billed",
        "cost       CNY 1.50",
        "reason     The action does not follow from an ad that was shown or clicked.",
        "delay 120 ms, below 300 ms",
        "clicks 71, source kind user",
    ):
        assert line in shown
    assert "data_centre" not in shown
    assert "review" not in shown


async def test_a_review_is_told_with_who_and_why(database: Database) -> None:
    told: dict[str, Any] = {
        "state": "overturned",
        "reviewer": "li.wei",
        "review_reason": "our own monitor",
        "version": 2,
    }
    await database.fill(Table.FLAGS, flag("k-1"), flag("k-1", **told))
    shown = called("explain", "k-1")
    assert "counts as  valid: it is in valid figures and billed" in shown
    assert "review     overturned by li.wei, 2026-09-21 14:13:20 UTC: our own monitor" in shown


async def test_every_review_is_told_in_order_and_the_rules_evidence_stays(database: Database) -> None:
    first = {"state": "confirmed", "reviewer": "ana", "review_reason": "looks bad", "review_ms": 1, "version": 2}
    second = {"state": "overturned", "reviewer": "li.wei", "review_reason": "is a test", "review_ms": 2, "version": 3}
    said = [flag("k-1", "review", **each, evidence='{"reviewed_ms":1790000000000}') for each in (second, first)]
    await database.fill(Table.FLAGS, flag("k-1"), *said)
    shown = called("explain", "k-1")
    assert "counts as  valid" in shown
    lines = [" ".join(line.split()) for line in shown.splitlines() if line.startswith("review ")]
    assert [line.split(" by ")[0] for line in lines] == ["review confirmed", "review overturned"]
    assert "ana" in lines[0]
    assert lines[1].endswith("is a test")
    (row,) = [line for line in shown.splitlines() if line.startswith("click_too_soon")]
    assert "raised" in row
    assert "delay 120 ms, below 300 ms" in row


async def test_events_of_one_id_are_told_apart_by_their_input(database: Database) -> None:
    await database.fill(Table.FLAGS, flag("x"), flag("x", "order_repeated", input="conversions", mode="observe"))
    both = called("explain", "x")
    assert both.count("counts as") == 2
    assert called("explain", "x", "--input", "conversions").count("counts as") == 1


async def test_an_event_may_be_named_by_its_digest_where_its_id_was_too_long(database: Database) -> None:
    long_id = "k" * 80
    await database.fill(Table.FLAGS, flag(long_id, event_id=""))
    digest = xxhash.xxh3_128_hexdigest(long_id.encode())
    assert f"event      {digest}" in called("explain", long_id)
    assert called("explain", digest) == called("explain", long_id)


async def test_where_nothing_is_known_it_says_so_and_what_that_may_mean(database: Database) -> None:
    result = CliRunner().invoke(flags.app, ["explain", "it's nothing"])
    assert result.exit_code == 0
    assert "no flag is known on any event it's nothing" in result.output
    assert "tells 2,000 of each input" in " ".join(result.output.split())
    assert xxhash.xxh3_128_hexdigest(b"it's nothing") in result.output
    assert json.loads(called("explain", "nothing", "--json")) == []


def test_the_bound_that_is_told_is_the_one_that_holds() -> None:
    assert flags.MAX_TOLD == state_flags.MAX_TOLD
    assert {state.value for state in flags.State} == {state.value for state in FlagState}
    assert "2,000" in (flags.show_all.__doc__ or "")


async def test_flags_are_listed_by_campaign_rule_and_state_the_last_first(database: Database) -> None:
    await database.fill(
        Table.FLAGS,
        flag("k-1", decided=1_790_000_001),
        flag("k-2", decided=1_790_000_002),
        flag("k-3", "data_centre", decided=1_790_000_003, cost_millimicros=0),
        flag("k-4", campaign_id="c2", state="withdrawn"),
    )
    lines = called("list").splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["2026-09-21"] * 4
    assert [word for line in lines for word in line.split() if word.startswith("k-")] == ["k-3", "k-2", "k-1", "k-4"]
    chosen = called("list", "--campaign", "c1", "--rule", "click_too_soon", "--state", "raised", "--limit", "1")
    assert "k-2" in chosen
    assert "k-1" not in chosen
    assert "only the last 1 are shown" in chosen
    (document,) = json.loads(called("list", "--state", "withdrawn", "--json"))
    assert (document["event_id"], document["evidence"]["delay_ms"]) == ("k-4", 120)
    assert "no flags of campaign c3" in called("list", "--campaign", "c3")


@pytest.mark.parametrize("columns", [80, 120])
async def test_lines_keep_within_the_terminal(database: Database, columns: int) -> None:
    await database.fill(Table.FLAGS, flag("01JC3ZK4Q5G8H0V7M2X9" * 2), flag("k-1", campaign_id="c" * 60))
    for words in (("list",), ("explain", "k-1"), ("rules",)):
        assert max(cell_len(line) for line in called(*words, columns=columns).splitlines()) <= columns


async def test_an_older_database_is_told_with_its_remedy(database: Database) -> None:
    database.command("DROP VIEW flags")
    try:
        with pytest.raises(ConfigurationError, match="start this version's worker once"):
            called("list")
    finally:
        database.command("DELETE FROM schema_migrations WHERE version > 0")


# In words


def test_every_rule_has_words_and_thresholds_that_are_settings() -> None:
    rules = InvalidRules()
    assert all(len(rule_text(rule, rules)) > 10 for rule in Rule)
    named = {name for rule in Rule for name in thresholds_of(rule)}
    assert named == set(InvalidRules.__struct_fields__) - {"modes", "lists"}


def test_thresholds_by_type_are_told() -> None:
    rules = InvalidRules(
        double_click_by_type_ms={ClickType.CARD: 300},
        activity_clicks_by_type={ClickType.CARD: 1_000, ClickType.BUTTON: 9},
        max_clicks_per_impression_by_type={ClickType.CARD: 10},
        click_after_by_type_ms={ClickType.LIVE_ROOM_ENTRY: 0},
        user_velocity=Velocity(60, 600_000, {ClickType.CARD: 120}),
    )
    assert [rule_text(rule, rules) for rule in (Rule.DOUBLE_CLICK, Rule.ACTIVITY_CAP, Rule.REPEATED_CLICK)] == [
        "the same click of one user again within 1 s (card 300 ms)",
        "beyond 200 (card 1,000, button 9) clicks of one user on one campaign in a clock hour",
        "beyond 3 (card 10) clicks on one impression",
    ]
    assert rule_text(Rule.CLICK_TOO_SOON, rules) == "a click within 300 ms (live_room_entry 0 ms) of its impression"
    assert rule_text(Rule.USER_VELOCITY, rules) == "60 (card 120) clicks of one user within 10 min"


def test_evidence_is_told_with_its_units() -> None:
    seen = {
        "delay_ms": -1_500,
        "touch_ms": 1_790_000_000_000,
        "touch": "0123456789abcdef0123456789abcdef",
        "width_px": 1,
        "ratio": 0.123456,
        "clicks": 12_345.0,
        "prefetch": True,
        "user_agent": "",
        "viewable": None,
    }
    assert evidence_text(seen) == (
        "delay -1.5 s, touch 2026-09-21 14:13:20 UTC, touch 01234567…, width 1 px, ratio 0.1235, clicks 12,345, "
        "prefetch yes, user agent (empty)"
    )
    assert evidence_text({}) == ""


def test_rules_are_listed_with_their_modes_under_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "CAMPAIGN_STREAMS_RULES", '{"invalid": {"modes": {"click_too_soon": "on"}, "click_after_ms": 250}}'
    )
    documents = {document["rule"]: document for document in json.loads(called("rules", "--json"))}
    assert list(documents) == [rule.value for rule in Rule]
    assert {rule for rule, document in documents.items() if document["class"] == "givt"} == {r.value for r in GENERAL}
    assert documents["declared_bot"]["name"] == "Declared bot"
    soon = documents["click_too_soon"]
    assert (soon["mode"], soon["default_mode"], soon["thresholds"]) == (
        "on",
        "observe",
        {"click_after_ms": 250, "click_after_by_type_ms": {}},
    )
    (line,) = [line for line in called("rules").splitlines() if line.startswith("click_too_soon")]
    assert " ".join(line.split()).endswith("sivt on (default observe) a click within 250 ms of its impression")


# Reviews


def reviewed(**values: Any) -> Review:
    usual: dict[str, Any] = {
        "event_id": "k-1",
        "campaign": "c1",
        "source": Input.CLICKS,
        "decision": Decision.OVERTURN,
        "reason": "our own monitor",
        "reviewer": "li.wei",
    }
    return flags.review_of(**{**usual, **values})


async def test_a_review_tells_whether_its_event_is_known_there_or_elsewhere(database: Database) -> None:
    await database.fill(Table.FLAGS, flag("k-1"), flag("k-2", campaign_id="c2"), flag("k-2", input="impressions"))
    known = {
        "k-1": "it has been flagged or reviewed there before",
        "k-2": "warning: an event of this id is flagged among clicks of campaign c2, impressions of campaign c1",
        "k-3": "no flag is known of it",
        xxhash.xxh3_128_hexdigest(b"k-1"): "is an event's digest, no event has this id",
    }
    for event_id, words in known.items():
        assert words in flags._what_is_known(reviewed(event_id=event_id)), event_id


def test_a_review_is_what_the_pipeline_reads() -> None:
    review = reviewed()
    assert decode_word(msgspec.json.encode(review)) == review
    assert (review.campaign_id, review.decision, review.reviewer) == ("c1", "overturn", "li.wei")


def test_the_reviewer_is_the_shells_user_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ops")
    assert reviewed(reviewer=None).reviewer == "ops"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"reason": "  "}, "reason"),
        ({"reason": "x" * 1_001}, "reason"),
        ({"campaign": ""}, "campaign_id"),
        ({"event_id": ""}, "event_id"),
        ({"reviewer": " "}, "reviewer"),
        ({"source": Input.ADJUSTMENTS}, "adjustments are bookkeeping"),
    ],
)
def test_a_wrong_review_is_refused_before_anything_is_connected_to(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        reviewed(**wrong)


def test_a_user_without_a_name_is_told_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid")

    monkeypatch.setattr(getpass, "getuser", nobody)
    with pytest.raises(ConfigurationError, match="--reviewer"):
        reviewed(reviewer=None)
