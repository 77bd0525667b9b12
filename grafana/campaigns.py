"""Live campaigns: CTR and CVR with their intervals, the funnel, spend, and what moved most."""

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import frame, places, sql
from grafana.frame import CAMPAIGN_LINK, Section
from grafana.house import COUNT, MONEY, SHARE, About, Level, band, bars, column, falling_short, graph, number, rows
from grafana.places import CTR_OVER_TIME, CVR_OVER_TIME, SPEND_OVER_TIME
from grafana.sources import prom, sql_series, sql_table
from grafana.sql import NET_SPEND, RATIOS, indented, traffic, valid

CTR_LEVELS = falling_short(0.0005, 0.001)
CVR_LEVELS = falling_short(0.001, 0.005)
TOP = 20


def ratio(numerator: str, denominator: str, names: tuple[str, str, str], time: bool) -> str:
    """A ratio of sums and its interval, of the whole range or over time."""
    group = "time" if time else ""
    inner = f"{valid(numerator)} AS k,\n    {valid(denominator)} AS n"
    inner = f"$__timeInterval(origin_pane) AS time,\n    {inner}" if time else inner
    value, low, high = names
    columns = f'share(k, n) AS "{value}", wilson_low(k, n) AS "{low}", wilson_high(k, n) AS "{high}"'
    body = f"{RATIOS}\nSELECT {'time, ' if time else ''}{columns}\nFROM (\n{indented(traffic(inner, group))}\n)"
    return f"{body}\nORDER BY time" if time else body


def total(measure: str, name: str) -> str:
    """A sum over valid traffic."""
    return traffic(f'{valid(measure)} AS "{name}"')


def totals() -> Section:
    """The range as a whole."""
    return Section(
        "The whole time range, valid traffic",
        number(
            About(
                1,
                "Impressions",
                "Ads that began to render in the time range, less invalid traffic.",
                "0 while the campaign should run: look at Pacing for the reason of its rate, then at Pipeline health.",
                COUNT,
                falling_short(1, 100),
            ),
            sql_table(total("impressions", "impressions")),
        ),
        number(
            About(
                2,
                "Clicks",
                "Clicks of the types that count towards CTR, less invalid traffic.",
                "Impressions without clicks: check the creative's link, then whether the input `clicks` lags.",
                COUNT,
                falling_short(1, 10),
            ),
            sql_table(total("clicks", "clicks")),
        ),
        number(
            About(
                3,
                "Conversions",
                "Conversions credited to a click, by the time of the conversion, less invalid traffic.",
                "Clicks without conversions: check the advertiser's conversion feed before the campaign.",
                COUNT,
                falling_short(1, 10),
            ),
            sql_table(total("conversions", "conversions")),
        ),
        number(
            About(
                4,
                "CTR and its 95 % interval",
                "Clicks over impressions, and the Wilson interval in which the true rate lies 19 times out of 20. "
                "Empty without impressions, or where clicks outnumber them.",
                "Compare intervals, not values: where two overlap, there is no difference to act upon yet.",
                SHARE,
                CTR_LEVELS,
            ),
            sql_table(ratio("clicks", "impressions", ("CTR", "at least", "at most"), time=False)),
        ),
        number(
            About(
                5,
                "CVR and its 95 % interval",
                "Conversions over clicks of the same range, by conversion time. It is not final: conversions of the "
                "last clicks are still to come.",
                "Judge young campaigns by CVR by click time, below, with its maturity.",
                SHARE,
                CVR_LEVELS,
            ),
            sql_table(ratio("conversions", "clicks", ("CVR", "at least", "at most"), time=False)),
        ),
        number(
            About(
                6,
                "Spend",
                "Billed for valid traffic less what was given back, in units of each currency. "
                "Currencies are never summed.",
                "Higher than the plan: see Pacing. Without a currency: events that name none.",
                MONEY,
            ),
            sql_table(
                traffic(f"currency,\n    {NET_SPEND} AS spend", "currency\nHAVING spend != 0\nORDER BY spend DESC")
            ),
            by_row=True,
        ),
    )


