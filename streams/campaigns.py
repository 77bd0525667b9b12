"""What a version in the topic ads.campaigns holds, and how one is checked.

Settings are versioned: every record is a whole document that holds from `valid_from_ms` on, until a later version
does. The pipeline decodes them leniently (`decode_campaign`: unknown fields are tolerated, the first fault decides);
files are checked strictly and completely (`problems_of`: every fault of a document at once).

Budgets and billing will be nested structs of their own with a default of None; `problems_of` descends into nested
structs already, and old versions in the topic stay readable.
"""

import difflib
import re
import types
import typing
import zoneinfo
from functools import cache
from typing import Annotated, Final, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta

from streams.events import MAX_RECORD_BYTES, ConversionType, Currency, Id, Reason, Rejected, TimeMs

Name = Annotated[str, Meta(max_length=256)]
ZoneName = Annotated[str, Meta(min_length=1, max_length=64)]

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


class CampaignSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a campaign's settings. The record's key is the campaign id."""

    campaign_id: Annotated[Id, Meta(description="Campaign. The record's key.")]
    name: Annotated[Name, Meta(description="Name for people.")] = ""
    advertiser_id: Annotated[Id | None, Meta(description="Advertiser.")] = None
    agency_id: Annotated[Id | None, Meta(description="Agency.")] = None
    account_id: Annotated[Id | None, Meta(description="Account that is billed.")] = None
    currency: Annotated[
        Currency, Meta(description="ISO 4217 code. A campaign has one; other money is counted and refused.")
    ]
    time_zone: Annotated[ZoneName, Meta(description="IANA time zone of the campaign's day.")] = "UTC"
    goal: Annotated[
        ConversionType | None, Meta(description="Conversion type that CVR is about; null: as the rules say.")
    ] = None
    flight_start_ms: Annotated[
        TimeMs | None, Meta(description="Begin of the flight, epoch ms UTC, included; null: open.")
    ] = None
    flight_end_ms: Annotated[
        TimeMs | None, Meta(description="End of the flight, epoch ms UTC, excluded; null: open.")
    ] = None
    valid_from_ms: Annotated[
        TimeMs | None, Meta(description="This version holds from then on, epoch ms UTC; null: when it was appended.")
    ] = None
    schema_version: Annotated[int, Meta(ge=1, le=1000, description="Version of this document's schema.")] = 1


class Problem(NamedTuple):
    """One fault of a document: where (`flight_end_ms`, `budget.daily_micros`; '' is the whole) and what."""

    path: str
    problem: str


_DECODER: Final = msgspec.json.Decoder(CampaignSettings)
_MESSAGE = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`$")


@cache
def known_zones() -> frozenset[str]:
    """The IANA time zones that this machine or the package tzdata knows; read once."""
    return frozenset(zoneinfo.available_timezones()) - _NOT_PLACES


def encode_campaign(settings: CampaignSettings) -> bytes:
    """The record's value: JSON in the order of the fields."""
    return msgspec.json.encode(settings)


def decode_campaign(raw: bytes | None) -> CampaignSettings | Rejected:
    """Decodes a value of ads.campaigns. Never raises; the first fault decides the reason."""
    if not raw:
        return Rejected(Reason.EMPTY)
    if len(raw) > MAX_RECORD_BYTES:
        return Rejected(Reason.TOO_LARGE)
    try:
        settings = _DECODER.decode(raw)
    except msgspec.ValidationError as error:
        return _rejected(error)
    except msgspec.DecodeError:
        return Rejected(Reason.MALFORMED_JSON)
    except UnicodeDecodeError:
        return Rejected(Reason.NOT_UTF8)
    except RecursionError:
        return Rejected(Reason.TOO_DEEP)
    broken = _broken_rules(settings)
    return Rejected(broken[0][0], f"$.{broken[0][1].path}") if broken else settings


def problems_of(document: object) -> list[Problem]:
    """Every fault of one document (builtin values, as read from YAML or TOML), strictly: misspelt names too.

    Rules across fields are judged once the fields themselves are right.
    """
    problems = struct_problems(document, CampaignSettings)
    if problems:
        return problems + _rules_of_sound_fields(document, problems)
    return [problem for _, problem in _broken_rules(msgspec.convert(document, CampaignSettings))]


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


def _value_problems(value: object, kind: object, path: str) -> list[Problem]:
    nested = _struct_in(kind)
    if nested is not None and value is not None:
        return struct_problems(value, nested, path)
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, below = _parts(error)
        return [Problem(path + below, what + _hint(value, what))]
    return []


def _struct_in(kind: object) -> type[msgspec.Struct] | None:
    """The struct that an annotation `Struct`, `Struct | None` or `Annotated[…]` of these names."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    if get_origin(kind) in (Annotated, types.UnionType, typing.Union):
        return next(filter(None, map(_struct_in, get_args(kind))), None)
    return None


def _broken_rules(settings: CampaignSettings) -> list[tuple[Reason, Problem]]:
    """Rules that types cannot express."""
    broken = []
    if settings.currency not in CURRENCIES:
        broken.append((Reason.UNKNOWN_VALUE, _bad_currency(settings.currency)))
    if settings.time_zone not in known_zones():
        broken.append((Reason.UNKNOWN_VALUE, _bad_zone(settings.time_zone)))
    if _ends_before_it_starts(settings.flight_start_ms, settings.flight_end_ms):
        broken.append((Reason.OUT_OF_RANGE, Problem("flight_end_ms", "must be after flight_start_ms")))
    return broken


def _rules_of_sound_fields(document: object, problems: list[Problem]) -> list[Problem]:
    """The rules of those fields that have no problem yet, so that one reading shows everything."""
    if not isinstance(document, dict):
        return []
    wrong = {problem.path for problem in problems}
    names = {field.encode_name for field in msgspec.structs.fields(CampaignSettings)}
    sound = {name: value for name, value in document.items() if name in names - wrong}
    draft = msgspec.convert({"campaign_id": "?", "currency": "USD", **sound}, CampaignSettings)
    return [problem for _, problem in _broken_rules(draft)]


def _ends_before_it_starts(start_ms: int | None, end_ms: int | None) -> bool:
    return start_ms is not None and end_ms is not None and end_ms <= start_ms


def _bad_currency(code: str) -> Problem:
    hint = f"; did you mean {code.upper()}?" if code.upper() in CURRENCIES else ""
    return Problem("currency", f"{code!r} is no ISO 4217 code{hint}")


def _bad_zone(name: str) -> Problem:
    close = difflib.get_close_matches(name, known_zones(), n=1)
    hint = f"; did you mean {close[0]}?" if close else ", for example Asia/Shanghai"
    return Problem("time_zone", f"{name!r} is no IANA time zone{hint}")


def _unknown(name: object, fields: dict[str, msgspec.structs.FieldInfo]) -> str:
    close = difflib.get_close_matches(str(name), fields, n=1)
    return "is unknown" + (f"; did you mean {close[0]}?" if close else f"; known are {', '.join(fields)}")


def _hint(value: object, what: str) -> str:
    if what.startswith("Expected `str`") and isinstance(value, int):
        return f'; put it in quotes: "{value}"'
    return ""


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
    if what.startswith("Invalid enum value"):
        return Rejected(Reason.UNKNOWN_VALUE, f"${below}")
    return Rejected(Reason.WRONG_TYPE if ", got " in what else Reason.OUT_OF_RANGE, f"${below}")
