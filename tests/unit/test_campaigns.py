"""Campaign settings: decoded leniently from the topic, checked completely in files."""

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]  # has no stubs of its own

from streams.campaigns import CampaignSettings, decode_campaign, encode_campaign, problems_of
from streams.documents import CURRENCIES, Problem, known_zones, struct_problems
from streams.events import MAX_RECORD_BYTES, ConversionType, Reason, Rejected

GOOD = {
    "campaign_id": "c1",
    "name": "双十一",
    "advertiser_id": "a1",
    "agency_id": "g1",
    "account_id": "b1",
    "currency": "CNY",
    "time_zone": "Asia/Shanghai",
    "goal": "order",
    "flight_start_ms": 1_000,
    "flight_end_ms": 2_000,
    "valid_from_ms": 500,
    "schema_version": 1,
}


def encoded(**changes: object) -> bytes:
    return msgspec.json.encode({**GOOD, **changes})


def test_settings_survive_the_topic_unchanged() -> None:
    settings = decode_campaign(encoded())
    assert isinstance(settings, CampaignSettings)
    assert settings.goal is ConversionType.ORDER
    assert decode_campaign(encode_campaign(settings)) == settings


def test_only_id_and_currency_are_needed() -> None:
    settings = decode_campaign(b'{"campaign_id":"c1","currency":"USD"}')
    assert settings == CampaignSettings(campaign_id="c1", currency="USD")
    assert settings.time_zone == "UTC"


def test_fields_that_a_later_version_brings_are_tolerated_in_the_topic() -> None:
    assert decode_campaign(encoded(mood={"daily": 5}, budget={"weekly": 5})) == decode_campaign(encoded())


@pytest.mark.parametrize(
    ("raw", "reason", "path"),
    [
        (None, Reason.EMPTY, "$"),
        (b"", Reason.EMPTY, "$"),
        (b" " * (MAX_RECORD_BYTES + 1), Reason.TOO_LARGE, "$"),
        (b"{", Reason.MALFORMED_JSON, "$"),
        (b'{"campaign_id":NaN}', Reason.MALFORMED_JSON, "$"),
        (b'{"campaign_id":"\xff"}', Reason.NOT_UTF8, "$"),
        (b'{"x":' + b"[" * 20_000, Reason.TOO_DEEP, "$"),
        (b"[]", Reason.WRONG_TYPE, "$"),
        (b'{"campaign_id":"c1"}', Reason.MISSING_FIELD, "$.currency"),
        (encoded(campaign_id=7), Reason.WRONG_TYPE, "$.campaign_id"),
        (encoded(campaign_id=""), Reason.OUT_OF_RANGE, "$.campaign_id"),
        (encoded(goal="glory"), Reason.UNKNOWN_VALUE, "$.goal"),
        (encoded(currency="XYZ"), Reason.UNKNOWN_VALUE, "$.currency"),
        (encoded(time_zone="Asia/Shangri-La"), Reason.UNKNOWN_VALUE, "$.time_zone"),
        (encoded(flight_end_ms=1_000), Reason.OUT_OF_RANGE, "$.flight_end_ms"),
        (encoded(flight_start_ms=-1), Reason.OUT_OF_RANGE, "$.flight_start_ms"),
        (encoded(alerts={"ladder_percent": [75, 50]}), Reason.OUT_OF_RANGE, "$.alerts.ladder_percent"),
        (encoded(alerts={"push": ["stalled"], "off": ["stalled"]}), Reason.OUT_OF_RANGE, "$.alerts.off"),
        (
            encoded(alerts={"quiet_hours": {"begins": "08:00", "ends": "08:00"}}),
            Reason.OUT_OF_RANGE,
            "$.alerts.quiet_hours.ends",
        ),
    ],
)
def test_what_is_no_settings_is_rejected_with_its_reason_and_path(raw: bytes | None, reason: Reason, path: str) -> None:
    assert decode_campaign(raw) == Rejected(reason, path)


def test_all_problems_of_a_document_are_found_at_once() -> None:
    document = {
        "campaign_id": 2821,
        "curency": "CNY",
        "time_zone": "Asia/Shangai",
        "goal": "glory",
        "flight_start_ms": 2_000,
        "flight_end_ms": 1_000,
    }
    problems = dict(problems_of(document))
    assert problems == {
        "campaign_id": 'Expected `str`, got `int`; put it in quotes: "2821"',
        "curency": "is unknown; did you mean currency?",
        "currency": "is missing",
        "goal": "Invalid enum value 'glory'; known are " + ", ".join(ConversionType),
        "time_zone": "'Asia/Shangai' is no IANA time zone; did you mean Asia/Shanghai?",
        "flight_end_ms": "must be after flight_start_ms",
    }


