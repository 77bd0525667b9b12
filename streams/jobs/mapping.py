"""How a row of a log file becomes events: mapping files in TOML, checked before the first row is read.

    name = "example"
    [source]                        # how the files are laid out
    format = "tsv"                  # csv, tsv, ndjson, parquet; left out: by the file's suffix
    header = false                  # then `columns` names them; unnamed ones are "0", "1", …
    columns = ["id", "at", "price", "kind"]
    null = ["", "null"]             # what stands for no value
    [fields]                        # of every event: a column, or a table that says how to make the value
    event_id = "id"
    event_time_ms = { column = "at", time = "%Y%m%d%H%M%S%f", zone = "Asia/Shanghai" }
    campaign_id = { constant = "c1" }
    [[events]]                      # each kind of event that a row can become: a row makes those whose `when` holds
    input = "impressions"
    when = { kind = ["1", "i"] }    # or { kind = { not = ["2"] } }
    fields.clearing_price_millimicros = { column = "price", unit = "fen_per_mille" }

A value is made of `column` (a name, or an index where there is no header), `constant` or `template` (`"{id}-{@file}"`;
`@file` is the file's name up to its first dot, `@line` the row's number). Then `values` translates it (`*`: whatever
is not listed), `time` reads it as a time (epoch_s, epoch_ms, epoch_us, iso, or a strptime pattern), or `unit` scales
it. `default` stands for null. Fields are those of the input's event; `experiments.0.id` reaches into nested ones;
`address` is a raw client address, which becomes what `streams.jobs.identity` makes of it.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from streams.adapters.shipped import schemas_dir
from streams.errors import ConfigurationError
from streams.events import EVENT_TYPES, Input
from streams.jobs.mapping_targets import Document, Target, put, target_of
from streams.jobs.mapping_values import (
    FILE_COLUMN,
    LINE_COLUMN,
    Make,
    Misfit,
    ValueSpec,
    column_getter,
    columns_of,
    maker,
    problems_of_value,
    text_of,
)
from streams.jobs.readers import BadRow, Format, Layout, Row

SHIPPED_MAPPINGS: Final = schemas_dir() / "mappings"

FieldSpec = ValueSpec | str | int


class Exclusion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"values": "not"}):
    """A condition that holds for any other value; null is another value."""

    values: tuple[str, ...]


class SourceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the files are laid out."""

    format: Format | None = None
    header: bool = True
    columns: Annotated[tuple[str, ...], Meta(max_length=4_096)] = ()
    quotes: bool | None = None
    null: tuple[str, ...] = ("",)


class EventSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of event that a row can become."""

    input: Input
    when: dict[str, str | tuple[str, ...] | Exclusion] = {}
    fields: dict[str, FieldSpec] = {}


class MappingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping file."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    events: Annotated[tuple[EventSpec, ...], Meta(min_length=1, max_length=16)]
    description: str = ""
    source: SourceSpec = SourceSpec()
    fields: dict[str, FieldSpec] = {}


class Condition(NamedTuple):
    """A column must (or must not) have one of some values."""

    get: Make
    values: frozenset[str]
    wanted: bool


class Recipe(NamedTuple):
    """How one kind of event is made."""

    input: Input
    when: tuple[Condition, ...]
    fields: tuple[tuple[Target, Make], ...]


class Mapping:
    """A checked mapping."""

    def __init__(self, spec: MappingSpec, origin: str = "") -> None:
        """Checks the whole specification.

        Raises:
            ConfigurationError: every fault, each with its field.
        """
        self.name = spec.name
        self.description = spec.description
        self._origin = origin or spec.name
        source = spec.source
        self.layout = Layout(source.format, source.header, source.columns, source.quotes)
        compiled = [_compile(spec, i) for i in range(len(spec.events))]
        problems = list(_source_problems(source)) + [p for _, wrong in compiled for p in wrong]
        self._recipes = [recipe for recipe, _ in compiled]
        self._columns = _columns_used(spec)
        if source.columns and not source.header:
            problems += [f"column {c!r} is not among source.columns" for c in self._columns - set(source.columns)]
        if problems:
            raise ConfigurationError(f"mapping {self._origin}: {'; '.join(dict.fromkeys(problems))}; mend the file")

    @property
    def inputs(self) -> frozenset[Input]:
        """The inputs that the events are for."""
        return frozenset(recipe.input for recipe in self._recipes)

    def check_columns(self, columns: tuple[str, ...]) -> None:
        """Tells a file of another kind before its first row.

        Raises:
            ConfigurationError: columns that are needed (of `a.b`, also `a`) are absent, or one is there twice.
        """
        absent = sorted(name for name in self._columns - set(columns) if name.partition(".")[0] not in columns)
        twice = sorted({name for name in columns if columns.count(name) > 1} & self._columns)
        if absent:
            shown = ", ".join(columns[:30])
            raise ConfigurationError(
                f"mapping {self._origin}: no column {', '.join(absent)}; the file has {shown}; is it another mapping's?"
            )
        if twice:
            raise ConfigurationError(f"mapping {self._origin}: two columns called {', '.join(twice)}; rename one")

    def documents_of(self, row: Row, file: Path) -> list[tuple[Input, Document]] | BadRow:
        """The events of a row as plain documents, perhaps none; a row that does not fit in part does not fit at all."""
        columns = {**row.values, FILE_COLUMN: file.name.split(".")[0], LINE_COLUMN: row.number}
        try:
            return [
                (recipe.input, _document(recipe, columns))
                for recipe in self._recipes
                if all(holds(condition, columns) for condition in recipe.when)
            ]
        except Misfit as misfit:
            return BadRow(row.number, str(misfit))


def read_mapping(path: Path) -> Mapping:
    """Reads a mapping file. A bare name that is no file here means a mapping shipped in schemas/mappings.

    Raises:
        ConfigurationError: it is absent, no TOML, or wrong; the message names the fields.
    """
    file = path if path.is_file() else _shipped(path)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        return Mapping(msgspec.convert(document, MappingSpec), file.name)
    except OSError as error:
        raise ConfigurationError(f"mapping {path}: {error.strerror}; give a mapping file that can be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"mapping {path}: is no TOML ({error}); mend the file") from None
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"mapping {path}: {error}; mend the file") from None


def shipped_mappings() -> list[str]:
    """Names of the mappings that come with the project."""
    return sorted(path.stem for path in SHIPPED_MAPPINGS.glob("*.toml"))


def _shipped(path: Path) -> Path:
    shipped = SHIPPED_MAPPINGS / f"{path.name.removesuffix('.toml')}.toml"
    if path.parent == Path() and shipped.is_file():
        return shipped
    names = ", ".join(shipped_mappings())
    raise ConfigurationError(f"mapping {path}: there is no such file; give a path, or one of {names}")


def _source_problems(source: SourceSpec) -> Iterator[str]:
    if source.header and source.columns:
        yield "source.columns: only files without a header (header = false) have them named here"
    if len(set(source.columns)) < len(source.columns):
        yield "source.columns: a name stands twice"


def _compile(spec: MappingSpec, index: int) -> tuple[Recipe, list[str]]:
    event = spec.events[index]
    nulls = frozenset(spec.source.null)
    problems, fields = [], []
    for name, given in {**spec.fields, **event.fields}.items():
        where = f"events[{index}].fields.{name}" if name in event.fields else f"fields.{name}"
        value = given if isinstance(given, ValueSpec) else ValueSpec(column=given)
        target = target_of(event.input, name)
        if isinstance(target, str):
            problems.append(f"{where}: {target}")
            continue
        wrong = [f"{'.'.join(filter(None, (where, field)))}: {why}" for field, why in problems_of_value(value, target)]
        problems += wrong
        if not wrong:
            fields.append((target, maker(value, target, nulls)))
    problems += [f"events[{index}].fields.{name}: is needed" for name in _absent(event.input, spec, event)]
    when = tuple(condition_of(column, given) for column, given in event.when.items())
    return Recipe(event.input, when, tuple(fields)), problems


def _absent(source: Input, spec: MappingSpec, event: EventSpec) -> list[str]:
    given = {name.partition(".")[0] for name in (*spec.fields, *event.fields)}
    required = [field.encode_name for field in msgspec.structs.fields(EVENT_TYPES[source]) if field.required]
    return [name for name in required if name not in given]


def condition_of(column: str, given: str | tuple[str, ...] | Exclusion) -> Condition:
    """A condition on a column."""
    # Null markers are compared as they are written, so that a condition can ask for them.
    get = column_getter(column, frozenset())
    if isinstance(given, Exclusion):
        return Condition(get, frozenset(given.values), wanted=False)
    return Condition(get, frozenset([given] if isinstance(given, str) else given), wanted=True)


def holds(condition: Condition, columns: Document) -> bool:
    """Whether a row meets it."""
    value = condition.get(columns)
    return (value is not None and text_of(value) in condition.values) is condition.wanted


def _columns_used(spec: MappingSpec) -> set[str]:
    used = {column for event in spec.events for column in event.when}
    for given in (*spec.fields.values(), *(v for event in spec.events for v in event.fields.values())):
        used |= set(columns_of(given)) if isinstance(given, ValueSpec) else {str(given)}
    return used - {FILE_COLUMN, LINE_COLUMN}


def _document(recipe: Recipe, columns: Document) -> Document:
    document: Document = {}
    for target, make in recipe.fields:
        try:
            value = make(columns)
        except Misfit as misfit:
            raise Misfit(f"{'.'.join(map(str, target.path))}: {misfit}") from None
        if value is not None:
            put(document, target.path, value)
    return document
