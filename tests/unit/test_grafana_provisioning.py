"""Provisioning, compose and alert rules agree with the dashboards: uids, paths, users, and where alerts lead."""

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.grafana_macros import Look, expand_promql
from tests.support.grafana_panels import GRAFANA, dashboards, links, panels, queries
from tests.support.prometheus_rules import PROMETHEUS, rules, used
from tests.support.tools import DEPLOY, REPOSITORY, check
from tests.unit.test_deploy_compose import SERVICES, environment
from tests.unit.test_deploy_prometheus import OF_PROMETHEUS, worker_metrics  # noqa: F401

RECORDED = {rule["record"]: rule["expr"] for rule in rules("record")}
OF_RULES = {"ALERTS"}
LOOK = Look(0, 1)
MOUNT = "/etc/campaign-streams/grafana"


def provisioned(path: str) -> Any:
    return yaml.safe_load((GRAFANA / "provisioning" / path).read_text(encoding="utf-8"))


def sources() -> dict[str, dict[str, Any]]:
    return {source["uid"]: source for source in provisioned("datasources/datasources.yaml")["datasources"]}


# Provisioning and compose


def test_every_data_source_of_a_dashboard_is_provisioned_with_its_type() -> None:
    found = set()
    for document in dashboards().values():
        text = json.dumps(document)
        found |= set(re.findall(r'\{"type": "([\w-]+)", "uid": "([\w-]+)"\}', text))
    assert found == {(source["type"], uid) for uid, source in sources().items()}


