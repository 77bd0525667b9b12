"""Bytes to an event, or to the reason and the place in the document."""

import json
from typing import Any

import pytest

from streams.events import (
    EVENT_TYPES,
    MAX_RECORD_BYTES,
    Adjustment,
    Conversion,
    Impression,
    Input,
    Reason,
    Rejected,
    TouchType,
)
from streams.stages.decode import Decoder
from tests.unit.given import document, encoded


def sound(**fields: Any) -> bytes:
    return json.dumps({**document(Input.IMPRESSIONS, "e1"), **fields}).encode()


def spliced(tail: bytes) -> bytes:
    """A sound impression with raw JSON put in before its closing brace."""
    return sound()[:-1] + b"," + tail + b"}"


def decoded(raw: bytes | None, source: Input = Input.IMPRESSIONS) -> Any:
    return Decoder(source).decode(raw)


# Every reason that the bytes alone can have

REJECTIONS: list[tuple[str, bytes | None, Reason, str]] = [
    ("a tombstone", None, Reason.EMPTY, "$"),
    ("nothing", b"", Reason.EMPTY, "$"),
    ("one byte too many", b" " * (MAX_RECORD_BYTES + 1), Reason.TOO_LARGE, "$"),
    ("depth in an unknown field", spliced(b'"x":' + b"[" * 5_000 + b"]" * 5_000), Reason.TOO_DEEP, "$"),
    ("depth without an end", b'{"a":' * 5_000, Reason.TOO_DEEP, "$"),
    ("bytes that are no UTF-8", sound().replace(b"e1", b"\xff\xfe"), Reason.NOT_UTF8, "$"),
    ("a surrogate in UTF-8", sound().replace(b"e1", b"\xed\xa0\x80"), Reason.NOT_UTF8, "$"),
    ("half a surrogate pair", spliced(b'"user_id":"\\ud800"'), Reason.MALFORMED_JSON, "$"),
    ("half a pair in an unknown field", spliced(b'"x":"\\ud800"'), Reason.MALFORMED_JSON, "$"),
    ("a cut document", sound()[:-3], Reason.MALFORMED_JSON, "$"),
    ("a blank", b" ", Reason.MALFORMED_JSON, "$"),
    ("a zero byte", b"\x00", Reason.MALFORMED_JSON, "$"),
    ("a byte order mark", b"\xef\xbb\xbf" + sound(), Reason.MALFORMED_JSON, "$"),
    ("two documents, a line each", sound() + b"\n" + sound(), Reason.MALFORMED_JSON, "$"),
    ("a bare newline in a string", spliced(b'"region":"a\nb"'), Reason.MALFORMED_JSON, "$"),
    ("a bare zero byte in a string", spliced(b'"region":"a\x00b"'), Reason.MALFORMED_JSON, "$"),
    ("NaN in a known field", spliced(b'"client_time_ms":NaN'), Reason.MALFORMED_JSON, "$"),
    ("NaN in an unknown field", spliced(b'"x":NaN'), Reason.MALFORMED_JSON, "$"),
    ("Infinity", spliced(b'"x":Infinity'), Reason.MALFORMED_JSON, "$"),
    ("minus Infinity", spliced(b'"client_time_ms":-Infinity'), Reason.MALFORMED_JSON, "$"),
    ("no id", b'{"event_time_ms":1}', Reason.MISSING_FIELD, "$.event_id"),
    ("no time", b'{"event_id":"e"}', Reason.MISSING_FIELD, "$.event_time_ms"),
    ("half an experiment", spliced(b'"experiments":[{"id":"a"}]'), Reason.MISSING_FIELD, "$.experiments[0]"),
    ("a list", b"[1,2,3]", Reason.WRONG_TYPE, "$"),
    ("null", b"null", Reason.WRONG_TYPE, "$"),
    ("a number", b"7", Reason.WRONG_TYPE, "$"),
    ("time as text", sound(event_time_ms="5"), Reason.WRONG_TYPE, "$.event_time_ms"),
    ("time as a fraction", spliced(b'"event_time_ms":1.5'), Reason.WRONG_TYPE, "$.event_time_ms"),
    ("time as a truth", sound(event_time_ms=True), Reason.WRONG_TYPE, "$.event_time_ms"),
    ("a flag as a number", sound(viewable=1), Reason.WRONG_TYPE, "$.viewable"),
    ("depth in a known field", spliced(b'"experiments":' + b"[" * 5_000), Reason.WRONG_TYPE, "$.experiments[0]"),
    ("a second experiment that is none", spliced(b'"experiments":[{"id":"a","arm":"b"},7]'), Reason.WRONG_TYPE,
     "$.experiments[1]"),
    ("an exponent", spliced(b'"client_time_ms":1e400'), Reason.WRONG_TYPE, "$.client_time_ms"),
    ("an unknown kind of traffic", sound(traffic="stolen"), Reason.UNKNOWN_VALUE, "$.traffic"),
    ("an empty id", sound(event_id=""), Reason.OUT_OF_RANGE, "$.event_id"),
    ("a time before 1970", sound(event_time_ms=-1), Reason.OUT_OF_RANGE, "$.event_time_ms"),
    ("17 experiments", sound(experiments=[{"id": "a", "arm": "b"}] * 17), Reason.OUT_OF_RANGE, "$.experiments"),
    ("5,000 digits", spliced(b'"client_time_ms":' + b"9" * 5_000), Reason.OUT_OF_RANGE, "$.client_time_ms"),
    ("30 digits", spliced(b'"placement_width_px":' + b"9" * 30), Reason.OUT_OF_RANGE, "$.placement_width_px"),
    ("minus 30 digits", spliced(b'"placement_width_px":-' + b"9" * 30), Reason.OUT_OF_RANGE, "$.placement_width_px"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "reason", "path"), [r[1:] for r in REJECTIONS], ids=[r[0] for r in REJECTIONS])
