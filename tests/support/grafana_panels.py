"""The committed dashboards as a test looks at them: panels, queries, variables and links."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.support.tools import REPOSITORY

GRAFANA: Final = REPOSITORY / "grafana"
DIRECTORY: Final = GRAFANA / "dashboards"
FILES: Final = sorted(DIRECTORY.glob("*.json"))


@cache
def dashboard(path: Path) -> dict[str, Any]:
    """A committed file."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


@cache
def dashboards() -> dict[str, dict[str, Any]]:
    """All of them by uid."""
    return {dashboard(path)["uid"]: dashboard(path) for path in FILES}


def panels(document: dict[str, Any]) -> list[dict[str, Any]]:
    """All panels but rows."""
    return [panel for panel in document["panels"] if panel["type"] != "row"]


class Query(NamedTuple):
    """A query and where it stands."""

    where: str
    kind: str
    text: str


def queries(kind: str) -> list[Query]:
    """Every query of a kind (sql or promql): of panels, of annotations and of variables."""
    return [query for path in FILES for query in _queries(dashboard(path)) if query.kind == kind]


def _queries(document: dict[str, Any]) -> Iterator[Query]:
    for panel in panels(document):
        for target in panel["targets"]:
            where = f"{document['uid']}/{panel['id']} {panel['title']}/{target['refId']}"
            yield _query(where, target)
    for annotation in document["annotations"]["list"]:
        where = f"{document['uid']}/annotation {annotation['name']}"
        if "expr" in annotation:
            yield Query(where, "promql", annotation["expr"])
        elif "rawSql" in annotation["target"]:
            yield Query(where, "sql", annotation["target"]["rawSql"])
    for variable in document["templating"]["list"]:
        where = f"{document['uid']}/variable {variable['name']}"
        if "rawSql" in variable["query"]:
            yield Query(where, "sql", variable["query"]["rawSql"])
        else:
            series = re.fullmatch(r"label_values\((\w+),(\w+)\)", variable["query"]["query"])
            assert series, where
            yield Query(where, "promql", f"count by ({series[2]}) ({series[1]})")


def _query(where: str, target: dict[str, Any]) -> Query:
    if "rawSql" in target:
        return Query(where, "sql", target["rawSql"])
    return Query(where, "promql", target["expr"])


def links(document: dict[str, Any]) -> Iterator[str]:
    """Every URL of this product's own dashboards that it holds, also inside SQL."""
    yield from re.findall(r"/d/[^'\"\\\s]+", json.dumps(document))
