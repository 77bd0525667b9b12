"""The rules in deploy/prometheus, and the metrics that an expression asks for."""

import re
from functools import cache
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from tests.support.tools import DEPLOY

PROMETHEUS: Final = DEPLOY / "prometheus"
RECORDING, ALERTS = PROMETHEUS / "recording.rules.yml", PROMETHEUS / "alerts.rules.yml"


@cache
def rules(kind: str) -> tuple[dict[str, Any], ...]:
    """All rules of a kind: `record` or `alert`."""
    documents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (RECORDING, ALERTS)]
    return tuple(rule for d in documents for group in d["groups"] for rule in group["rules"] if kind in rule)


def used(expression: str) -> set[str]:
    """Metrics and recorded series in an expression; what is in quotes or braces is no name."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}', "", expression)
    return set(re.findall(r"\b(?:\w+:)*(?:campaign_streams_|process_)\w+(?::\w+)*|\bup\b", bare))
