"""Writes the settings table of README.md from the settings and the rules: `python -m streams.jobs.readme`.

The table stands between two markers; a test keeps it equal to what is generated here. Rules carry no descriptions of
their own, so theirs are here, and the same test keeps them complete.
"""

import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

import annotated_types as bounds
import msgspec
from msgspec import inspect as types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from streams.rules import DEFAULT_HORIZONS, Horizon, Rules
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
    return SettingRow(f"{section}.{name}", _default(field.default), _allowed(field), field.description or "")


def _default(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, SecretStr):
        return f"`{value.get_secret_value()}`"  # of the code, hence no secret
    if isinstance(value, tuple):
        return ", ".join(map(_default, value))
    return f"`{value.value if isinstance(value, Enum) else value}`"


def _allowed(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if field.annotation is bool:
        return "`true`, `false`"
    limits: dict[str, Any] = {}
    for limit in field.metadata:
        match limit:
            case bounds.Ge():
                limits["low"] = limit.ge
            case bounds.Gt():
                limits["above"] = limit.gt
            case bounds.Le():
                limits["high"] = limit.le
    return _span(**limits) if field.annotation in (int, float) else ""


def _span(
    low: float | None = None, high: float | None = None, above: float | None = None, step: int | None = None
) -> str:
    begin = f"above {above:,}" if above is not None else f"{low:,}" if low is not None else ""
    text = f"{begin} to {high:,}" if begin and high is not None else f"from {begin}" if begin else ""
    return f"{text}, in steps of {step:,}" if step else text


def _rules() -> Iterator[SettingRow]:
    for field in _fields(Rules):
        if field.name != "horizons":
            yield SettingRow(
                f"rules.{field.name}", _default(field.default), _of_type(field.type), RULES_TEXTS[field.name]
            )


def _horizons() -> Iterator[SettingRow]:
    """One line for each input and time; the number of ids is the same for all."""
    for field in _fields(Horizon):
        values = {source.value: getattr(horizon, field.name) for source, horizon in DEFAULT_HORIZONS.items()}
        default = f"`{next(iter(values.values()))}`"
        if len(set(values.values())) > 1:
            default = ", ".join(f"{source} `{value}`" for source, value in values.items())
        yield SettingRow(f"rules.horizons.INPUT.{field.name}", default, _of_type(field.type), HORIZON_TEXTS[field.name])


def _fields(kind: type[msgspec.Struct]) -> tuple[types.Field, ...]:
    found = types.type_info(kind)
    assert isinstance(found, types.StructType)
    return found.fields


def _of_type(kind: types.Type) -> str:
    if isinstance(kind, types.IntType):
        return _span(kind.ge, kind.le, kind.gt, kind.multiple_of)
    if isinstance(kind, types.VarTupleType) and isinstance(kind.item_type, types.EnumType):
        return ", ".join(f"`{choice.value}`" for choice in kind.item_type.cls)
    return ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


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