def test_what_is_no_event_has_its_reason_and_its_place(raw: bytes | None, reason: Reason, path: str) -> None:
    assert decoded(raw) == Rejected(reason, path)


def test_every_reason_that_bytes_can_have_is_shown_above() -> None:
    of_context = {Reason.PAID_WITHOUT_CAMPAIGN, Reason.MONEY_WITHOUT_CURRENCY, Reason.FUTURE, Reason.INTERNAL_ERROR}
    assert {rejection[2] for rejection in REJECTIONS} == set(Reason) - of_context


@pytest.mark.parametrize(
    ("source", "fields", "reason", "path"),
    [
        (Input.PLAYS, {"milestone": None}, Reason.MISSING_FIELD, "$.milestone"),
        (Input.PLAYS, {"milestone": "7s"}, Reason.UNKNOWN_VALUE, "$.milestone"),
        (Input.PLAYS, {"loop": 0}, Reason.OUT_OF_RANGE, "$.loop"),
        (Input.PLAYS, {"watched_ms": 86_400_000_001}, Reason.OUT_OF_RANGE, "$.watched_ms"),
        (Input.CLICKS, {"click_type": "double"}, Reason.UNKNOWN_VALUE, "$.click_type"),
        (Input.CLICKS, {"clearing_price_millimicros": -1}, Reason.OUT_OF_RANGE, "$.clearing_price_millimicros"),
        (Input.CONVERSIONS, {"conversion_type": None}, Reason.MISSING_FIELD, "$.conversion_type"),
        (Input.CONVERSIONS, {"value_micros": 10**15 + 1}, Reason.OUT_OF_RANGE, "$.value_micros"),
        (Input.CONVERSIONS, {"items": [{"product_id": "a"}] * 101}, Reason.OUT_OF_RANGE, "$.items"),
        (Input.CONVERSIONS, {"items": [{"product_id": "a"}, {"product_id": ""}]}, Reason.OUT_OF_RANGE,
         "$.items[1].product_id"),
        (Input.CONVERSIONS, {"attribution": {}}, Reason.MISSING_FIELD, "$.attribution"),
        (Input.CONVERSIONS, {"attribution": {"touch_type": "tap"}}, Reason.UNKNOWN_VALUE, "$.attribution.touch_type"),
        (Input.CONVERSIONS, {"attribution": {"touch_type": "click", "weight_ppm": 1_000_001}}, Reason.OUT_OF_RANGE,
         "$.attribution.weight_ppm"),
        (Input.ADJUSTMENTS, {"adjusted_event_id": None}, Reason.MISSING_FIELD, "$.adjusted_event_id"),
        (Input.ADJUSTMENTS, {"amount_micros": -(10**15) - 1}, Reason.OUT_OF_RANGE, "$.amount_micros"),
        (Input.ENGAGEMENTS, {"engagement_type": "wave"}, Reason.UNKNOWN_VALUE, "$.engagement_type"),
    ],
)  # fmt: skip
def test_each_input_has_its_own_reasons(source: Input, fields: dict[str, Any], reason: Reason, path: str) -> None:
    assert decoded(encoded(document(source, "e1", **fields)), source) == Rejected(reason, path)


# Bounds

LAST_MS = 4_102_444_800_000


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("event_id", "x" * 128, "x" * 129),
        ("campaign_id", "字" * 128, "字" * 129),  # characters, not bytes
        ("region", "x" * 128, "x" * 129),
        ("user_agent", "x" * 2_048, "x" * 2_049),
        ("currency", "USD", "USDT"),
        ("currency", "CNY", "¥"),
        ("event_time_ms", 0, -1),
        ("event_time_ms", LAST_MS, LAST_MS + 1),
        ("schema_version", 1, 0),
        ("schema_version", 1_000, 1_001),
        ("placement_width_px", 100_000, 100_001),
        ("clearing_price_millimicros", 10**15, 10**15 + 1),
        ("experiments", [{"id": "a", "arm": "b"}] * 16, [{"id": "a", "arm": "b"}] * 17),
    ],
)
def test_a_bound_belongs_to_what_is_allowed(name: str, inside: object, outside: object) -> None:
    assert isinstance(decoded(sound(**{name: inside})), Impression)
    assert decoded(sound(**{name: outside})) == Rejected(Reason.OUT_OF_RANGE, f"$.{name}")