def rates() -> Section:
    """Ratios over time."""
    return Section(
        "Rates",
        band(
            graph(
                About(
                    CTR_OVER_TIME,
                    "CTR",
                    "Clicks over impressions of each interval, valid traffic; the band is the 95 % Wilson interval. "
                    "A gap: no impressions.",
                    "A fall below the band of the hours before, in all creatives: look for a broken page or tracker. "
                    "A rise far above it: look at Invalid traffic first.",
                    SHARE,
                    CTR_LEVELS,
                ),
                sql_series(ratio("clicks", "impressions", ("CTR", "CTR at least", "CTR at most"), time=True)),
                interval="1m",
            ),
            "CTR at least",
            "CTR at most",
        ),
        band(
            graph(
                About(
                    CVR_OVER_TIME,
                    "CVR by conversion time",
                    "Conversions over clicks of each interval, valid traffic; the band is the 95 % Wilson interval. "
                    "Both are counted when they happen, so a burst of clicks lowers it for a while.",
                    "A collapse while clicks go on: ask the advertiser whether conversions are still sent.",
                    SHARE,
                    CVR_LEVELS,
                ),
                sql_series(ratio("conversions", "clicks", ("CVR", "CVR at least", "CVR at most"), time=True)),
                interval="1m",
            ),
            "CVR at least",
            "CVR at most",
        ),
    )


STEPS = (
    ("impressions", "1 impressions"),
    ("viewable_impressions", "2 viewable"),
    ("plays_started", "3 plays"),
    ("plays_3s", "4 plays of 3 s"),
    ("plays_completed", "5 complete plays"),
    ("clicks", "6 clicks"),
    ("conversions", "7 conversions"),
    ("orders", "8 orders"),
    ("paid_orders", "9 paid orders"),
)


def funnel_and_spend() -> Section:
    """From impressions to paid orders, and what it cost."""
    funnel = ",\n    ".join(f'{valid(measure)} AS "{name}"' for measure, name in STEPS)
    spend = f"$__timeInterval(origin_pane) AS time,\n    toString(currency) AS currency,\n    {NET_SPEND} AS spend"
    return Section(
        "Funnel and spend",
        bars(
            About(
                9,
                "Funnel",
                "How far the valid traffic of the time range went, each step counted by itself.",
                "Find the first step that is shorter than it used to be, and compare creatives there.",
                COUNT,
            ),
            sql_table(traffic(funnel)),
        ),
        graph(
            About(
                SPEND_OVER_TIME,
                "Spend",
                "Billed for valid traffic less credits, by interval and currency, in units of the currency. "
                "Below 0: more was given back than billed.",
                "Flat at 0 while impressions come: check the campaign's billing terms. A spike: see Pacing.",
                MONEY,
            ),
            sql_series(traffic(spend, "time, currency\nHAVING spend != 0\nORDER BY time")),
            interval="1m",
            name="${__field.labels.currency}",
        ),
    )


def movers() -> str:
    """Campaigns by how sure it is that their CTR has changed from the first half of the range to the second."""
    middle = "($__fromTime + toIntervalSecond(intDiv(toUnixTimestamp($__toTime) - toUnixTimestamp($__fromTime), 2)))"
    late = f"origin_pane >= {middle}"
    measures = {"clicks": "k", "impressions": "n"}
    halves = [
        f"sumIf({measure}, validity = 'valid' AND {'NOT ' if half == 1 else ''}{late}) AS {short}{half}"
        for half in (1, 2)
        for measure, short in measures.items()
    ]
    columns = ",\n    ".join(["toString(campaign_id) AS campaign", *halves])
    return f"""{RATIOS}
SELECT
    m.campaign AS campaign_id,
    ifNull(c.name, '') AS name,
    share(k1, n1) AS ctr_before,
    share(k2, n2) AS ctr_now,
    100 * (ctr_now - ctr_before) AS points,
    (ctr_now - ctr_before) / nullIf(sqrt((k1 + k2) / (n1 + n2) * (1 - (k1 + k2) / (n1 + n2)) * (1 / n1 + 1 / n2)), 0)
        AS z,
    n2 AS impressions_now
FROM (
{indented(traffic(columns, "campaign"))}
) AS m
LEFT JOIN campaigns AS c ON c.campaign_id = m.campaign
WHERE n1 > 0 AND n2 > 0
ORDER BY abs(ifNull(z, 0)) DESC LIMIT {TOP}"""


