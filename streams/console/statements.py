"""The console's questions to ClickHouse. Statements are fixed; what a request brings is bound as a value.

Figures are summed from panes, so that every worker answers for all of them, also for windows. Aliases differ from the
columns' names: ClickHouse would put one into the other.
"""

from typing import Final

from streams.console.access import Condition, for_advertisers

COUNTED: Final = (
    *("impressions", "viewable_impressions", "measured_impressions", "plays_started", "plays_completed", "clicks"),
    *("conversions", "view_through_conversions", "orders"),
)
LABELLED: Final = tuple(
    f"{validity}_{measure}" for validity in ("givt", "sivt") for measure in ("impressions", "clicks", "conversions")
)
OF_ALL: Final = ("duplicates", "late", "judged", "undecided")
MONEY: Final = ("ordered_value_micros", "spend_micros", "credited_micros", "gross_spend_micros", "invalid_spend_micros")
SUMS: Final = (*COUNTED, *LABELLED, *OF_ALL, *MONEY)


def _micros(millimicros: str) -> str:
    return f"toInt64(intDiv({millimicros} + if({millimicros} < 0, -500, 500), 1000))"


def _sums() -> str:
    """Every sum, as n_NAME. Money of several currencies is null, for currencies are never summed."""
    counts = [f"sumIf(r.{m}, r.validity = 'valid') AS n_{m}" for m in COUNTED]
    counts += [
        f"sumIf(r.{measure}, r.validity = '{validity}') AS n_{validity}_{measure}"
        for validity, _, measure in (name.partition("_") for name in LABELLED)
    ]
    counts += [f"sum(r.{m}) AS n_{m}" for m in OF_ALL]
    gross = "sum(toInt128(r.spend_millimicros))"
    valid = "sumIf(toInt128(r.spend_millimicros), r.validity = 'valid')"
    given_back = "sum(toInt128(r.credited_millimicros))"
    money = {
        "ordered_value_micros": "sumIf(r.ordered_value_micros, r.validity = 'valid')",
        "spend_micros": _micros(f"({valid} - {given_back})"),
        "credited_micros": f"{_micros(valid)} - {_micros(f'({valid} - {given_back})')}",
        "gross_spend_micros": _micros(gross),
        "invalid_spend_micros": f"{_micros(gross)} - {_micros(valid)}",
    }
    has_one = (
        "uniqExactIf(r.currency, r.spend_millimicros != 0 OR r.credited_millimicros != 0 "
        "OR r.ordered_value_micros != 0) <= 1"
    )
    counts += [f"if({has_one}, {sql}, NULL) AS n_{name}" for name, sql in money.items()]
    return ",\n        ".join(
        [*counts, "max(r.currency) AS n_currency", "toUnixTimestamp(max(r.origin_pane)) AS n_last"]
    )


AS_OF: Final = "SELECT toUnixTimestamp(ifNull(maxOrNull(effect_pane), toDateTime(0, 'UTC'))) AS newest FROM pane_rows"
ZONES: Final = "SELECT DISTINCT time_zone FROM campaigns WHERE time_zone != '' LIMIT 500"

ORDER_KEYS: Final = {
    "name": "lowerUTF8(if(name = '', campaign_id, name))",
    "spend": "toFloat64(spend_micros)",
    "impressions": "toFloat64(impressions)",
    "clicks": "toFloat64(clicks)",
    "conversions": "toFloat64(conversions)",
    "ctr": "if(impressions > 0 AND clicks <= impressions, clicks / impressions, NULL)",
    "cvr": "if(clicks > 0 AND conversions <= clicks, conversions / clicks, NULL)",
    "invalid": "if(clicks + givt_clicks + sivt_clicks > 0,"
    " (givt_clicks + sivt_clicks) / (clicks + givt_clicks + sivt_clicks), NULL)",
}
LAST_VALUE: Final = {"asc": 1e300, "desc": -1.0}
"""In the place of what is absent: it comes last in either order."""


