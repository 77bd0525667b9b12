"""Pieces of SQL that panels share: what the variables select, and ratios with their intervals as the views have them.

Panels read the rows that count (shown_report_rows, with those of published runs) by their primary key, not the views by
minute: those sum over all time before a range is cut.
"""

from collections.abc import Iterable
from typing import Final

Z: Final = 1.959963984540054
"""Of a 95 % interval (schemas/clickhouse/0002_base_views.sql)."""
_HALF, _QUARTER, _WHOLE = "1.920729410347062", "0.960364705173531", "3.841458820694124"

SHARE: Final = "(k, n) -> if(n > 0 AND k BETWEEN 0 AND n, k / n, NULL) AS share"
WILSON_LOW: Final = (
    f"(k, n) -> if(n > 0 AND k BETWEEN 0 AND n, greatest(0, (k + {_HALF} - {Z} * "
    f"sqrt(k / n * (n - k) + {_QUARTER})) / (n + {_WHOLE})), NULL) AS wilson_low"
)
WILSON_HIGH: Final = (
    f"(k, n) -> if(n > 0 AND k BETWEEN 0 AND n, least(1, (k + {_HALF} + {Z} * "
    f"sqrt(k / n * (n - k) + {_QUARTER})) / (n + {_WHOLE})), NULL) AS wilson_high"
)
RATIOS: Final = f"WITH\n    {SHARE},\n    {WILSON_LOW},\n    {WILSON_HIGH}"

CHOSEN: Final = {
    "campaign": "campaign_id",
    "creative": "creative_id",
    "variant": "variant",
    "region": "region",
    "channel": "channel",
}
"""Variables and their columns in report_rows. The advertiser need not be one of its dimensions: `OF_ADVERTISER`."""
OF_ADVERTISER: Final = (
    "$__conditionalAll(campaign_id IN (SELECT campaign_id FROM campaigns "
    "WHERE advertiser_id IN (${advertiser:singlequote})), $advertiser)"
)
OF_CAMPAIGNS: Final = "campaign_id != ''"
EVERY: Final = tuple(CHOSEN)


def chosen(variables: Iterable[str] = ("campaign",)) -> str:
    """What a row must satisfy to be among the chosen ones; everything where a variable is set to All."""
    parts = [OF_ADVERTISER]
    parts += [f"$__conditionalAll({CHOSEN[name]} IN (${{{name}:singlequote}}), ${name})" for name in variables]
    return "\n    AND ".join(parts)


def traffic(columns: str, group: str = "", variables: Iterable[str] = EVERY) -> str:
    """Sums over the rows of the time range that the variables select; organic traffic is of no campaign."""
    where = f"$__timeFilter(origin_pane)\n    AND {OF_CAMPAIGNS}\n    AND {chosen(variables)}"
    tail = f"\nGROUP BY {group}" if group else ""
    return f"SELECT\n    {columns}\nFROM shown_report_rows\nWHERE {where}{tail}"


def indented(sql: str) -> str:
    """For a subquery."""
    return "    " + sql.replace("\n", "\n    ")


def valid(column: str) -> str:
    """Sum over valid traffic."""
    return f"sumIf({column}, validity = 'valid')"


MONEY: Final = "toFloat64({}) / 1e9"
"""Thousandths of a micro, in units of the currency."""
NET_SPEND: Final = MONEY.format("sumIf(spend_millimicros, validity = 'valid') - sum(credited_millimicros)")
