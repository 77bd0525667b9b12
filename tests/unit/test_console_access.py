"""What each scope sees: its own campaigns, and of these what is billed; no field is shown by accident."""

import msgspec
import pytest

from streams.console.access import LOCAL_OPERATOR, Kind, Principal, Scope, own_campaigns, parse_scope
from streams.console.documents import (
    Alert,
    Document,
    Figures,
    InvalidTraffic,
    PaceLine,
    PacePeriod,
    PacePoint,
    Terms,
    operators_fields,
    shown_to,
)
from streams.console.limits import RateLimit, address_key
from streams.console.parameters import BadCursor, Place, decode_cursor, encode_cursor
from streams.console.routes import OPERATIONS
from streams.errors import ConfigurationError

ADVERTISER = Principal("t", (Scope(Kind.ADVERTISER, "a"),))


def test_operators_see_every_campaign() -> None:
    assert own_campaigns(LOCAL_OPERATOR).sql == "1"


def test_without_a_scope_nothing_is_seen() -> None:
    assert own_campaigns(Principal("t", ())).sql == "0"


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.OPERATOR])
def test_a_name_is_bound_and_never_part_of_the_statement(kind: Kind) -> None:
    name = "x') OR 1 --"
    own = own_campaigns(Principal("t", (Scope(kind, name),)))
    assert name not in own.sql
    assert own.values == {f"own_{kind}": [name]}


def test_several_scopes_see_the_union() -> None:
    who = Principal("t", (Scope(Kind.AGENCY, "g"), Scope(Kind.SHOP, "s"), Scope(Kind.SHOP, "r")))
    own = own_campaigns(who)
    assert own.sql.count(" OR ") == 1
    assert own.values == {"own_agency": ["g"], "own_shop": ["r", "s"]}


@pytest.mark.parametrize(
    "text", ["", "admin", "operator:x", "advertiser", "advertiser:", "shop:a\nb", "shop:" + "x" * 129]
)
def test_what_is_no_scope_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no scope"):
        parse_scope(text)


HIDDEN = {
    Figures: {"gross_spend_micros", "invalid_spend_micros", "duplicates", "late", "judged", "undecided"},
    PaceLine: {"rate"},
    PacePeriod: {"rate", "in_flight_micros", "reason", "reason_text", "note"},
    PacePoint: {"rate"},
    Alert: {"audience", "is_pushed", "seen", "expected", "unit", "cause"},
    Terms: {"whole"},
    InvalidTraffic: {"rules"},
}
"""Thresholds, evidence, controls, and what is not billed."""


@pytest.mark.parametrize("kind", HIDDEN)
def test_fields_of_operators_are_these(kind: type[Document]) -> None:
    assert operators_fields(kind) == HIDDEN[kind]


def fields_seen(kind: object, seen: set[str]) -> None:
    """Every field that a type shows to everybody, all the way down."""
    info = msgspec.inspect.type_info(kind) if isinstance(kind, type) else kind
    if isinstance(info, msgspec.inspect.StructType):
        for field in info.fields:
            if field.name not in operators_fields(info.cls):
                seen.add(field.name)
                fields_seen(field.type, seen)
    for inner in ("type", "item_type", "value_type"):
        if hasattr(info, inner):
            fields_seen(getattr(info, inner), seen)
    for each in getattr(info, "types", ()):
        fields_seen(each, seen)


def test_nothing_internal_is_in_what_everybody_sees() -> None:
    seen: set[str] = set()
    for operation in OPERATIONS:
        if not operation.operators_only:
            fields_seen(operation.answer, seen)
    assert "spend_micros" in seen
    words = ("evidence", "threshold", "risk", "score", "rule", "gross", "cause", "reason", "rate", "account", "whole")
    assert {name for name in seen if any(word in name for word in words)} == {"reasons", "reason_class"}


def test_what_is_hidden_goes_all_the_way_down() -> None:
    rules = InvalidTraffic(as_of=msgspec.UNSET, windows={}, credited_micros=0, currency="", reasons=[], rules=[])  # type: ignore[arg-type]
    assert "rules" not in msgspec.to_builtins(shown_to(ADVERTISER, rules))
    assert "rules" in msgspec.to_builtins(shown_to(LOCAL_OPERATOR, rules))


# Cursors


def test_a_cursor_leads_back_to_its_place() -> None:
    place = Place("campaigns", 1.5, "c1")
    assert decode_cursor(encode_cursor(place), "campaigns") == place
    assert decode_cursor(None, "campaigns") is None


@pytest.mark.parametrize("text", ["x", "é", "AAAA", "W10", encode_cursor(Place("alerts", 1.0, "a"))])
def test_any_other_text_is_no_cursor(text: str) -> None:
    with pytest.raises(BadCursor):
        decode_cursor(text, "campaigns")


# Limits


def test_a_key_may_ask_so_often_and_then_waits() -> None:
    limit = RateLimit(60)
    assert [limit.take("a", 0.0) for _ in range(60)] == [0.0] * 60
    assert limit.take("a", 0.0) == 1.0
    assert limit.take("b", 0.0) == 0.0
    assert limit.take("a", 1.0) == 0.0


def test_looking_takes_nothing() -> None:
    limit = RateLimit(60)
    assert all(limit.wait_s("a", 0.0) == 0.0 for _ in range(100))


def test_the_map_of_keys_is_bounded_and_says_what_it_forgot() -> None:
    limit = RateLimit(60, max_keys=10)
    for n in range(25):
        limit.take(str(n), 0.0)
    assert (len(limit), limit.forgotten) == (10, 15)


def test_an_ipv6_network_is_one_address() -> None:
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff:1") != address_key("2001:db8:1::1")
    assert address_key("::ffff:192.0.2.1") == address_key("192.0.2.1")
    assert address_key("fe80::1%eth0") == address_key("fe80::2")
    assert address_key(None) == "unknown"