MEASURED = ",\n    ".join(
    [
        f"{valid('impressions')} AS n",
        f"{valid('clicks')} AS k",
        f"{valid('conversions')} AS v",
        f"{NET_SPEND} AS spend",
    ]
)
SHOWN = """n AS impressions,
    k AS clicks,
    share(k, n) AS ctr,
    wilson_low(k, n) AS ctr_low,
    wilson_high(k, n) AS ctr_high,
    v AS conversions,
    share(v, k) AS cvr,
    wilson_low(v, k) AS cvr_low,
    wilson_high(v, k) AS cvr_high,
    m.spend AS spend,
    m.currency AS currency"""


def by(columns: dict[str, str], limit: int) -> str:
    """The measures of each group; a group in two currencies has two rows."""
    names = ", ".join(columns)
    inner = ",\n    ".join(f"toString({source}) AS {name}" for name, source in columns.items())
    grouped = traffic(f"{inner},\n    toString(currency) AS currency,\n    {MEASURED}", f"{names}, currency")
    shown = ",\n    ".join(
        f"m.{name} AS {name}_id" if name == "campaign" else f"m.{name} AS {name}" for name in columns
    )
    return f"""{RATIOS}
SELECT
    {shown},
    {SHOWN}
FROM (
{indented(grouped)}
) AS m
ORDER BY n DESC LIMIT {limit}"""


def tables() -> Section:
    """Who moved, and everybody."""
    moved = rows(
        About(
            12,
            "Top movers",
            "CTR of the second half of the time range against the first. z is the change in its standard errors "
            "(two proportions): beyond 3 it is no accident.",
            "Open the campaign; look for a change of settings (blue marks), then for invalid traffic.",
            COUNT,
        ),
        sql_table(movers()),
    )
    for name in ("ctr_before", "ctr_now"):
        column(moved, name, SHARE, 3, CTR_LEVELS)
    column(moved, "z", "none", 1, ("red", Level(-3, "text"), Level(3, "green")))
    column(moved, "points", "none", 3)
    column(moved, "campaign_id", link=CAMPAIGN_LINK)
    return Section(
        "Campaigns",
        moved,
        column(
            _measured(
                About(
                    13,
                    "Campaigns",
                    "Valid traffic of the time range by campaign, with 95 % intervals, the largest first.",
                    "Sort by a column; a campaign's link narrows all panels to it.",
                    COUNT,
                ),
                by({"campaign": "campaign_id"}, 200),
            ),
            "campaign_id",
            link=CAMPAIGN_LINK,
        ),
        _measured(
            About(
                14,
                "Creatives and variants",
                "The same by creative and by arm of its first experiment.",
                "An arm is better only where its interval lies wholly above the other's.",
                COUNT,
            ),
            by({"creative": "creative_id", "variant": "variant"}, 200),
            width=12,
        ),
        _measured(
            About(
                15,
                "Regions and channels",
                "The same by region and channel. Beyond the limit of keys it stands under `other`.",
                "Much under `other`: raise `rules.max_report_keys`, or split by fewer dimensions.",
                COUNT,
            ),
            by({"region": "region", "channel": "channel"}, 200),
            width=12,
        ),
    )


