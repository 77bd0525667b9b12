"""deploy/prometheus: rules over metrics that exist, tested by promtool, each alert with its entry in the runbook."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry, ProcessCollector

from streams.agents.delivery import DeliveryCounts
from streams.agents.delivery_app import create_second_app
from streams.agents.delivery_metrics import DeliveryCollector
from streams.agents.metrics import PipelineCollector
from streams.agents.pools import PoolsCollector
from streams.events import Reason
from streams.records import Entry
from streams.settings import DeliverySettings, RouteSettings, Settings, WorkerSettings
from tests.support.prometheus_rules import ALERTS, PROMETHEUS, RECORDING, rules, used
from tests.support.tools import DEPLOY, check
from tests.unit.keeping import Kept

RUNBOOK = (DEPLOY / "RUNBOOK.md").read_text(encoding="utf-8")
OF_PROMETHEUS = {"up", "process_start_time_seconds"}
SEVERITIES = {"critical", "warning"}


def alert_names() -> list[str]:
    return [rule["alert"] for rule in rules("alert")]


# By promtool and amtool


def test_the_rules_are_well_formed() -> None:
    said = check("promtool", "check", "rules", RECORDING, ALERTS)
    assert said.count("SUCCESS") == 2


def test_the_rules_pass_their_own_tests() -> None:
    check("promtool", "test", "rules", PROMETHEUS / "rules.test.yml")


def test_prometheus_reads_its_configuration() -> None:
    assert "2 rule files found" in check("promtool", "check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize("is_filled_in", [False, True])
def test_alertmanager_reads_its_configuration_as_it_is_and_filled_in(is_filled_in: bool, tmp_path: Any) -> None:
    text = (PROMETHEUS / "alertmanager.yml").read_text(encoding="utf-8")
    filled = re.sub(r"^    # ", "    ", text, flags=re.MULTILINE)
    (tmp_path / "alertmanager.yml").write_text(filled if is_filled_in else text)
    check("amtool", "check-config", tmp_path / "alertmanager.yml")


# Without them


def test_every_alert_fires_in_a_test_and_is_quiet_in_another() -> None:
    cases = yaml.safe_load((PROMETHEUS / "rules.test.yml").read_text(encoding="utf-8"))["tests"]
    steps = [step for case in cases for step in case.get("promql_expr_test", ())]
    fired = {
        name for step in steps for sample in step["exp_samples"] for name in re.findall(r'"(\w+)"', sample["labels"])
    }
    assert fired == set(alert_names())
    assert sum(not step["exp_samples"] for step in steps) > len(fired) / 2


def test_alerts_have_a_severity_a_summary_and_a_name_of_their_own() -> None:
    assert len(alert_names()) == len(set(alert_names()))
    for rule in rules("alert"):
        assert rule["labels"].keys() == {"severity"}, rule["alert"]
        assert rule["labels"]["severity"] in SEVERITIES
        assert len(rule["annotations"]["summary"]) < 120, rule["alert"]


def test_alertmanager_inhibits_alerts_that_exist() -> None:
    document = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text(encoding="utf-8"))
    matchers = [
        m for rule in document["inhibit_rules"] for side in ("source", "target") for m in rule[f"{side}_matchers"]
    ]
    named = {name for matcher in matchers for name in re.findall(r"[A-Z]\w+", matcher.split("~")[-1].split("=")[-1])}
    assert named
    assert named <= set(alert_names())


# The runbook


def entries(section: str) -> list[str]:
    """Headings of the third level below one of the second."""
    body = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", RUNBOOK, re.DOTALL | re.MULTILINE)
    assert body, section
    return re.findall(r"^### (.+)$", body[1], re.MULTILINE)


def test_every_alert_has_its_entry_in_the_runbook_and_every_entry_its_alert() -> None:
    assert sorted(entries("Alerts")) == sorted(alert_names())
    for rule in rules("alert"):
        assert rule["annotations"]["runbook"] == f"deploy/RUNBOOK.md#{rule['alert'].lower()}"


def test_every_entry_tells_meaning_impact_what_to_look_at_and_what_to_do() -> None:
    for name in entries("Alerts"):
        text = RUNBOOK.split(f"### {name}\n")[1].split("\n#")[0]
        for word in ("Meaning", "Impact", "Look at", "Do"):
            assert f"**{word}.**" in text, (name, word)


# Metrics that exist


@cache
def exported() -> frozenset[str]:
    """Names of all samples and series that a worker with a route exports, whether there is a sample now or not."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    kept = Kept()
    registry.register(PipelineCollector(kept.keeper, kept.publisher, kept.highwater, 3))
    return frozenset(_names(registry))


def _names(registry: CollectorRegistry) -> Iterator[str]:
    for family in registry.collect():
        yield f"{family.name}_total" if family.type == "counter" else family.name


@pytest.fixture
async def worker_metrics(tmp_path: Any) -> set[str]:
    """Of a whole worker, delivery and pools included."""
    route = RouteSettings(kind="apprise", url="mailto://ops@alerts.example", operations=True)  # type: ignore[arg-type]
    settings = Settings(delivery=DeliverySettings(routes={"ops": route}), worker=WorkerSettings(state_dir=tmp_path))
    hosted = create_second_app(settings, DeliveryCounts(), is_strict=False)
    registry = CollectorRegistry()
    registry.register(DeliveryCollector(DeliveryCounts(), lambda: hosted.delivery))
    registry.register(PoolsCollector(lambda: hosted.pools))
    return exported() | set(_names(registry))


async def test_every_metric_in_a_rule_is_exported(worker_metrics: set[str]) -> None:
    recorded = {rule["record"] for rule in rules("record")}
    for rule in (*rules("record"), *rules("alert")):
        names = used(rule["expr"])
        assert names, rule
        unknown = names - worker_metrics - recorded - OF_PROMETHEUS
        assert unknown == set(), rule.get("record") or rule["alert"]
        assert not any(name in OF_PROMETHEUS - worker_metrics - {"up"} for name in names)


def test_every_recorded_series_is_used_or_meant_for_dashboards() -> None:
    recorded = {rule["record"] for rule in rules("record")}
    in_rules = {name for rule in (*rules("record"), *rules("alert")) for name in used(rule["expr"])}
    assert recorded - in_rules == {"instance:campaign_streams_inserted_rows:rate5m"}


def test_entries_and_reasons_of_the_ledger_in_rules_exist() -> None:
    text = RECORDING.read_text() + ALERTS.read_text()
    asked = {value for values in re.findall(r'entry=~?"([\w|]+)"', text) for value in values.split("|")}
    reasons = set(re.findall(r'reason="(\w+)"', text))
    assert asked <= {entry.value for entry in Entry}
    assert reasons <= {reason.value for reason in Reason}
    assert reasons


def test_a_misspelt_metric_would_be_found() -> None:
    assert used('rate(campaign_streams_ledgr_total{entry="x"}[5m]) > 0') == {"campaign_streams_ledgr_total"}
    assert used("a:campaign_streams_lag:records / up") == {"a:campaign_streams_lag:records", "up"}
