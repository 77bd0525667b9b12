"""Expands what Grafana and its ClickHouse plugin put into queries: exactly the macros that the dashboards use.

What is left over, or written so that a version of the plugin would misread it, is an error.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

ALL: Final = "$__all"
TIMED: Final = re.compile(r"\$__(timeFilter|timeInterval)\((\w+)\)(?!\))")
"""With a closing parenthesis right behind, older versions of the plugin would swallow it."""


@dataclass(frozen=True)
class Look:
    """A time range (epoch s), an interval, and the values chosen; a variable that is not named is set to All."""

    begin_s: int
    end_s: int
    interval_s: int = 60
    chosen: Mapping[str, Sequence[str]] = field(default_factory=dict)


def expand_sql(sql: str, look: Look) -> str:
    """As the plugin sends it to ClickHouse.

    Raises:
        ValueError: something is left that is not expanded here.
    """
    text = _without_all(sql, look)
    text = re.sub(r"\$\{(\w+):singlequote\}", lambda found: _quoted(look.chosen[found[1]]), text)
    text = TIMED.sub(lambda found: _timed(found[1], found[2], look), text)
    text = re.sub(r"\$__fromTime\b", f"toDateTime({look.begin_s})", text)
    text = re.sub(r"\$__toTime\b", f"toDateTime({look.end_s})", text)
    return _complete(text)


def expand_promql(expression: str, look: Look) -> str:
    """As it reaches Prometheus. All of a variable is `.*`, as its definition says."""

    def values(found: re.Match[str]) -> str:
        chosen = look.chosen.get(found[1])
        return ".*" if chosen is None else f"({'|'.join(map(re.escape, chosen))})"

    text = re.sub(r"\$\{(\w+):regex\}", values, expression)
    return _complete(text.replace("$__rate_interval", f"{4 * look.interval_s}s"))


def _complete(text: str) -> str:
    if "$" in text:
        raise ValueError(f"not expanded: {text[text.index('$') :][:60]}")
    return text


def _without_all(sql: str, look: Look) -> str:
    """`$__conditionalAll(condition, $variable)`: the condition, or 1=1 where the variable is set to All."""
    macro = "$__conditionalAll"
    while macro in sql:
        begin = sql.rindex(macro)
        end = _closing(sql, begin + len(macro))
        condition, name = sql[begin + len(macro) + 1 : end].rsplit(",", 1)
        is_all = name.strip().removeprefix("$") not in look.chosen
        sql = sql[:begin] + ("1=1" if is_all else condition) + sql[end + 1 :]
    return sql


def _closing(text: str, opening: int) -> int:
    depth = 0
    for at in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at
    raise ValueError(f"no end: {text[opening:][:60]}")


def _quoted(values: Sequence[str]) -> str:
    return ",".join("'" + value.replace("'", "\\'") + "'" for value in values)


def _timed(macro: str, column: str, look: Look) -> str:
    if macro == "timeInterval":
        return f"toStartOfInterval(toDateTime({column}), INTERVAL {look.interval_s} second)"
    return f"{column} >= toDateTime({look.begin_s}) AND {column} <= toDateTime({look.end_s})"
