"""Writes the settings table of README.md from the settings and the rules: `python -m streams.jobs.readme`.

The table stands between two markers; a test keeps it equal to what is generated here. Rules carry no descriptions of
their own, so theirs are here, and the same test keeps them complete.
"""

import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import inspect as types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from streams.records import DIMENSIONS
from streams.rules import DAY_MS, DEFAULT_HORIZONS, HOUR_MS, MINUTE_MS, Horizon, Rules
from streams.settings import Settings

README: Final = Path(__file__).resolve().parents[2] / "README.md"
BEGIN: Final = "<!-- settings: written by `python -m streams.jobs.readme` -->"
END: Final = "<!-- end of settings -->"

RULES_TEXTS: Final[dict[str, str]] = {
    "pane_ms": "Pane of the decision grain; must divide a minute.",
    "report_pane_ms": "Pane of the report grain; a multiple of `pane_ms`.",
    "report_every_ms": "Time between two publications of a report pane that is still open.",
    "future_skew_ms": "An event time further than this beyond its record's own timestamp is rejected as `future`.",
    "ctr_click_types": "Click types that count towards CTR.",
    "cvr_conversion_types": "Conversion types that count towards CVR. An order placed and then paid is one conversion.",
    "dimensions": "What the report grain is split by, besides campaign, ad unit, creative and variant.",
    "max_pane_keys": "Decision keys of a topic-partition in one pane; beyond it a key folds into `other`.",
    "max_report_keys": "Report keys of a topic-partition in one pane; beyond it a key folds into `other`.",
    "reach_sample": "Users kept in a report key's sketch for reach: exact up to that many, estimated above.",
}
HORIZON_TEXTS: Final[dict[str, str]] = {
    "lateness_ms": "An event older than the newest of its topic-partition by more than this is late: not counted.",
    "dedupe_ms": "Event ids are remembered this long, by event time; never less than the lateness.",
    "max_ids": "Ids kept for each topic-partition; beyond it the oldest go, and what is older than memory is late.",
}


class SettingRow(NamedTuple):
    """One line of a table, as plain text (code in backticks)."""

    name: str
    default: str
    allowed: str
    text: str


def settings_rows() -> dict[str, list[SettingRow]]:
    """The settings by section, in the order in which they are declared."""
    found: dict[str, list[SettingRow]] = {}
    for section, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found[section] = [_setting(section, name, each) for name, each in kind.model_fields.items()]
    found["rules"] = [*_rules(), *_horizons()]
    return found


def settings_tables() -> str:
    """Every section as a Markdown table under its name."""
    parts = []
    for section, rows in settings_rows().items():
        lines = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
        lines += [f"| {' | '.join((f'`{row.name}`', *map(_cell, row[1:])))} |" for row in rows]
        parts.append(f"**`[{section}]`**\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def with_settings(document: str) -> str:
    """The document with current tables between the markers.

    Raises:
        ValueError: a marker is missing.
    """
    if document.count(BEGIN) != 1 or document.count(END) != 1:
        raise ValueError(f"the document must hold {BEGIN} and {END} once each")
    before, rest = document.split(BEGIN)
    return f"{before}{BEGIN}\n\n{settings_tables()}\n{END}{rest.split(END)[1]}"


def _setting(section: str, name: str, field: FieldInfo) -> SettingRow:
    return SettingRow(f"{section}.{name}", _default(name, field.default), _allowed(field), field.description or "")


def _default(name: str, value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, SecretStr):
        return f"`{value.get_secret_value()}`"  # of the code, hence no secret
    if isinstance(value, tuple):
        return ", ".join(_default(name, each) for each in value)
    shown = f"`{value.value if isinstance(value, Enum) else value}`"
    has_unit = name.endswith("_ms") and isinstance(value, int) and value >= 1_000
    return f"{shown} ({_length(int(str(value)))})" if has_unit else shown


def _length(length_ms: int) -> str:
    units = {"d": DAY_MS, "h": HOUR_MS, "min": MINUTE_MS, "s": 1_000, "ms": 1}
    unit = next(unit for unit, size in units.items() if length_ms >= size and length_ms % size == 0)
    return f"{length_ms // units[unit]:,} {unit}"


def _allowed(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if choices:
        return _listed(choices)
    if field.annotation is bool:
        return "`true`, `false`"
    limits = {
        name: getattr(limit, name) for limit in field.metadata for name in ("ge", "gt", "le") if hasattr(limit, name)
    }
    return _span(**limits) if field.annotation in (int, float) else ""


def _listed(choices: Iterable[object]) -> str:
    return ", ".join(f"`{choice}`" for choice in choices)


def _span(ge: float | None = None, le: float | None = None, gt: float | None = None, step: int | None = None) -> str:
    begin = f"above {gt:,}" if gt is not None else f"{ge:,}" if ge is not None else ""
    text = f"{begin} to {le:,}" if begin and le is not None else f"from {begin}" if begin else ""
    return f"{text}, in steps of {step:,}" if step else text


def _rules() -> Iterator[SettingRow]:
    for field in _fields(Rules):
        if field.name not in ("horizons", "invalid"):  # the latter has a page of its own
            allowed = _listed(DIMENSIONS) if field.name == "dimensions" else _of_type(field.type)
            default = _default(field.name, field.default)
            yield SettingRow(f"rules.{field.name}", default, allowed, RULES_TEXTS[field.name])


def _horizons() -> Iterator[SettingRow]:
    for field in _fields(Horizon):
        inputs: dict[int, list[str]] = {}
        for source, horizon in DEFAULT_HORIZONS.items():
            inputs.setdefault(getattr(horizon, field.name), []).append(source.value)
        shown = {_default(field.name, value): ", ".join(sources) for value, sources in inputs.items()}
        default = "; ".join(f"{sources} {value}" if len(shown) > 1 else value for value, sources in shown.items())
        yield SettingRow(f"rules.horizons.INPUT.{field.name}", default, _of_type(field.type), HORIZON_TEXTS[field.name])


def _fields(kind: type[msgspec.Struct]) -> tuple[types.Field, ...]:
    found = types.type_info(kind)
    assert isinstance(found, types.StructType)
    return found.fields


def _of_type(kind: types.Type) -> str:
    if isinstance(kind, types.IntType):
        return _span(kind.ge, kind.le, kind.gt, kind.multiple_of)
    if isinstance(kind, types.VarTupleType) and isinstance(kind.item_type, types.EnumType):
        return _listed(choice.value for choice in kind.item_type.cls)
    return ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("SASL_*", "`SASL_*`")


def main() -> int:
    """Brings the tables of README.md up to date."""
    document = README.read_text()
    current = with_settings(document)
    if current != document:
        README.write_text(current)
    sys.stdout.write(f"{README.name} {'written' if current != document else 'is current'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
