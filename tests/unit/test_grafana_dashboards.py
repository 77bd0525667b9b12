"""grafana/: the committed JSON is what Python builds, Grafana's types accept it, and every panel explains itself."""

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import typer

from tests.support.grafana_panels import DIRECTORY, FILES, dashboard, dashboards, links, panels
from tests.support.prometheus_rules import rules

pytest.importorskip("grafana_foundation_sdk", reason="the dashboards' builder is in campaign-streams[dev]")

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.cog.runtime import UnknownDataquery, register_dataquery_variant
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana import build, frame, places, sources
from streams.cli import app
from streams.jobs.readme import settings_rows
from streams.terms import AlertKind

each = pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
EVERY_PANEL = [
    pytest.param(document, panel, id=f"{document['uid']}-{panel['id']}")
    for document in dashboards().values()
    for panel in panels(document)
]
every_panel = pytest.mark.parametrize(("document", "panel"), EVERY_PANEL)
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
WIDTH = 24


@pytest.fixture(autouse=True, scope="module")
def _types() -> None:
    register_default_plugins()
    register_dataquery_variant(sources.variant_config())


# The files


def test_the_committed_files_are_what_python_builds() -> None:
    assert {path.name: path.read_bytes() for path in FILES} == build.documents()
    assert sorted(DIRECTORY.iterdir()) == FILES


@each
def test_the_types_of_grafana_read_it_and_give_it_back(path: Any) -> None:
    document = dashboard(path)
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(document)))
    expected = without_what_the_types_lack(document)
    assert without_what_the_types_lack(again) == expected


def without_what_the_types_lack(document: dict[str, Any]) -> dict[str, Any]:
    """The SDK's annotations know neither queries to ClickHouse nor titles of series."""
    found: dict[str, Any] = json.loads(json.dumps(document))
    for annotation in found["annotations"]["list"]:
        annotation.pop("target", None)
        for name in ("titleFormat", "textFormat", "tagKeys"):
            annotation.pop(name, None)
    return found


@each
def test_it_declares_the_schema_of_the_types_that_built_it(path: Any) -> None:
    assert dashboard(path)["schemaVersion"] == Dashboard().schema_version


@each
def test_no_query_is_of_a_kind_that_is_not_known(path: Any) -> None:
    read = Dashboard.from_json(dashboard(path))
    targets = [target for panel in read.panels or [] if isinstance(panel, Panel) for target in panel.targets or []]
    assert targets
    assert not [target for target in targets if isinstance(target, UnknownDataquery)]


def test_uids_are_those_that_links_have_been_given() -> None:
    assert dashboards().keys() == {
        getattr(places, name) for name in ("CAMPAIGNS", "PACING", "INVALID", "HEALTH", "REPLAYS")
    }
    assert all(len(uid) <= 40 for uid in dashboards())


# Panels