def test_grafana_finds_provisioning_and_dashboards_where_compose_mounts_them() -> None:
    grafana = environment("grafana")
    assert f"../grafana:{MOUNT}:ro" in SERVICES["grafana"]["volumes"]
    assert grafana["GF_PATHS_PROVISIONING"] == f"{MOUNT}/provisioning"
    (provider,) = provisioned("dashboards/dashboards.yaml")["providers"]
    assert provider["options"]["path"] == f"{MOUNT}/dashboards"
    home = grafana["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (GRAFANA / home.removeprefix(f"{MOUNT}/")).exists()


def test_the_plugin_has_one_version_that_can_read_the_queries() -> None:
    """Pinned in compose and told in the README; queries and data source are in a form that it knows or migrates."""
    asked = pytest.importorskip("grafana.sources", reason="the dashboards' builder is in campaign-streams[dev]")
    plugin, _, version = environment("grafana")["GF_PLUGINS_PREINSTALL_SYNC"].partition("@")
    assert plugin == asked.CLICKHOUSE.type_val
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    form, pinned = (tuple(map(int, text.split("."))) for text in (asked.PLUGIN_VERSION, version))
    assert form[0] == pinned[0]
    assert form <= pinned
    assert sources()[asked.CLICKHOUSE.uid]["jsonData"]["version"] == asked.PLUGIN_VERSION
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    told = re.search(rf"`{plugin}`, ([\d.]+) or later; the compose file has ([\d.]+)", " ".join(readme.split()))
    assert told
    assert (told[1], told[2]) == (f"{form[0]}.{form[1]}", version)


def test_the_data_sources_are_at_the_addresses_of_compose() -> None:
    prometheus, clickhouse = (sources()[f"campaign-streams-{name}"] for name in ("prometheus", "clickhouse"))
    assert prometheus["url"] == "http://prometheus:9090"
    assert any(port.endswith(":9090") for port in SERVICES["prometheus"]["ports"])
    assert clickhouse["jsonData"]["host"] in SERVICES
    assert any(port.endswith(f":{clickhouse['jsonData']['port']}") for port in SERVICES["clickhouse"]["ports"])
    assert clickhouse["jsonData"]["defaultDatabase"] == environment("clickhouse")["CLICKHOUSE_DB"]


def test_variables_of_provisioning_are_in_the_environment_of_grafana() -> None:
    asked = set(re.findall(r"\$(\w+)", (GRAFANA / "provisioning/datasources/datasources.yaml").read_text()))
    assert asked
    assert asked <= environment("grafana").keys()


def test_grafana_reads_clickhouse_as_a_user_that_cannot_write() -> None:
    (path,) = [v.split(":")[0] for v in SERVICES["clickhouse"]["volumes"] if v.startswith(".")]
    root = ElementTree.parse(DEPLOY / path).getroot()
    (user,) = list(root.find("users") or [])
    assert user.tag == environment("grafana")["CLICKHOUSE_USER"]
    password = user.find("password")
    assert password is not None
    assert environment("clickhouse")[password.attrib["from_env"]] == environment("grafana")["CLICKHOUSE_PASSWORD"]
    profile = root.find(f"profiles/{user.findtext('profile')}")
    assert profile is not None
    assert profile.findtext("readonly") == "2"
    grants = [grant.text for grant in user.findall("grants/query")]
    assert grants == [f"GRANT SELECT ON {environment('clickhouse')['CLICKHOUSE_DB']}.*"]


# Metrics


def asked(expression: str) -> set[str]:
    """Metrics and recorded series that a panel asks for."""
    return used(expand_promql(expression, LOOK))


async def test_every_metric_of_a_panel_is_exported_or_recorded(worker_metrics: set[str]) -> None:  # noqa: F811
    for query in queries("promql"):
        names = asked(query.text) | set(re.findall(r"\bALERTS\b", query.text))
        assert names, query
        assert names <= worker_metrics | RECORDED.keys() | OF_PROMETHEUS | OF_RULES, query.where


def test_recorded_series_that_no_rule_uses_are_shown() -> None:
    shown = {name for query in queries("promql") for name in asked(query.text)}
    in_rules = {name for rule in (*rules("record"), *rules("alert")) for name in used(rule["expr"])}
    assert RECORDED.keys() - in_rules <= shown


# From an alert to its panel


def basics(expression: str) -> set[str]:
    """Metrics of an expression, recorded series resolved."""
    found = used(expression)
    while recorded := found & RECORDED.keys():
        found = found - recorded | {name for series in recorded for name in used(RECORDED[series])}
    return found


@pytest.mark.parametrize("rule", rules("alert"), ids=lambda rule: str(rule["alert"]))
def test_an_alert_leads_to_a_panel_that_shows_what_it_is_about(rule: dict[str, Any]) -> None:
    path = re.fullmatch(r"/d/([\w-]+)\?viewPanel=(\d+)", rule["annotations"]["dashboard"])
    assert path, rule["alert"]
    (panel,) = [panel for panel in panels(dashboards()[path[1]]) if panel["id"] == int(path[2])]
    shown = {name for target in panel["targets"] for name in basics(expand_promql(target["expr"], LOOK))}
    assert shown & basics(rule["expr"]), f"{rule['alert']} is not about {panel['title']}"


def test_alertmanagers_example_leads_to_the_panel_at_the_time_of_the_alert(tmp_path: Any) -> None:
    text = (PROMETHEUS / "alertmanager.yml").read_text(encoding="utf-8")
    (template,) = re.findall(r"href: '(.+)'", text)
    data = {
        "commonAnnotations": {"dashboard": "/d/a?viewPanel=1"},
        "alerts": [{"status": "firing", "startsAt": "2026-11-27T10:00:00Z"}],
    }
    (tmp_path / "none.tmpl").write_text("")
    (tmp_path / "data.json").write_text(json.dumps(data))
    said = check(
        "amtool",
        "template",
        "render",
        f"--template.glob={tmp_path / 'none.tmpl'}",
        f"--template.text={template}",
        f"--template.data={tmp_path / 'data.json'}",
    )
    assert said.strip() == "https://grafana.example/d/a?viewPanel=1&from=1795770000000&to=now"


def test_a_panel_that_is_missing_would_be_found() -> None:
    assert "/d/campaign-streams-campaigns?" in " ".join(links(dashboards()["campaign-streams-pacing"]))
    assert basics("input:campaign_streams_lag:seconds") == {
        "campaign_streams_lag_records",
        "campaign_streams_consumed_offsets_total",
    }
