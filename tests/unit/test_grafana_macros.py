"""The expander of Grafana's macros, on which the contract tests of the dashboards stand."""

import pytest

from tests.support.grafana_macros import Look, expand_promql, expand_sql
from tests.support.grafana_panels import queries

ALL = Look(100, 200, interval_s=60)
ONE = Look(100, 200, interval_s=15, chosen={"campaign": ["c1", "o'neill"], "instance": ["h.1:6066"]})


@pytest.mark.parametrize(
    ("text", "look", "expected"),
    [
        ("$__timeFilter(minute) AND 1", ALL, "minute >= toDateTime(100) AND minute <= toDateTime(200) AND 1"),
        ("$__timeInterval(a) AS time", ALL, "toStartOfInterval(toDateTime(a), INTERVAL 60 second) AS time"),
        ("f($__toTime) - f($__fromTime)", ALL, "f(toDateTime(200)) - f(toDateTime(100))"),
        ("$__conditionalAll(c IN (${campaign:singlequote}), $campaign)", ALL, "1=1"),
        ("$__conditionalAll(c IN (${campaign:singlequote}), $campaign)", ONE, "c IN ('c1','o\\'neill')"),
        ("$__conditionalAll(a IN (SELECT f(x, y) FROM t), $campaign) OR b", ONE, "a IN (SELECT f(x, y) FROM t) OR b"),
    ],
)
def test_a_macro_of_sql_becomes_what_the_plugin_sends(text: str, look: Look, expected: str) -> None:
    assert expand_sql(text, look) == expected


@pytest.mark.parametrize(
    ("text", "look", "expected"),
    [
        ('x{instance=~"${instance:regex}"}', ALL, 'x{instance=~".*"}'),
        ('x{instance=~"${instance:regex}"}', ONE, 'x{instance=~"(h\\.1:6066)"}'),
        ("rate(x[$__rate_interval])", ONE, "rate(x[60s])"),
    ],
)
def test_a_macro_of_promql_becomes_what_prometheus_reads(text: str, look: Look, expected: str) -> None:
    assert expand_promql(text, look) == expected


@pytest.mark.parametrize("text", ["$__dateFilter(a)", "${campaign}", "$__timeFilter_ms(a)", "f($__timeInterval(a))"])
def test_what_is_not_known_or_would_be_misread_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="not expanded"):
        expand_sql(text, ALL)


def test_every_macro_that_is_expanded_is_used() -> None:
    text = " ".join(query.text for kind in ("sql", "promql") for query in queries(kind))
    for macro in ("timeFilter", "timeInterval", "fromTime", "toTime", "conditionalAll", "rate_interval"):
        assert f"$__{macro}" in text, macro
    assert ":singlequote}" in text
    assert ":regex}" in text
