"""What surrounds the panels: variables, annotations, links, and the dashboard itself."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    AnnotationTarget,
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    VariableModel,
    VariableOption,
    VariableRefresh,
)

from grafana import places, sql
from grafana.places import OF_KIND
from grafana.sources import CLICKHOUSE, PROMETHEUS, SqlQuery

TAG: Final = "campaign-streams"
ALL: Final = "$__all"
MAX_OPTIONS: Final = 2000

# Variables

_COLUMN_OPTIONS: Final = """\
SELECT DISTINCT {column} FROM report_rows
WHERE $__timeFilter(origin_pane)
    AND {column} != ''
    AND {chosen}
ORDER BY {column} LIMIT {limit}"""
VARIABLES: Final = {
    "advertiser": (
        "Advertiser",
        "SELECT DISTINCT advertiser_id FROM campaigns WHERE advertiser_id != '' "
        f"ORDER BY advertiser_id LIMIT {MAX_OPTIONS}",
    ),
    "campaign": (
        "Campaign",
        f"""\
SELECT r.campaign_id AS value, if(c.name = '', r.campaign_id, concat(c.name, ' (', r.campaign_id, ')')) AS text
FROM (
    SELECT DISTINCT toString(campaign_id) AS campaign_id FROM report_rows
    WHERE $__timeFilter(origin_pane)
        AND campaign_id != ''
        AND {sql.OF_ADVERTISER}
) AS r
LEFT JOIN campaigns AS c ON c.campaign_id = r.campaign_id
ORDER BY text LIMIT {MAX_OPTIONS}""",
    ),
    **{
        name: (name.capitalize(), _COLUMN_OPTIONS.format(column=column, chosen=sql.chosen(), limit=MAX_OPTIONS))
        for name, column in sql.CHOSEN.items()
        if name != "campaign"
    },
}
"""Label and query by name; options are what occurs in the time range, and an option beyond the limit can be typed."""


def variable(name: str) -> cog.Builder[VariableModel]:
    """Several values, or All: which means no condition in SQL, and any value in PromQL."""
    label, query = VARIABLES[name]
    found = dashboard.QueryVariable(name).label(label).query({"rawSql": query, "queryType": "sql", "refId": name})
    return _for_all(found.datasource(CLICKHOUSE))


def run_variable() -> cog.Builder[VariableModel]:
    """One run, the latest unless another is chosen."""
    query = "SELECT run FROM runs FINAL WHERE state != 'dropped' ORDER BY created DESC, run LIMIT 200"
    found = dashboard.QueryVariable("run").label("Run").query({"rawSql": query, "queryType": "sql", "refId": "run"})
    return found.datasource(CLICKHOUSE).refresh(VariableRefresh.ON_DASHBOARD_LOAD).multi(False).include_all(False)


def prometheus_variable(name: str, label: str, series: str) -> cog.Builder[VariableModel]:
    """Values of a label."""
    query = {"qryType": 1, "query": f"label_values({series},{name})", "refId": name}
    return _for_all(dashboard.QueryVariable(name).label(label).query(query).datasource(PROMETHEUS))


def _for_all(found: dashboard.QueryVariable) -> dashboard.QueryVariable:
    found.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True).all_value(".*")
    return found.current(VariableOption(selected=True, text="All", value=ALL))


# Annotations


class SqlTarget(AnnotationTarget):
    """The SDK knows only the target of Grafana's own annotations."""

    def __init__(self, query: str) -> None:
        super().__init__()
        self.query = query

    def to_json(self) -> dict[str, object]:
        """A query to ClickHouse, with columns time, timeEnd, title, text and tags."""
        return SqlQuery(self.query, "table", "annotation").to_json()


class SeriesAnnotation(AnnotationQuery):
    """Where a series of Prometheus is above 0; the SDK lacks what names it."""

    def to_json(self) -> dict[str, object]:
        """With the title, the text and the labels that become tags."""
        texts = {"titleFormat": "{{alertname}}", "textFormat": "{{severity}}", "tagKeys": "alertname,input,instance"}
        return super().to_json() | texts


class _Annotation(cog.Builder[AnnotationQuery]):
    def __init__(self, built: AnnotationQuery) -> None:
        self._built = built

    def build(self) -> AnnotationQuery:
        return self._built


