"""The two data sources, and queries to them. Their uids are those that provisioning/ gives them."""

from typing import Any, Final, Self

from grafana_foundation_sdk.builders.prometheus import Dataquery as PrometheusQuery
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.cog.runtime import DataqueryConfig
from grafana_foundation_sdk.models.dashboard import DataSourceRef

PROMETHEUS: Final = DataSourceRef(type_val="prometheus", uid="campaign-streams-prometheus")
CLICKHOUSE: Final = DataSourceRef(type_val="grafana-clickhouse-datasource", uid="campaign-streams-clickhouse")

PLUGIN_VERSION: Final = "4.0.0"
"""The form of query that these are in; the plugin migrates what is older."""
FORMATS: Final = {"timeseries": 0, "table": 1}


class SqlQuery(variants.Dataquery):
    """A query to ClickHouse, as its plugin stores it. The SDK has no type for it, hence this one."""

    def __init__(self, raw_sql: str, query_type: str, ref_id: str = "A") -> None:
        self.raw_sql = raw_sql
        self.query_type = query_type
        self.ref_id = ref_id

    def to_json(self) -> dict[str, object]:
        """As it stands in a panel's `targets`."""
        return {
            "datasource": CLICKHOUSE,
            "editorType": "sql",
            "format": FORMATS[self.query_type],
            "pluginVersion": PLUGIN_VERSION,
            "queryType": self.query_type,
            "rawSql": self.raw_sql,
            "refId": self.ref_id,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(data["rawSql"], data["queryType"], data["refId"])


class _Built(cog.Builder[variants.Dataquery]):
    def __init__(self, query: variants.Dataquery) -> None:
        self._query = query

    def build(self) -> variants.Dataquery:
        return self._query


def variant_config() -> DataqueryConfig:
    """Tells the SDK how to read queries to ClickHouse."""
    return DataqueryConfig(identifier=str(CLICKHOUSE.type_val), from_json_hook=SqlQuery.from_json)


def sql_series(sql: str, ref_id: str = "A") -> cog.Builder[variants.Dataquery]:
    """A time series: a column `time`, numbers, and strings that become labels."""
    return _Built(SqlQuery(sql, "timeseries", ref_id))


def sql_table(sql: str, ref_id: str = "A") -> cog.Builder[variants.Dataquery]:
    """Rows as they are."""
    return _Built(SqlQuery(sql, "table", ref_id))


def prom(expr: str, legend: str, ref_id: str = "A") -> PrometheusQuery:
    """A range query; `legend` is a template over its labels."""
    return PrometheusQuery().expr(expr).legend_format(legend).range().ref_id(ref_id).datasource(PROMETHEUS)


def prom_now(expr: str, legend: str, ref_id: str = "A") -> PrometheusQuery:
    """Only the latest value."""
    return PrometheusQuery().expr(expr).legend_format(legend).instant().ref_id(ref_id).datasource(PROMETHEUS)
