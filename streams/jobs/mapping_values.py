"""How one value of an event is made from a row's columns, as a mapping file says it.

`maker` turns a checked `ValueSpec` into a function of the row's columns. It returns None for null, and raises
`Misfit` where the row's value does not fit; `streams.jobs.mapping` turns that into a value of its own.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from streams.documents import known_zones
from streams.jobs.mapping_targets import Target

Scalar = str | int | float | bool | None
Columns = Mapping[str, object]
Make = Callable[[Columns], object]

FILE_COLUMN: Final = "@file"
LINE_COLUMN: Final = "@line"
OTHERWISE: Final = "*"
"""The entry of `values` for whatever it does not list."""

EPOCHS: Final[dict[str, Decimal]] = {"epoch_s": Decimal(1000), "epoch_ms": Decimal(1), "epoch_us": Decimal("0.001")}
ISO: Final = "iso"
UNITS: Final[dict[str, dict[str, Decimal]]] = {
    "_millimicros": {
        "currency": Decimal(10**9),
        "cent": Decimal(10**7),
        "fen": Decimal(10**7),
        "micros": Decimal(1000),
        "currency_per_mille": Decimal(10**6),
        "cent_per_mille": Decimal(10_000),
        "fen_per_mille": Decimal(10_000),
        "micros_per_mille": Decimal(1),
    },
    "_micros": {"currency": Decimal(10**6), "cent": Decimal(10_000), "fen": Decimal(10_000), "micros": Decimal(1)},
    "_ms": {"us": Decimal("0.001"), "ms": Decimal(1), "s": Decimal(1000), "min": Decimal(60_000)},
    "_ppm": {"share": Decimal(10**6), "percent": Decimal(10_000), "ppm": Decimal(1)},
}
"""By the field's suffix: what one of the unit is in the field's own. A price per mille is that of one impression."""

_LARGEST: Final = 30  # decimal digits before the point
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_SAMPLE: Final = datetime(2020, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
_SLOT: Final = re.compile(r"\{([^{}]*)\}")


class ValueSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one value is made. Exactly one of `column`, `constant`, `template` is given."""

    column: str | int | None = None
    constant: Scalar = None
    template: str | None = None
    values: dict[str, Scalar] | None = None
    time: str | None = None
    zone: str | None = None
    unit: str | None = None
    default: Scalar = None


class Misfit(Exception):
    """A row's value does not fit; the message says why. Never leaves `streams.jobs.mapping`."""


def columns_of(spec: ValueSpec) -> Iterator[str]:
    """The columns that a value is made of."""
    if spec.column is not None:
        yield str(spec.column)
    if spec.template is not None:
        yield from _SLOT.findall(spec.template)


def problems_of_value(spec: ValueSpec, target: Target) -> Iterator[tuple[str, str]]:
    """What is wrong with a specification: (its field, why)."""
    sources = [name for name in ("column", "constant", "template") if getattr(spec, name) is not None]
    if len(sources) != 1:
        yield "", "needs exactly one of column, constant and template"
    changes = [name for name in ("values", "time", "unit") if getattr(spec, name) is not None]
    if len(changes) > 1 or (changes and spec.constant is not None):
        yield changes[-1], "cannot stand beside " + ("constant" if spec.constant is not None else changes[0])
    if spec.unit is not None:
        yield from _unit_problems(spec.unit, target)
    if spec.time is not None:
        yield from _time_problems(spec.time, spec.zone, target)
    if spec.zone is not None and spec.zone not in known_zones():
        yield "zone", f"{spec.zone!r} is no IANA time zone, for example Asia/Shanghai"


def maker(spec: ValueSpec, target: Target, nulls: frozenset[str]) -> Make:
    """The function that makes the value; the specification has no problems."""
    if spec.constant is not None:
        return lambda columns, constant=spec.constant: constant  # type: ignore[misc]
    source = _source(spec, nulls)
    convert = _conversion(spec, target)
    default = spec.default

    def make(columns: Columns) -> object:
        value = source(columns)
        return default if value is None else convert(value)

    return make


def column_getter(name: str, nulls: frozenset[str]) -> Make:
    """Reads a column; a null marker is None. `a.b` reaches into nested documents where no column is called so."""
    outer, _, inner = name.partition(".")
    below = column_getter(inner, nulls) if inner else None

    def get(columns: Columns) -> object:
        value = columns.get(name)
        if value is None and below is not None:
            nested = columns.get(outer)
            return below(nested) if isinstance(nested, dict) else None
        return None if isinstance(value, str) and value in nulls else value

    return get


