"""For whoever reads ClickHouse itself: a database of views that hold what the console shows to the same scopes.

The script is for a server, run once by its administrator. The embedded engine knows neither users nor roles. Its views
run as who made them (SQL SECURITY DEFINER), so the reader needs no right on any table, and has none.
"""

import re
from typing import Final

from streams.console.access import Kind, Principal, Scope, own_campaigns
from streams.errors import ConfigurationError

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_BILLED: Final = (
    *("impressions", "viewable_impressions", "measured_impressions", "plays_started", "plays_completed", "clicks"),
    *("conversions", "view_through_conversions", "orders", "ordered_value_micros", "spend_micros", "credited_micros"),
    *("ctr", "ctr_low", "ctr_high", "cvr", "cvr_low", "cvr_high"),
)
VIEWS: Final = {
    "campaign_days": ("campaign_id", "time_zone", "day", "currency", *_BILLED),
    "campaign_totals": ("campaign_id", "campaign_name", "currency", *_BILLED),
    "alerts": ("alert_id", "kind", "state", "campaign_id", "text_en", "text_zh", "time_zone", "began", "changed"),
}
"""What a reader gets, by the view that it comes from."""


def direct_access_sql(database: str, reader: str, scopes: tuple[Scope, ...]) -> list[str]:
    """Statements that make the database `reader`, its role, and the role's only rights.

    Raises:
        ConfigurationError: a name is none, or the scope is an operator's, who reads the database itself.
    """
    for name in (database, reader):
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"{name!r} is no name here; use a to z, digits and _, beginning with a letter")
    if any(scope.kind is Kind.OPERATOR for scope in scopes):
        raise ConfigurationError("an operator reads the database itself; give agency:ID, advertiser:ID, …")
    own = _literal(Principal(reader, scopes))
    views = [
        f"CREATE OR REPLACE VIEW {reader}.{view} DEFINER = CURRENT_USER SQL SECURITY DEFINER AS\n"
        f"SELECT {', '.join(columns)}{_provisional(view)}\nFROM {database}.{view}\n"
        f"WHERE campaign_id IN (SELECT campaign_id FROM {database}.campaigns WHERE {own}){_audience(view)}"
        for view, columns in VIEWS.items()
    ]
    rights = [f"CREATE ROLE IF NOT EXISTS {reader}", f"GRANT SELECT ON {reader}.* TO {reader}"]
    return [f"CREATE DATABASE IF NOT EXISTS {reader}", *views, *rights]


def _audience(view: str) -> str:
    return " AND audience = 'advertiser'" if view == "alerts" else ""


def _provisional(view: str) -> str:
    """Settled a whole day after a day's end (T+1); counted in UTC with the widest zone in mind, never too early."""
    return (
        ", toDateTime(day + 2, 'UTC') + INTERVAL 12 HOUR > now() AS is_provisional" if view == "campaign_days" else ""
    )


def _literal(who: Principal) -> str:
    """The scopes' condition with its values written in: a view has no parameters of its own."""
    sql, values = own_campaigns(who)
    for name, found in values.items():
        texts = ", ".join(_quoted(str(each)) for each in found)  # type: ignore[attr-defined]
        sql = sql.replace(f"{{{name}:Array(String)}}", f"({texts})")
    return sql


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