ALERTS_SQL: Final = f"""\
SELECT
    began AS time,
    if(duration_ms IS NULL, least(now(), $__toTime), began + toIntervalSecond(intDiv(duration_ms, 1000))) AS timeEnd,
    kind AS title,
    text_en AS text,
    concat(campaign_id, ',', state) AS tags
FROM alerts
WHERE state != 'pending'
    AND began <= $__toTime
    AND (duration_ms IS NULL OR began + toIntervalSecond(intDiv(duration_ms, 1000)) >= $__fromTime)
    AND {sql.chosen()}
ORDER BY time DESC LIMIT 200"""
SETTINGS_SQL: Final = f"""\
SELECT
    toDateTime(valid_from) AS time,
    concat('Settings of ', if(name = '', campaign_id, name)) AS title,
    'A new version holds from here: see `campaign-streams campaigns list`.' AS text,
    campaign_id AS tags
FROM campaign_rows FINAL
WHERE valid_from >= $__fromTime AND valid_from <= $__toTime
    AND {sql.chosen()}
ORDER BY time DESC LIMIT 200"""
REPLAYS_SQL: Final = """\
SELECT
    from_pane AS time,
    to_pane AS timeEnd,
    concat('Run ', run, ' is published') AS title,
    concat('By ', who, ' at ', toString(changed), ' UTC: its rows stand in the place of live ones.') AS text,
    run AS tags
FROM publications FINAL
WHERE is_published AND from_pane <= $__toTime AND to_pane >= $__fromTime
ORDER BY time DESC LIMIT 200"""


def of_campaigns() -> list[cog.Builder[AnnotationQuery]]:
    """Alerts, changes of settings, and publications of replays."""
    return [
        _from_sql("Alerts", ALERTS_SQL, "red"),
        _from_sql("Settings changes", SETTINGS_SQL, "blue"),
        replays(),
    ]


def of_pipeline() -> list[cog.Builder[AnnotationQuery]]:
    """Alerts of the rules in deploy/prometheus, and publications of replays."""
    expr = 'sum by (alertname, severity, input, instance) (ALERTS{alertstate="firing"})'
    built = SeriesAnnotation(name="Alerts", datasource=PROMETHEUS, icon_color="red", expr=expr)
    return [_Annotation(built), replays()]


def replays() -> cog.Builder[AnnotationQuery]:
    """Ranges in which a run's rows stand in the place of live ones."""
    return _from_sql("Replay publications", REPLAYS_SQL, "purple")


def _from_sql(name: str, query: str, colour: str) -> cog.Builder[AnnotationQuery]:
    return _Annotation(AnnotationQuery(name=name, datasource=CLICKHOUSE, icon_color=colour, target=SqlTarget(query)))


# Links

CAMPAIGN_LINK: Final = (
    "This campaign",
    f"/d/{places.CAMPAIGNS}?var-campaign=${{__data.fields.campaign_id}}&${{__url_time_range}}",
)
PACING_LINK: Final = (
    "Pacing of this campaign",
    f"/d/{places.PACING}?var-campaign=${{__data.fields.campaign_id}}&${{__url_time_range}}",
)
AROUND_MS: Final = 3_600_000


def alert_columns() -> str:
    """Columns from which a row of alerts is linked to its panel, an hour before it began to an hour after its end."""
    kinds = ", ".join(f"'{kind}'" for kind in OF_KIND)
    uids = ", ".join(f"'{place.uid}'" for place in OF_KIND.values())
    ids = ", ".join(str(place.panel) for place in OF_KIND.values())
    end = "if(duration_ms IS NULL, least(now(), $__toTime), began + toIntervalSecond(intDiv(duration_ms, 1000)))"
    return f"""transform(toString(kind), [{kinds}], [{uids}], '{places.CAMPAIGNS}') AS panel_uid,
    transform(toString(kind), [{kinds}], [{ids}], {places.CTR_OVER_TIME}) AS panel_id,
    toUnixTimestamp(began) * 1000 - {AROUND_MS} AS link_from,
    toUnixTimestamp({end}) * 1000 + {AROUND_MS} AS link_to"""


ALERT_LINK: Final = (
    "The panel that explains it, at its time",
    "/d/${__data.fields.panel_uid}?viewPanel=${__data.fields.panel_id}"
    "&from=${__data.fields.link_from}&to=${__data.fields.link_to}&var-campaign=${__data.fields.campaign_id}",
)


def to_the_others() -> dashboard.DashboardLink:
    """Links to all dashboards of this product, with the same time and the same choice."""
    link = dashboard.DashboardLink("Campaign Streams").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.include_vars(True).keep_time(True).icon("dashboard").tooltip("The same time and choice")


# The dashboard


class Section:
    """A row's title and its panels, left to right and top to bottom."""

    def __init__(self, title: str, *panels: Any) -> None:
        self.title = title
        self.panels = panels


def page(
    uid: str,
    title: str,
    description: str,
    variables: Iterable[cog.Builder[VariableModel]],
    annotations: Sequence[cog.Builder[AnnotationQuery]],
    sections: Sequence[Section],
    since: str = "now-6h",
) -> Dashboard:
    """A dashboard. Nobody edits it in Grafana: it is provisioned."""
    found = dashboard.Dashboard(title).uid(uid).description(description).tags([TAG]).readonly()
    found.time(since, "now").refresh("30s").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    found.variables(list(variables)).annotations(list(annotations)).link(to_the_others())
    for number, section in enumerate(sections, start=1):
        found.with_row(dashboard.Row(section.title).id(1000 + number))
        for panel in section.panels:
            found.with_panel(panel)
    return found.build()