def text_of(value: object) -> str:
    """A column's value as text; a float that is whole is written as the whole number it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float | Decimal):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise Misfit("bytes that are no UTF-8 are no text") from None
    raise Misfit(f"a {type(value).__name__} is no text")


def _unit_problems(unit: str, target: Target) -> Iterator[tuple[str, str]]:
    suffix = next((s for s in UNITS if target.name.endswith(s)), None)
    if suffix is None:
        yield "unit", f"{target.name} has no unit"
    elif unit not in UNITS[suffix]:
        yield "unit", f"{unit!r} is unknown; known are {', '.join(UNITS[suffix])}"


def _time_problems(pattern: str, zone: str | None, target: Target) -> Iterator[tuple[str, str]]:
    if not target.name.endswith("_time_ms"):
        yield "time", f"{target.name} is no time"
    if pattern in EPOCHS:
        if zone is not None:
            yield "zone", f"cannot stand beside {pattern}, which is UTC"
    elif pattern != ISO:
        try:
            datetime.strptime(_SAMPLE.strftime(pattern), pattern)
        except (ValueError, re.error) as error:
            yield "time", f"{pattern!r} is none of {', '.join(EPOCHS)}, {ISO} and no strptime pattern: {error}"
        if zone is None and "%z" not in pattern:
            yield "zone", "is needed: the pattern has no %z"


def _source(spec: ValueSpec, nulls: frozenset[str]) -> Make:
    if spec.template is None:
        return column_getter(str(spec.column), nulls)
    # re.split with one group alternates literal text and columns.
    pieces = _SLOT.split(spec.template)
    literals, getters = pieces[::2], [column_getter(name, nulls) for name in pieces[1::2]]

    def fill(columns: Columns) -> object:
        text = literals[0]
        for get, literal in zip(getters, literals[1:], strict=True):
            value = get(columns)
            if value is None:
                return None
            text += text_of(value) + literal
        return text

    return fill


def _conversion(spec: ValueSpec, target: Target) -> Callable[[object], object]:
    if spec.values is not None:
        return _translation(spec.values)
    if spec.time is not None:
        return _time_reader(spec.time, ZoneInfo(spec.zone) if spec.zone else None)
    if spec.unit is not None:
        suffix = next(s for s in UNITS if target.name.endswith(s))
        return _scale(UNITS[suffix][spec.unit])
    return text_of if target.is_text else _stripped


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _translation(values: dict[str, Scalar]) -> Callable[[object], object]:
    def translate(value: object) -> object:
        text = text_of(value)
        if text in values:
            return values[text]
        if OTHERWISE in values:
            return values[OTHERWISE]
        raise Misfit(f"{text[:80]!r} is not among the values")

    return translate


def _scale(factor: Decimal) -> Callable[[object], object]:
    def scale(value: object) -> object:
        return int((_number(value) * factor).to_integral_value())

    return scale


def _number(value: object) -> Decimal:
    try:
        number = Decimal(text_of(value).strip())
    except InvalidOperation:
        raise Misfit(f"{text_of(value)[:80]!r} is no number") from None
    if not number.is_finite() or number.adjusted() >= _LARGEST:
        raise Misfit(f"{text_of(value)[:80]!r} is out of range")
    return number


def _time_reader(pattern: str, zone: ZoneInfo | None) -> Callable[[object], object]:
    """Epoch ms, rounded down; a date is its begin. Of an hour that the clocks repeat, the first is meant."""

    def read(value: object) -> object:
        if isinstance(value, datetime):
            return _epoch_ms(value, zone)
        if isinstance(value, date):
            return _epoch_ms(datetime.combine(value, datetime.min.time()), zone)
        if pattern in EPOCHS:
            return int((_number(value) * EPOCHS[pattern]).to_integral_value("ROUND_FLOOR"))
        text = text_of(value).strip()
        try:
            moment = datetime.fromisoformat(text) if pattern == ISO else datetime.strptime(text, pattern)
        except ValueError:
            raise Misfit(f"{text[:80]!r} is no time of the form {pattern}") from None
        return _epoch_ms(moment, zone)

    return read


def _epoch_ms(moment: datetime, zone: ZoneInfo | None) -> int:
    if moment.tzinfo is None:
        if zone is None:
            raise Misfit("the time has no offset; give its zone in the mapping")
        moment = moment.replace(tzinfo=zone)
    try:
        return (moment - _EPOCH) // _MILLISECOND
    except OverflowError:
        raise Misfit("the time is out of range") from None
