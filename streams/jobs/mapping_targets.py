"""Where a mapped value goes: the field of an event that a (dotted) name means, found once, and set per row."""

import difflib
import itertools
from typing import Any, Final, NamedTuple

from msgspec import inspect

from streams.events import EVENT_TYPES, Input
from streams.jobs.identity import ADDRESS

Document = dict[str, object]

MAX_NESTED_INDEX: Final = 99


class Target(NamedTuple):
    """The field that a value is for: its path in the event, its own name, and whether it is text."""

    path: tuple[str | int, ...]
    name: str
    is_text: bool


def target_of(source: Input, name: str) -> Target | str:
    """Finds the field that a (dotted) name means, or says why there is none."""
    if name == ADDRESS:
        return Target((name,), name, is_text=True)
    kind: Any = inspect.type_info(EVENT_TYPES[source])
    path: list[str | int] = []
    for step in name.split("."):
        kind = _plain(kind)
        if isinstance(kind, inspect.StructType):
            fields = {field.encode_name: field.type for field in kind.fields}
            if step not in fields:
                return _unknown(step, fields, source)
            path.append(step)
            kind = fields[step]
        elif isinstance(kind, inspect.VarTupleType) and step.isdecimal() and int(step) <= MAX_NESTED_INDEX:
            path.append(int(step))
            kind = kind.item_type
        else:
            return f"{step!r} leads nowhere"
    leaf = _plain(kind)
    if isinstance(leaf, inspect.StructType | inspect.VarTupleType):
        return "is not a single value; name the fields below it, for example experiments.0.id"
    return Target(tuple(path), str(path[-1]), isinstance(leaf, inspect.StrType | inspect.EnumType))


def _plain(kind: Any) -> Any:
    """A type without its descriptions and without null."""
    while True:
        if isinstance(kind, inspect.Metadata):
            kind = kind.type
        elif isinstance(kind, inspect.UnionType):
            kind = next(t for t in kind.types if not isinstance(t, inspect.NoneType))
        else:
            return kind


def _unknown(step: str, fields: dict[str, Any], source: Input) -> str:
    close = difflib.get_close_matches(step, [*fields, ADDRESS], n=1)
    return f"{source.value} have no such field" + (f"; did you mean {close[0]}?" if close else "")


def put(document: Document, path: tuple[str | int, ...], value: object) -> None:
    """Sets a value in a document, making the tables and lists on the way."""
    container: Any = document
    for step, following in itertools.pairwise(path):
        container = _child(container, step, [] if isinstance(following, int) else {})
    container[path[-1]] = value


def _child(container: Any, step: str | int, empty: object) -> Any:
    if isinstance(step, str):
        return container.setdefault(step, empty)
    while len(container) <= step:
        container.append({})
    return container[step]