@each
def test_ids_are_unique_and_panels_fill_their_rows_without_overlap(path: Any) -> None:
    found = dashboard(path)["panels"]
    ids = [panel["id"] for panel in found]
    assert len(ids) == len(set(ids))
    cells = [
        (x, y)
        for panel in found
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < WIDTH


@every_panel
def test_a_panel_says_what_its_number_means_and_what_to_do(document: dict[str, Any], panel: dict[str, Any]) -> None:
    means, do = panel["description"].split("\n\n**What to do:** ")
    assert len(means) > 30
    assert len(do) > 20
    assert panel["title"]


@every_panel
def test_a_panel_has_a_unit_that_grafana_knows_and_thresholds(document: dict[str, Any], panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in UNITS
    steps = defaults["thresholds"]["steps"]
    assert steps[0]["value"] is None
    values = [step["value"] for step in steps[1:]]
    assert values == sorted(set(values))
    for override in panel["fieldConfig"]["overrides"]:
        assert {p["value"] for p in override["properties"] if p["id"] == "unit"} <= UNITS


@every_panel
def test_a_column_with_a_form_of_its_own_is_in_the_query(document: dict[str, Any], panel: dict[str, Any]) -> None:
    text = " ".join(target.get("rawSql", "") + target.get("legendFormat", "") for target in panel["targets"])
    for override in panel["fieldConfig"]["overrides"]:
        assert re.search(rf"\b{re.escape(override['matcher']['options'])}\b", text), override["matcher"]


@every_panel
def test_a_panel_asks_the_data_source_that_is_provisioned(document: dict[str, Any], panel: dict[str, Any]) -> None:
    known = {source.uid for source in (sources.PROMETHEUS, sources.CLICKHOUSE)}
    assert {panel["datasource"]["uid"], *(t["datasource"]["uid"] for t in panel["targets"])} <= known
    assert {target["datasource"]["uid"] for target in panel["targets"]} == {panel["datasource"]["uid"]}


@every_panel
def test_what_a_panel_tells_to_do_can_be_done(document: dict[str, Any], panel: dict[str, Any]) -> None:
    text = panel["description"]
    for command in re.findall(r"`campaign-streams ([\w -]+)`", text):
        assert_is_a_command(command.split())
    alerts = {rule["alert"] for rule in rules("alert")}
    for named in re.findall(r"RUNBOOK, ([\w, ]+)\.", text):
        assert set(re.findall(r"[A-Z]\w+", named)) <= alerts, named
    settings = {row.name for section in settings_rows().values() for row in section}
    assert set(re.findall(r"`((?:rules|worker|delivery)\.\w+)`", text)) <= settings


def assert_is_a_command(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    assert not hasattr(command, "commands"), "a group does nothing by itself"


# Variables, annotations, links


@each
def test_variables_that_are_used_are_there_and_every_one_is_used(path: Any) -> None:
    document = dashboard(path)
    names = [variable["name"] for variable in document["templating"]["list"]]
    text = json.dumps([document["panels"], document["annotations"]])
    own = re.findall(r"\$\{(\w+):(?:singlequote|regex)\}", text)
    assert set(own) == set(names)
    for at, variable in enumerate(document["templating"]["list"]):
        used = set(re.findall(r"\$\{(\w+):(?:singlequote|regex)\}", json.dumps(variable["query"])))
        assert used <= set(names[:at]), "a variable may depend on those before it only"


def test_campaigns_can_be_chosen_by_everything_that_was_asked_for() -> None:
    assert set(frame.VARIABLES) == {"advertiser", "campaign", "creative", "variant", "region", "channel"}


@each
def test_alerts_and_publications_of_replays_are_marked(path: Any) -> None:
    marks = {annotation["name"]: annotation for annotation in dashboard(path)["annotations"]["list"]}
    assert {"Alerts", "Replay publications"} <= marks.keys()
    assert "FROM publications FINAL" in marks["Replay publications"]["target"]["rawSql"]
    assert "Settings changes" in marks or dashboard(path)["uid"] == places.HEALTH


def test_every_link_leads_to_a_dashboard_a_panel_and_variables_that_exist() -> None:
    found = {link for document in dashboards().values() for link in links(document)}
    by_row = {link for link in found if link.startswith("/d/${")}
    assert len(by_row) == 1, "to the panel of an alert: see the test below"
    for link in found - by_row:
        assert_leads_somewhere(link)


def assert_leads_somewhere(link: str) -> None:
    parts = urlsplit(link)
    target = dashboards()[parts.path.removeprefix("/d/")]
    query = parse_qs(parts.query)
    variables = {f"var-{variable['name']}" for variable in target["templating"]["list"]}
    assert {name for name in query if name.startswith("var-")} <= variables, link
    ids = {str(panel["id"]) for panel in panels(target)}
    assert set(query.get("viewPanel", [])) <= ids, link


def test_an_alert_of_every_kind_leads_to_the_panel_that_explains_it() -> None:
    assert places.OF_KIND.keys() == set(AlertKind)
    for place in places.OF_KIND.values():
        assert_leads_somewhere(place.url())


@each
def test_the_dashboards_link_to_each_other_with_time_and_choice(path: Any) -> None:
    (link,) = dashboard(path)["links"]
    assert (link["type"], link["includeVars"], link["keepTime"]) == ("dashboards", True, True)
    assert set(link["tags"]) <= set(dashboard(path)["tags"])