def test_a_label_may_be_empty_and_an_identifier_may_not() -> None:
    assert decoded(sound(region="")).region == ""
    assert decoded(sound(campaign_id="")) == Rejected(Reason.OUT_OF_RANGE, "$.campaign_id")


def test_a_record_of_the_greatest_size_is_decoded() -> None:
    raw = sound(x="")
    full = sound(x="y" * (MAX_RECORD_BYTES - len(raw)))
    assert len(full) == MAX_RECORD_BYTES
    assert isinstance(decoded(full), Impression)
    assert decoded(full + b" ") == Rejected(Reason.TOO_LARGE)
    assert list(Decoder(Input.IMPRESSIONS).decode_all([full + b" "])) == [Rejected(Reason.TOO_LARGE)]


def test_a_refund_at_its_bound_is_taken() -> None:
    event = decoded(encoded(document(Input.ADJUSTMENTS, "a1", amount_micros=-(10**15))), Input.ADJUSTMENTS)
    assert isinstance(event, Adjustment)
    assert event.amount_micros == -(10**15)


# What is tolerated


def test_unknown_fields_are_left_out() -> None:
    plain, wide = decoded(sound()), decoded(sound(shoe_size=43, deep={"er": [1, {"est": None}]}))
    assert plain == wide


def test_unknown_fields_may_hold_what_known_ones_may_not() -> None:
    assert decoded(spliced(b'"x":1e999,"y":' + b"[" * 500 + b"]" * 500)) == decoded(sound())


def test_the_schema_version_is_carried() -> None:
    assert decoded(sound()).schema_version == 1
    assert decoded(sound(schema_version=7)).schema_version == 7


def test_the_clients_clock_may_be_any_whole_number() -> None:
    assert decoded(spliced(b'"client_time_ms":-' + b"9" * 30)).client_time_ms == -(10**30 - 1)


def test_blanks_and_line_ends_around_a_document_are_tolerated() -> None:
    assert decoded(b"\r\n " + sound() + b"\n") == decoded(sound())


def test_text_may_hold_whatever_unicode_has() -> None:
    assert decoded(sound(campaign_id="双十一 \n\t\x00 \U0001f6d2")).campaign_id == "双十一 \n\t\x00 \U0001f6d2"


def test_a_null_is_as_good_as_a_missing_optional_field() -> None:
    assert decoded(spliced(b'"region":null,"currency":null')) == decoded(sound())


def test_the_last_of_two_fields_of_one_name_counts() -> None:
    assert decoded(spliced(b'"event_id":"second"')).event_id == "second"


def test_what_was_attributed_upstream_is_carried() -> None:
    touch = {"touch_type": "view", "touch_id": "t", "touch_time_ms": 5, "model": "last_touch", "window_ms": 9}
    event = decoded(encoded(document(Input.CONVERSIONS, "k", attribution=touch)), Input.CONVERSIONS)
    assert isinstance(event, Conversion)
    assert event.attribution is not None
    assert event.attribution.touch_type is TouchType.VIEW
    assert (event.attribution.touch_id, event.attribution.touch_time_ms) == ("t", 5)
    assert (event.attribution.model, event.attribution.window_ms, event.attribution.weight_ppm) == (
        "last_touch",
        9,
        1_000_000,
    )


# Batches


@pytest.mark.parametrize("raw", [r[1] for r in REJECTIONS], ids=[r[0] for r in REJECTIONS])
def test_one_bad_record_leaves_the_others_of_its_batch_alone(raw: bytes | None) -> None:
    first, bad, last = Decoder(Input.IMPRESSIONS).decode_all([sound(event_id="a"), raw, sound(event_id="b")])
    assert isinstance(bad, Rejected)
    assert isinstance(first, Impression)
    assert isinstance(last, Impression)
    assert (first.event_id, last.event_id) == ("a", "b")


def test_a_batch_is_decoded_as_its_records_are_one_by_one() -> None:
    decoder = Decoder(Input.IMPRESSIONS)
    values = [r[1] for r in REJECTIONS] + [sound(event_id=str(n)) for n in range(5)]
    assert list(decoder.decode_all(values)) == [decoder.decode(value) for value in values]


def test_an_empty_batch_is_nothing() -> None:
    assert list(Decoder(Input.CLICKS).decode_all([])) == []


@pytest.mark.parametrize("source", list(Input))
def test_the_topic_decides_the_type(source: Input) -> None:
    event = decoded(encoded(document(source, "e1")), source)
    assert type(event) is EVENT_TYPES[source]
    assert event.input is source


def test_the_path_of_a_rejection_is_bounded() -> None:
    items = [{"product_id": "a", "quantity": 1}] * 99 + [{"product_id": "a", "quantity": -1}]
    rejected = decoded(encoded(document(Input.CONVERSIONS, "k", items=items)), Input.CONVERSIONS)
    assert rejected == Rejected(Reason.OUT_OF_RANGE, "$.items[99].quantity")
    assert len(rejected.path) <= 256