def _known(own: Condition) -> str:
    return (
        "SELECT campaign_id, name, advertiser_id, agency_id, currency, time_zone, settings,"
        f" toUnixTimestamp(valid_from) AS held_from FROM campaigns WHERE ({own.sql})"
    )


def _counted(own: Condition, where: str) -> str:
    mine = "" if own.sql == "1" else " AND r.campaign_id IN (SELECT campaign_id FROM known)"
    return f"""
    SELECT
        r.campaign_id AS counted_id,
        {_sums()}
    FROM all_rows AS r
    WHERE r.campaign_id != ''{mine} AND {where}
    GROUP BY r.campaign_id"""


DAY_START: Final = "transform(time_zone, {zones:Array(String)}, {starts:Array(UInt32)}, toUInt32({utc_start:UInt32}))"
"""Begin of a campaign's day, epoch s: ClickHouse is told those of all zones, for a zone cannot come from a column."""


def campaigns(own: Condition, window: str, sort: str, order: str, is_further: bool) -> str:
    """A page of campaigns with their figures: those with settings, and those that only events know."""
    since = "toUnixTimestamp(r.origin_pane) >= {since:UInt32} AND toUnixTimestamp(r.origin_pane) < {until:UInt32}"
    zoned = ""
    if window == "day":
        zoned = (
            " AND toUnixTimestamp(r.origin_pane) >= "
            "if(mapContains(day_starts, r.campaign_id), day_starts[r.campaign_id], {utc_start:UInt32})"
        )
    is_text = sort == "name"
    key = ORDER_KEYS[sort] if is_text else f"ifNull({ORDER_KEYS[sort]}, {LAST_VALUE[order]})"
    compare = "<" if order == "desc" else ">"
    kind = "String" if is_text else "Float64"
    further = (
        f" AND (place {compare} {{after:{kind}}} OR (place = {{after:{kind}}} AND campaign_id > {{after_id:String}}))"
        if is_further
        else ""
    )
    columns = ",\n        ".join(f"n_{name} AS {name}" for name in (*SUMS, "last"))
    return f"""
WITH known AS ({_known(own)}),
(SELECT mapFromArrays(groupArray(campaign_id), groupArray({DAY_START})) FROM known) AS day_starts,
counted AS ({_counted(own, since + zoned)}),
lines AS (
    SELECT
        if(k.campaign_id = '', c.counted_id, k.campaign_id) AS campaign_id,
        k.name AS name,
        k.advertiser_id AS advertiser_id,
        if(k.currency = '', c.n_currency, k.currency) AS currency,
        if(k.time_zone = '', 'UTC', k.time_zone) AS time_zone,
        {columns}
    FROM known AS k {"FULL" if own.sql == "1" else "LEFT"} JOIN counted AS c ON c.counted_id = k.campaign_id
)
SELECT *, {key} AS place
FROM lines
WHERE ({{search:String}} = '' OR positionCaseInsensitiveUTF8(name, {{search:String}}) > 0
    OR positionCaseInsensitiveUTF8(campaign_id, {{search:String}}) > 0){further}
ORDER BY place {order.upper()}, campaign_id ASC
LIMIT {{entries:UInt32}}"""


def one_campaign(own: Condition) -> str:
    """Head and settings of a campaign, or no row: not there and not one's own are the same."""
    events_only = (
        " UNION ALL SELECT {campaign_id:String}, '', '', '', max(currency), '', '', toUInt32(0) FROM pane_rows"
        " WHERE campaign_id = {campaign_id:String} HAVING count() > 0"
        if own.sql == "1"
        else ""
    )
    return f"""
SELECT * FROM (
    SELECT * FROM ({_known(own)}) WHERE campaign_id = {{campaign_id:String}}{events_only}
) ORDER BY held_from DESC LIMIT 1"""


WINDOWS: Final = f"""
SELECT name AS window,
        {_sums()}
FROM all_rows AS r
ARRAY JOIN {{names:Array(String)}} AS name, {{starts:Array(UInt32)}} AS start
WHERE r.campaign_id = {{campaign_id:String}} AND toUnixTimestamp(r.origin_pane) >= start
GROUP BY name"""
"""Figures of one campaign by window: a row counts in every window that it is in. A window without rows is absent."""