def _measured(about: About, query: str, width: int = 24) -> table.Panel:
    panel = rows(about, sql_table(query), width=width)
    for name in ("ctr", "ctr_low", "ctr_high"):
        column(panel, name, SHARE, 3, CTR_LEVELS if name == "ctr" else ())
    for name in ("cvr", "cvr_low", "cvr_high"):
        column(panel, name, SHARE, 2, CVR_LEVELS if name == "cvr" else ())
    return column(panel, "spend", MONEY, 2)


COHORTS = f"""\
SELECT
    click_hour AS time,
    toString(campaign_id) AS campaign,
    cvr AS "CVR",
    maturity AS "maturity"
FROM campaign_cohorts
WHERE $__timeFilter(click_hour)
    AND {sql.chosen()}
    AND clicks >= 30
ORDER BY time LIMIT 5000"""
OF_CAMPAIGN = 'campaign=~"${campaign:regex}"'


def now() -> Section:
    """What does not come from rows of the range."""
    return Section(
        "Cohorts, and right now",
        graph(
            About(
                11,
                "CVR by click time, and its maturity",
                "Conversions of the clicks of each hour over those clicks, and the share of conversions that should "
                "have come by now. Campaigns only: other variables do not apply. Hours of fewer than 30 clicks are "
                "left out.",
                "Compare hours of like maturity; below 0.5 a low CVR says nothing yet.",
                SHARE,
                falling_short(0.001, 0.5),
            ),
            sql_series(COHORTS),
            width=8,
            name="${__field.name} ${__field.labels.campaign}",
        ),
        graph(
            About(
                16,
                "CTR of the last 5 minutes",
                "From the worker's memory by Prometheus, seconds old: the campaigns that spend most today; the rest "
                "is `other`.",
                "It differs from CTR above for long: look at NumbersSlow and lag in Pipeline health.",
                SHARE,
                CTR_LEVELS,
            ),
            prom(
                f'max by (campaign) (campaign_streams_campaign_ctr_ratio{{{OF_CAMPAIGN}, window="5m"}})', "{{campaign}}"
            ),
            width=8,
        ),
        graph(
            About(
                17,
                "Spend today",
                "Net spend of the campaign's day so far, in units of its currency, from the worker's memory.",
                "A line that stays flat: the campaign has stopped; Pacing has the reason.",
                MONEY,
            ),
            prom(
                f'max by (campaign) (campaign_streams_campaign_spend_micros{{{OF_CAMPAIGN}, window="day"}}) / 1e6',
                "{{campaign}}",
            ),
            width=8,
        ),
    )


ALERTS = f"""\
SELECT
    began,
    state,
    kind,
    campaign_id,
    text_en AS text,
    duration_ms,
    {frame.alert_columns()}
FROM alerts
WHERE state != 'pending'
    AND began <= $__toTime
    AND (duration_ms IS NULL OR began + toIntervalSecond(intDiv(duration_ms, 1000)) >= $__fromTime)
    AND {sql.chosen()}
ORDER BY began DESC LIMIT 100"""


def alerts() -> Section:
    """What people were told."""
    panel = rows(
        About(
            18,
            "Alerts",
            "Each alert of the chosen campaigns that fired in the time range, in its latest state.",
            "Follow the link of its kind: it leads to the panel that explains it, at its time.",
            COUNT,
        ),
        sql_table(ALERTS),
    )
    column(panel, "kind", link=frame.ALERT_LINK)
    column(panel, "campaign_id", link=CAMPAIGN_LINK)
    column(panel, "duration_ms", "ms")
    for name in ("panel_uid", "panel_id", "link_from", "link_to"):
        column(panel, name, is_hidden=True)
    return Section("Alerts", panel)


def build() -> Dashboard:
    """The dashboard."""
    return frame.page(
        places.CAMPAIGNS,
        "Campaigns",
        "Live campaigns: CTR and CVR with their intervals, funnel, spend, movers and alerts. "
        "Valid traffic of campaigns throughout; organic traffic is left out.",
        [frame.variable(name) for name in frame.VARIABLES],
        frame.of_campaigns(),
        [totals(), rates(), funnel_and_spend(), tables(), now(), alerts()],
    )
