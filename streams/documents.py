"""Low-rate documents (settings, balances, sessions): decoded leniently from a topic, checked completely in files.

From a topic unknown fields are tolerated and the first fault decides (law 7); in a file every fault is told at once,
misspelt names too. A document's own rules, which types cannot express, are a function from it to its `Problem`s.
"""

import difflib
import re
import types
import typing
import zoneinfo
from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from typing import Annotated, Final, NamedTuple, TypeVar, get_args, get_origin

import msgspec

from streams.events import MAX_RECORD_BYTES, Reason, Rejected

CURRENCIES: Final = frozenset(
    """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY
    COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR
    ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK
    MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF
    SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU
    UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
    """.split()  # noqa: SIM905 - a list literal would take 150 lines
)
"""ISO 4217 codes of money in circulation (funds, metals and test codes are left out)."""

_NOT_PLACES: Final = frozenset({"localtime", "posixrules", "Factory"})
_MESSAGE = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`$")

T = TypeVar("T")


class Problem(NamedTuple):
    """One fault of a document: where (`flight_end_ms`, `budget.daily_micros`; '' is the whole) and what."""

    path: str
    problem: str


class Fault(NamedTuple):
    """A rule that a document breaks: the reason under which a topic's record is rejected, and what people are told."""

    reason: Reason
    path: str
    problem: str


@cache
def known_zones() -> frozenset[str]:
    """The IANA time zones that this machine or the package tzdata knows; read once."""
    return frozenset(zoneinfo.available_timezones()) - _NOT_PLACES


def decode_document(
    decoder: msgspec.json.Decoder[T], raw: bytes | None, faults_of: Callable[[T], Sequence[Fault]]
) -> T | Rejected:
    """Decodes a record's value. Never raises; the first fault decides the reason."""
    if not raw:
        return Rejected(Reason.EMPTY)
    if len(raw) > MAX_RECORD_BYTES:
        return Rejected(Reason.TOO_LARGE)
    try:
        document = decoder.decode(raw)
    except msgspec.ValidationError as error:
        return _rejected(error)
    except msgspec.DecodeError:
        return Rejected(Reason.MALFORMED_JSON)
    except UnicodeDecodeError:
        return Rejected(Reason.NOT_UTF8)
    except RecursionError:
        return Rejected(Reason.TOO_DEEP)
    broken = faults_of(document)
    return Rejected(broken[0].reason, f"$.{broken[0].path}") if broken else document


def struct_problems(document: object, kind: type[msgspec.Struct], path: str = "") -> list[Problem]:
    """Unknown, missing and ill-typed fields of `document` as a `kind`, and of the structs nested in it."""
    if not isinstance(document, dict):
        return [Problem(path, f"must be a table of settings, not {type(document).__name__}")]
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    problems = [Problem(_join(path, name), _unknown(name, fields)) for name in document if name not in fields]
    for name, field in fields.items():
        if name in document:
            problems += _value_problems(document[name], field.type, _join(path, name))
        elif field.required:
            problems.append(Problem(_join(path, name), "is missing"))
    return problems


def money_faults(currency: str, time_zone: str | None) -> list[Fault]:
    """Unknown currency or time zone, with a hint at what may be meant."""
    broken = []
    if currency not in CURRENCIES:
        broken.append(Fault(Reason.UNKNOWN_VALUE, "currency", _bad_currency(currency)))
    if time_zone is not None and time_zone not in known_zones():
        broken.append(Fault(Reason.UNKNOWN_VALUE, "time_zone", _bad_zone(time_zone)))
    return broken


def _value_problems(value: object, kind: object, path: str) -> list[Problem]:
    nested = _struct_in(kind)
    if nested is not None and value is not None:
        return struct_problems(value, nested, path)
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, below = _parts(error)
        return [Problem(path + below, what + (_hint(value, kind, what) or _more(value, kind, what, path)))]
    return []


def _struct_in(kind: object) -> type[msgspec.Struct] | None:
    """The struct that an annotation `Struct`, `Struct | None` or `Annotated[…]` of these names."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    if get_origin(kind) in (Annotated, types.UnionType, typing.Union):
        return next(filter(None, map(_struct_in, get_args(kind))), None)
    return None


def _bad_currency(code: str) -> str:
    hint = f"; did you mean {code.upper()}?" if code.upper() in CURRENCIES else ""
    return f"{code!r} is no ISO 4217 code{hint}"


def _bad_zone(name: str) -> str:
    close = difflib.get_close_matches(name, known_zones(), n=1)
    hint = f"; did you mean {close[0]}?" if close else ", for example Asia/Shanghai"
    return f"{name!r} is no IANA time zone{hint}"


def _unknown(name: object, fields: dict[str, msgspec.structs.FieldInfo]) -> str:
    close = difflib.get_close_matches(str(name), fields, n=1)
    return "is unknown" + (f"; did you mean {close[0]}?" if close else f"; known are {', '.join(fields)}")


def _hint(value: object, kind: object, what: str) -> str:
    """What the value would be in quotes: YAML takes 2821 for a number, and 23:00 for 1380 minutes."""
    if not what.startswith("Expected `str`") or not isinstance(value, int):
        return ""
    meant = (str(value), f"{value // 60:02}:{value % 60:02}")
    found = next((text for text in meant if _is_taken(text, kind)), None)
    return f'; put it in quotes: "{found}"' if found else ""


def _more(value: object, kind: object, what: str, path: str) -> str:
    """What may stand in a value's place."""
    if what.startswith("Invalid enum value"):
        known = _enum_in(kind)
        return f"; known are {', '.join(str(each.value) for each in known)}" if known else ""
    if what.startswith("Expected `int") and isinstance(value, float) and path.endswith("_micros"):
        return f"; micros are millionths, and whole: {value} is {round(value * 1_000_000)}"
    return ""


def _enum_in(kind: object) -> type[Enum] | None:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind
    return next(filter(None, map(_enum_in, get_args(kind))), None)


def _is_taken(value: object, kind: object) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _parts(error: msgspec.ValidationError) -> tuple[str, str]:
    """What is wrong, and the path below the decoded value (`.a[0]`, or '')."""
    match = _MESSAGE.match(str(error))
    return (match["what"], match["path"] or "") if match else (str(error), "")


def _rejected(error: msgspec.ValidationError) -> Rejected:
    what, below = _parts(error)
    missing = _MISSING.match(what)
    if missing:
        return Rejected(Reason.MISSING_FIELD, f"${below}.{missing['field']}")
    if what.startswith("Invalid"):
        return Rejected(Reason.UNKNOWN_VALUE, f"${below}")
    return Rejected(Reason.WRONG_TYPE if ", got " in what else Reason.OUT_OF_RANGE, f"${below}")