DAYS: Final = f"""
SELECT toDate(toTimeZone(r.origin_pane, {{zone:String}})) AS day,
        {_sums()}
FROM all_rows AS r
WHERE r.campaign_id = {{campaign_id:String}}
GROUP BY day ORDER BY day DESC LIMIT {{entries:UInt32}}"""

MINUTES: Final = f"""
SELECT intDiv(toUnixTimestamp(r.origin_pane), {{step_s:UInt32}}) * {{step_s:UInt32}} AS at,
        {_sums()}
FROM all_rows AS r
WHERE r.campaign_id = {{campaign_id:String}} AND toUnixTimestamp(r.origin_pane) >= {{since:UInt32}}
    AND toUnixTimestamp(r.origin_pane) < {{until:UInt32}}
GROUP BY at ORDER BY at LIMIT {{entries:UInt32}}"""

SPARKS: Final = f"""
SELECT r.campaign_id AS id, intDiv(toUnixTimestamp(r.origin_pane) - {{since:UInt32}}, 60) AS place,
    sumIf(r.impressions, r.validity = 'valid') AS n_impressions, sumIf(r.clicks, r.validity = 'valid') AS n_clicks,
    {_micros("sumIf(toInt128(r.spend_millimicros), r.validity = 'valid')")} AS n_spend
FROM all_rows AS r
WHERE r.campaign_id IN {{ids:Array(String)}} AND toUnixTimestamp(r.origin_pane) >= {{since:UInt32}}
    AND toUnixTimestamp(r.origin_pane) < {{until:UInt32}}
GROUP BY id, place"""

_PACING: Final = """
    p.campaign_id AS id, p.currency AS currency, p.time_zone AS time_zone, p.period_kind AS period_kind,
    toUnixTimestamp(p.period_start) AS begins, toUnixTimestamp(p.period_end) AS ends,
    toUnixTimestamp(p.minute) AS looked_at, p.status AS status, p.budget_micros AS budget_micros,
    p.target_micros AS target_micros, p.spend_micros AS spend_micros, p.credited_micros AS credited_micros,
    p.in_flight_micros AS in_flight_micros, p.off_plan_points AS off_plan_points, p.spent_share AS spent_share,
    p.elapsed_share AS elapsed_share, p.rate AS rate, p.reason AS reason, p.reason_text AS reason_text,
    p.forecast_micros AS forecast_micros, p.forecast_low_micros AS forecast_low_micros,
    p.forecast_high_micros AS forecast_high_micros, toUnixTimestamp(p.exhausts_at) AS exhausts, p.note AS note"""

PACING: Final = f"""
SELECT {_PACING}
FROM campaign_pacing AS p
WHERE p.is_current AND p.campaign_id IN {{ids:Array(String)}}
LIMIT 1 BY p.campaign_id"""

PACE_POINTS: Final = """
SELECT toUnixTimestamp(min(m.minute)) AS at, argMax(m.target_micros, m.minute) AS target,
    argMax(m.spend_micros, m.minute) AS spend, argMax(tuple(m.forecast_micros), m.minute).1 AS forecast,
    argMax(m.rate, m.minute) AS last_rate
FROM campaign_pacing_minutes AS m
WHERE m.campaign_id = {campaign_id:String} AND toUnixTimestamp(ifNull(m.period_start, toDateTime(0, 'UTC'))) =
    {begins:UInt32} AND m.period_kind = {period_kind:String}
GROUP BY intDiv(toUnixTimestamp(m.minute), {step_s:UInt32})
ORDER BY at LIMIT {entries:UInt32}"""

_FIRING: Final = "SELECT campaign_id AS id, count() AS firing FROM alerts WHERE state = 'firing' AND campaign_id IN"


def firing(is_operator: bool) -> str:
    """How many alerts fire, by campaign."""
    audience = "" if is_operator else " AND audience = 'advertiser'"
    return f"{_FIRING} {{ids:Array(String)}}{audience} GROUP BY id"