def test_clock_times_that_yaml_takes_for_minutes_are_told_as_they_were_meant() -> None:
    quiet = yaml.safe_load("{begins: 23:00, ends: 7:05}")
    found = dict(problems_of({**GOOD, "alerts": {"quiet_hours": quiet, "routes": 5}}))
    assert found == {
        "alerts.quiet_hours.begins": 'Expected `str`, got `int`; put it in quotes: "23:00"',
        "alerts.quiet_hours.ends": 'Expected `str`, got `int`; put it in quotes: "07:05"',
        "alerts.routes": "Expected `array`, got `int`",
    }


def test_what_may_stand_there_is_told() -> None:
    wrong = {"billing": {"model": "cpx"}, "budget": {"daily_micros": 12.5}, "alerts": {"push": ["stalled", "loud"]}}
    found = dict(problems_of({**GOOD, **wrong}))
    assert found["billing.model"].endswith("; known are clearing_price, cpm, cpc, cpa, paid_play, ocpm, ocpc")
    assert found["budget.daily_micros"].endswith("; micros are millionths, and whole: 12.5 is 12500000")
    assert ", balance_low, " in found["alerts.push[1]"]


def test_alerts_that_contradict_themselves_are_refused_each_with_its_path() -> None:
    alerts = {
        "ladder_percent": [50, 90, 75, 90],
        "push": ["stalled", "exhausted"],
        "off": ["ctr_anomaly", "exhausted", "stalled", "stalled"],
        "quiet_hours": {"begins": "23:00", "ends": "23:00"},
    }
    problems = problems_of({**GOOD, "flight_end_ms": 1, "alerts": alerts})
    assert problems == [
        Problem("flight_end_ms", "must be after flight_start_ms"),
        Problem("alerts.ladder_percent", "must rise from step to step; did you mean 50, 75, 90?"),
        Problem("alerts.off", "exhausted is in alerts.push as well; leave it in one of them"),
        Problem("alerts.off", "stalled is in alerts.push as well; leave it in one of them"),
        Problem(
            "alerts.quiet_hours.ends",
            "is when they begin: so none would be quiet; leave quiet_hours out, or put what is not to be pushed in off",
        ),
    ]


@pytest.mark.parametrize(
    "alerts",
    [
        {"off": ["stalled", "ctr_anomaly"]},
        {"push": ["exhausted"], "off": ["stalled"]},
        {"ladder_percent": []},
        {"ladder_percent": [1, 100]},
        {"quiet_hours": {"begins": "23:00", "ends": "08:00"}},
        {"quiet_hours": {"begins": "00:00", "ends": "23:59"}},
        {"routes": ["anything"]},
    ],
)
def test_alerts_that_make_sense_are_taken(alerts: dict[str, object]) -> None:
    """A kind that is off is not pushed by default either: also in a version that was read and written again."""
    assert problems_of({**GOOD, "alerts": alerts}) == []
    settings = decode_campaign(encoded(alerts=alerts))
    assert isinstance(settings, CampaignSettings)
    assert decode_campaign(encode_campaign(settings)) == settings


def test_a_good_document_has_no_problems() -> None:
    assert problems_of(GOOD) == []


def test_a_currency_in_small_letters_gets_a_hint() -> None:
    assert problems_of({**GOOD, "currency": "cny"}) == [
        Problem("currency", "'cny' is no ISO 4217 code; did you mean CNY?")
    ]


@pytest.mark.parametrize("document", [None, 3, "c1", [GOOD]])
def test_what_is_no_table_is_one_problem(document: object) -> None:
    assert [problem.path for problem in problems_of(document)] == [""]


def test_problems_inside_nested_settings_carry_their_whole_path() -> None:
    class Budget(msgspec.Struct):
        daily_micros: int

    class WithBudget(msgspec.Struct):
        budget: Budget | None = None

    assert struct_problems({"budget": {"daily_micro": 1}}, WithBudget) == [
        Problem("budget.daily_micro", "is unknown; did you mean daily_micros?"),
        Problem("budget.daily_micros", "is missing"),
    ]
    assert struct_problems({"budget": None}, WithBudget) == []


@pytest.mark.parametrize("name", ["localtime", "posixrules", "../UTC", "Asia", "", "asia/shanghai"])
def test_a_name_that_means_something_else_on_each_machine_is_no_time_zone(name: str) -> None:
    assert name not in known_zones()


def test_currencies_are_codes_of_money_in_circulation() -> None:
    assert {"CNY", "USD", "EUR", "JPY", "KWD"} <= CURRENCIES
    assert not {"XXX", "XTS", "XAU", "DEM"} & CURRENCIES
    assert all(len(code) == 3 and code.isupper() for code in CURRENCIES)
