"""The committed JSON Schemas are those of the types."""

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from streams.accounts import AccountBalance, SharedBudget
from streams.events import EVENT_TYPES, Input
from streams.invalid import Rule, SourceKind
from streams.jobs.flags import PAGE, flags_page
from streams.jobs.generate import generate, generate_campaigns, traffic_profile
from streams.jobs.schemas import SCHEMAS_DIRECTORY, schema_documents, write_schemas
from streams.records import DeadLetter, Entry
from streams.signals import (
    Alert,
    AlertState,
    Allowance,
    Audience,
    Control,
    LiveSession,
    PoolKind,
    RateReason,
    SessionState,
    Text,
)
from streams.terms import AlertKind
from streams.verdicts import Decision, Flag, FlagState, Review, Verdict

DOCUMENTS = schema_documents()


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_a_committed_schema_equals_the_type(name: str) -> None:
    assert (SCHEMAS_DIRECTORY / name).read_bytes() == DOCUMENTS[name], "run make schemas"


def test_no_schema_is_left_over() -> None:
    committed = {f"events/{path.name}" for path in (SCHEMAS_DIRECTORY / "events").glob("*.json")}
    assert (
        committed
        == {name for name in DOCUMENTS if name.startswith("events/")}
        == {f"events/{source}.json" for source in Input}
    )
    assert {path.name for path in SCHEMAS_DIRECTORY.glob("*.json")} == {n for n in DOCUMENTS if "/" not in n}


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_every_field_has_a_description(name: str) -> None:
    definitions = json.loads(DOCUMENTS[name])["$defs"]
    fields = {
        f"{kind}.{field}": schema
        for kind, definition in definitions.items()
        for field, schema in definition.get("properties", {}).items()
    }
    assert fields
    assert [field for field, schema in fields.items() if not schema.get("description", "").strip()] == []


def test_schemas_are_written_the_same_each_time(tmp_path: Path) -> None:
    first = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in write_schemas(tmp_path)}
    assert first == DOCUMENTS == schema_documents()
    assert all(document.endswith(b"}\n") for document in first.values())


def test_every_generated_event_is_valid_by_its_schema() -> None:
    validators = {
        source: jsonschema.Draft202012Validator(json.loads(DOCUMENTS[f"events/{source}.json"])) for source in Input
    }
    profile = traffic_profile(rate=40, duration_ms=100_000, compress=1e-5, cvr=0.5, ctr=0.1, refund_share=0.9)
    seen = set()
    for event in generate(profile, seed=5):
        validators[event.input].validate(json.loads(event.value))
        seen.add(event.input)
    assert seen == set(EVENT_TYPES)


def valid_by(name: str, document: msgspec.Struct) -> None:
    jsonschema.Draft202012Validator(json.loads(DOCUMENTS[name])).validate(json.loads(msgspec.json.encode(document)))


def test_what_the_loop_around_a_campaign_exchanges_is_valid_by_its_schema() -> None:
    balance = AccountBalance(account_id="a", currency="CNY", cash_micros=-1, as_of_ms=1)
    shared = SharedBudget(shared_budget_id="s", advertiser_id="v", currency="CNY", daily_micros=1)
    valid_by("account.json", balance)
    valid_by("account.json", shared)
    valid_by(
        "live_session.json",
        LiveSession(campaign_id="c", live_session_id="l", state=SessionState.STARTED, event_time_ms=1),
    )
    valid_by(
        "allowance.json",
        Allowance(
            campaign_id="c",
            pool=PoolKind.BALANCE,
            pool_id="a",
            currency="CNY",
            limit_micros=-1,
            left_micros=-1,
            sequence=1,
        ),
    )
    control = Control(
        campaign_id="c",
        rate=0.5,
        reason=RateReason.ON_PLAN,
        valid_until_ms=1,
        rate_when_stale=0.0,
        spend_micros=1,
        period_start_ms=0,
        decided_ms=1,
    )
    valid_by("control.json", control)
    alert = Alert(
        alert_id="i",
        kind=AlertKind.STALLED,
        state=AlertState.FIRING,
        audience=Audience.ADVERTISER,
        is_pushed=True,
        cause="campaign:c",
        began_ms=1,
        changed_ms=1,
        decided_ms=1,
        text=Text("It stands.", "停了。"),
    )
    valid_by("alert.json", alert)
    validator = jsonschema.Draft202012Validator(json.loads(DOCUMENTS["account.json"]))
    assert not validator.is_valid({**json.loads(msgspec.json.encode(shared)), "kind": "balance"})


def test_flags_verdicts_and_reviews_are_valid_by_their_schemas() -> None:
    digest = "ab" * 16
    valid_by(
        "flag.json",
        Flag(
            flag_id=digest,
            rule=Rule.DATA_CENTRE,
            validity="givt",
            mode="on",
            state=FlagState.RAISED,
            input=Input.CLICKS,
            event=digest,
            event_time_ms=1,
            campaign_id="c",
            evidence={"network": "203.0.113.0/24", "listed": None},
        ),
    )
    verdict = Verdict(
        rule=Rule.USER_VELOCITY,
        source_kind=SourceKind.USER,
        source="u",
        clicks=(digest,),
        evidence={"clicks": 61.0},
    )
    valid_by("verdict.json", verdict)
    review = Review(
        campaign_id="c",
        input=Input.CLICKS,
        event_id="k",
        decision=Decision.OVERTURN,
        reviewer="li.wei",
        reason="our own monitor",
        at_ms=1,
    )
    valid_by("review.json", review)
    validator = jsonschema.Draft202012Validator(json.loads(DOCUMENTS["review.json"]))
    assert not validator.is_valid({**json.loads(msgspec.json.encode(review)), "reason": ""})


def test_settings_and_dead_letters_are_valid_by_their_schemas() -> None:
    settings = jsonschema.Draft202012Validator(json.loads(DOCUMENTS["campaign_settings.json"]))
    for campaign in generate_campaigns(traffic_profile(campaigns=5)):
        settings.validate(msgspec.json.decode(msgspec.json.encode(campaign)))
    letter = DeadLetter(
        topic="ads.clicks",
        partition=0,
        offset=7,
        log_epoch=0,
        timestamp_ms=1,
        entry=Entry.REJECTED,
        reason="empty",
        path="$",
        key=None,
        value=b"\xff",
    )
    validator = jsonschema.Draft202012Validator(json.loads(DOCUMENTS["dead_letter.json"]))
    validator.validate(json.loads(msgspec.json.encode(letter)))
    assert not validator.is_valid({"topic": "ads.clicks"})


def test_the_committed_page_of_rules_is_the_one_that_is_generated() -> None:
    assert PAGE.read_text(encoding="utf-8") == flags_page(), "run make schemas"