def alerts(own: Condition, is_further: bool) -> str:
    """A page of alerts, the latest change first. Whoever is no operator sees what fires or fired for advertisers."""
    mine = (
        "1"
        if own.sql == "1"
        else f"{for_advertisers()} AND a.campaign_id IN (SELECT campaign_id FROM campaigns WHERE ({own.sql}))"
    )
    further = (
        " AND (changed_s < {after:Float64} OR (changed_s = {after:Float64} AND a.alert_id > {after_id:String}))"
        if is_further
        else ""
    )
    return f"""
SELECT a.alert_id AS alert_id, a.kind AS kind, a.state AS state, a.campaign_id AS campaign_id,
    a.campaign_name AS campaign_name, a.text_en AS text_en, a.text_zh AS text_zh, a.time_zone AS time_zone,
    toUnixTimestamp(a.began) AS began_s, toUnixTimestamp(a.changed) AS changed_s, a.duration_ms AS duration_ms,
    a.audience AS audience, a.is_pushed AS is_pushed, a.seen AS seen, a.expected AS expected, a.unit AS unit,
    a.cause AS cause
FROM alerts AS a
WHERE {mine} AND ({{campaign_id:String}} = '' OR a.campaign_id = {{campaign_id:String}})
    AND ({{state:String}} = '' OR a.state = {{state:String}}) AND ({{kind:String}} = '' OR a.kind = {{kind:String}})
    {further}
ORDER BY changed_s DESC, alert_id ASC LIMIT {{entries:UInt32}}"""


def flags(is_further: bool) -> str:
    """A page of flags, the latest decision first."""
    further = " AND (decided_s, flag_id) < ({after:Float64}, {after_id:String})" if is_further else ""
    return f"""
SELECT concat(f.event, '/', f.input, '/', f.rule, '/', toString(f.review_ms)) AS flag_id,
    f.event AS event, f.event_id AS event_id, f.input AS input, f.rule AS rule, f.class AS class,
    f.mode AS mode, f.state AS state,
    toUnixTimestamp(f.event_time) AS event_s, f.campaign_id AS campaign_id, f.creative_id AS creative_id,
    f.publisher_id AS publisher_id, f.cost_millimicros AS cost, f.currency AS currency, f.evidence AS evidence,
    toUnixTimestamp(f.decided) AS decided_s
FROM shown_flag_rows AS f
WHERE ({{campaign_id:String}} = '' OR f.campaign_id = {{campaign_id:String}})
    AND ({{rule:String}} = '' OR f.rule = {{rule:String}})
    AND ({{class:String}} = '' OR f.class = {{class:String}}) AND ({{state:String}} = '' OR f.state = {{state:String}})
    {further}
ORDER BY decided_s DESC, flag_id DESC LIMIT {{entries:UInt32}}"""


REASON_COUNTS: Final = """
SELECT day, is_provisional, class, reason_class, reason_en, reason_zh,
    sum(r.impressions) AS impressions, sum(r.clicks) AS clicks, sum(r.conversions) AS conversions
FROM invalid_reasons AS r
WHERE campaign_id = {campaign_id:String}
GROUP BY day, is_provisional, class, reason_class, reason_en, reason_zh
ORDER BY day DESC, class, reason_class LIMIT 496"""
"""Of a campaign that is one's own: 31 days and more, for a day has 16 lines at most."""

RULE_COUNTS: Final = """
SELECT rule, class, mode, state, count() AS flags FROM shown_flag_rows
WHERE campaign_id = {campaign_id:String} GROUP BY rule, class, mode, state ORDER BY flags DESC, rule LIMIT 200"""

LEDGER: Final = """
SELECT log_epoch, input, partition, consumed, counted, duplicate, late, rejected, lost_retention, no_record,
    rejected_by_reason, balance
FROM ledger WHERE log_epoch = (SELECT max(log_epoch) FROM ledger_rows)
ORDER BY input, partition LIMIT 4000"""
