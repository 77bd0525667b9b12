"""For whoever reads ClickHouse itself: a database of views that hold what the console shows to the same scopes.

The script is for a server, run once by its administrator. The embedded engine knows neither users nor roles. Its views
run as who made them (SQL SECURITY DEFINER), so the reader needs no right on any table, and has none.
"""

import re
from typing import Final

from streams.console.access import Kind, Principal, Scope, for_advertisers, own_campaigns
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
    "invalid_traffic": (
        *("campaign_id", "campaign_name", "time_zone", "day", "currency", "is_provisional"),
        *("impressions", "givt_impressions", "sivt_impressions", "clicks", "givt_clicks", "sivt_clicks"),
        *("conversions", "givt_conversions", "sivt_conversions", "spend_micros", "credited_micros"),
        *("given_back_micros", "invalid_impression_share", "invalid_click_share", "invalid_conversion_share"),
    ),
    "invalid_reasons": (
        *("campaign_id", "campaign_name", "time_zone", "day", "is_provisional", "class", "reason_class"),
        *("reason_en", "reason_zh", "impressions", "clicks", "conversions"),
    ),
    "alerts": ("alert_id", "kind", "state", "campaign_id", "text_en", "text_zh", "time_zone", "began", "changed"),
}
"""What a reader gets, by the view that it comes from. Of invalid traffic its classes, the reasons' classes and what was
given back: no gross spend, nor what it is the rest of."""
_UNSETTLED: Final = "toBool(toDate(toString(now('UTC'), time_zone)) < day + 2)"
"""Of a day in its own zone: it is settled once the next one has ended (T+1), as in the console."""


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
        f"SELECT {', '.join(columns)}{_provisional(database, view)}\nFROM {database}.{view}\n"
        f"WHERE campaign_id IN (SELECT campaign_id FROM {database}.campaigns WHERE {own}){_audience(database, view)}"
        for view, columns in VIEWS.items()
    ]
    rights = [f"CREATE ROLE IF NOT EXISTS {reader}", f"GRANT SELECT ON {reader}.* TO {reader}"]
    return [f"CREATE DATABASE IF NOT EXISTS {reader}", *views, *rights]


def _audience(database: str, view: str) -> str:
    return f" AND {for_advertisers(database)}" if view == "alerts" else ""


def _provisional(database: str, view: str) -> str:
    """The column is_provisional, where the view has none. A total is while one of its days is."""
    if view == "campaign_days":
        return f", {_UNSETTLED} AS is_provisional"
    if view == "campaign_totals":
        days = f"SELECT campaign_id FROM {database}.campaign_days WHERE {_UNSETTLED}"
        return f", toBool(campaign_id IN ({days})) AS is_provisional"
    return ""


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
