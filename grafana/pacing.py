"""Pacing: plan, spend, pass-through rate, forecast, and when budgets run out."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import frame, places, sql
from grafana.frame import CAMPAIGN_LINK, Section
from grafana.house import (
    COUNT,
    MONEY,
    SECONDS,
    SHARE,
    About,
    Level,
    bars,
    column,
    falling_short,
    graph,
    number,
    rows,
    too_much,
)
from grafana.places import FORECAST, OFF_PLAN, RATE_OVER_TIME, SPEND_AND_PLAN
from grafana.sources import prom, sql_series, sql_table

OF_CAMPAIGN = 'campaign=~"${campaign:regex}"'
CHOSEN = sql.chosen()
SERIES = 10
"""Campaigns that are drawn, the largest budgets first: more cannot be told apart."""
OFF_PLAN_LEVELS = ("red", Level(-10, "yellow"), Level(-5, "green"), Level(5, "yellow"), Level(10, "red"))

CURRENT = f"""\
FROM campaign_pacing
WHERE is_current
    AND $__timeFilter(minute)
    AND {CHOSEN}"""
DRAWN = f"""\
FROM campaign_pacing_minutes
WHERE $__timeFilter(minute)
    AND campaign_id IN (
        SELECT campaign_id
        FROM pacing_rows
        WHERE $__timeFilter(minute)
            AND {CHOSEN.replace(chr(10), chr(10) + " " * 8)}
        GROUP BY campaign_id
        ORDER BY max(budget_micros) DESC, campaign_id
        LIMIT {SERIES}
    )"""
NAMED = "${__field.name} ${__field.labels.campaign}"


def current(columns: str) -> str:
    """Of the latest period of each campaign that was looked at in the time range."""
    return f"SELECT\n    {columns}\n{CURRENT}"


def drawn(columns: str) -> str:
    """By minute, of the campaigns that are drawn."""
    return f"SELECT\n    minute AS time,\n    toString(campaign_id) AS campaign,\n    {columns}\n{DRAWN}\nORDER BY time"


def overview() -> Section:
    """How many campaigns are in which state."""
    return Section(
        "Now: the latest period of each campaign",
        number(
            About(
                1,
                "Paced campaigns",
                "Campaigns whose pacing was looked at in the time range.",
                "Fewer than there should be: campaigns without a budget are not paced; check their settings.",
                COUNT,
                falling_short(1, 1),
            ),
            sql_table(current("count() AS campaigns")),
            height=8,
        ),
        number(
            About(
                2,
                "Well behind or ahead of plan",
                "Campaigns whose spend is more than 5 % of the budget off the plan.",
                "Sort the table below by off_plan_points. Many at once have one cause: traffic, or a silent input.",
                COUNT,
                too_much(1, 10),
            ),
            sql_table(current("countIf(abs(off_plan_points) > 5) AS campaigns")),
            height=8,
        ),
        bars(
            About(
                3,
                "Campaigns by status",
                "on_plan within 2 % of the budget, behind or ahead within 5, well_ within 10, far_ beyond; unknown: an "
                "input is silent or there is no budget.",
                "unknown: look at the watermark in Pipeline health; rates are held until the input is back.",
                COUNT,
            ),
            sql_table(f"{current('status, count() AS campaigns')}\nGROUP BY status\nORDER BY campaigns DESC"),
            width=7,
            by_row=True,
        ),
        bars(
            About(
                4,
                "Campaigns by the reason of their rate",
                "Why pass-through rates are what they are, in words.",
                "Many held by an allowance: check balances and shared budgets.",
                COUNT,
            ),
            sql_table(f"{current('reason_text, count() AS campaigns')}\nGROUP BY reason_text\nORDER BY campaigns DESC"),
            width=9,
            by_row=True,
        ),
    )


def plan() -> Section:
    """Plan and spend."""
    money = ",\n    ".join(
        [
            'spend_micros / 1e6 AS "spend"',
            'target_micros / 1e6 AS "plan"',
            'budget_micros / 1e6 AS "budget"',
        ]
    )
    return Section(
        "Plan, spend, rate, forecast",
        graph(
            About(
                SPEND_AND_PLAN,
                "Spend, plan and budget",
                "Net spend of the period, what should be spent by then, and what the period may spend, in units of the "
                f"campaign's currency. At most {SERIES} campaigns; choose one to read it well.",
                "Spend below the plan with a rate of 1: there is not enough traffic; widen the targeting or raise the "
                "bid. Spend at the budget: it is exhausted.",
                MONEY,
            ),
            sql_series(drawn(money)),
            interval="1m",
            name=NAMED,
        ),
        graph(
            About(
                OFF_PLAN,
                "Off plan",
                "Spend less plan over budget, percentage points: below 0 is behind.",
                "Beyond 10 for an hour: look at the rate below. At 1 and still behind, pacing can do no more.",
                "percent",
                OFF_PLAN_LEVELS,
            ),
            sql_series(drawn("100 * (spend_micros - target_micros) / nullIf(budget_micros, 0) AS points")),
            interval="1m",
            name="${__field.labels.campaign}",
        ),
        graph(
            About(
                RATE_OVER_TIME,
                "Pass-through rate",
                "The share of requests that the ad server is told to take part in, 0 to 1.",
                "0: exhausted, ended or not started. It swings: the ad server does not follow `ads.pacing`, or follows "
                "old controls.",
                SHARE,
                falling_short(0.05, 0.2),
            ),
            sql_series(drawn("rate")),
            interval="1m",
            name="${__field.labels.campaign}",
        ),
        graph(
            About(
                FORECAST,
                "Forecast over budget, with its 90 % interval",
                "Spend expected at the period's end, over the budget: 100 % is all of it. No line: nothing to go by.",
                "The upper end below 100 %: tell the advertiser, the budget will not be spent. The lower end above: it "
                "runs out early.",
                SHARE,
                ("red", Level(0.9, "green"), Level(1.05, "yellow")),
            ),
            sql_series(
                drawn(
                    'forecast_micros / nullIf(budget_micros, 0) AS "forecast",\n'
                    '    forecast_low_micros / nullIf(budget_micros, 0) AS "at least",\n'
                    '    forecast_high_micros / nullIf(budget_micros, 0) AS "at most"'
                )
            ),
            interval="1m",
            name=NAMED,
        ),
    )


EVERYBODY = """\
campaign_id,
    campaign_name AS name,
    status,
    reason_text AS reason,
    currency,
    budget_micros / 1e6 AS budget,
    spend_micros / 1e6 AS spend,
    target_micros / 1e6 AS plan,
    off_plan_points,
    spent_share,
    elapsed_share,
    osi,
    rate,
    forecast_micros / 1e6 AS forecast,
    forecast_low_micros / 1e6 AS forecast_low,
    forecast_high_micros / 1e6 AS forecast_high,
    credited_micros / 1e6 AS credited,
    in_flight_micros / 1e6 AS in_flight,
    period_end,
    exhausts_at,
    note"""
RUNNING_OUT = """\
campaign_id,
    campaign_name AS name,
    exhausts_at,
    toInt64(toUnixTimestamp(exhausts_at)) - toInt64(toUnixTimestamp(minute)) AS left_s,
    toInt64(toUnixTimestamp(period_end)) - toInt64(toUnixTimestamp(exhausts_at)) AS early_s,
    spent_share,
    rate"""


def tables() -> Section:
    """Every campaign."""
    everybody = rows(
        About(
            9,
            "Campaigns",
            "The latest period of each campaign, the furthest off plan first. osi is spend over plan: 1 is on plan.",
            "Open a campaign to see its traffic; `campaign-streams pacing list` says the same in a terminal.",
            COUNT,
        ),
        sql_table(f"{current(EVERYBODY)}\nORDER BY abs(ifNull(off_plan_points, 0)) DESC LIMIT 500"),
    )
    for name in ("budget", "spend", "plan", "forecast", "forecast_low", "forecast_high", "credited", "in_flight"):
        column(everybody, name, MONEY, 2)
    for name in ("spent_share", "elapsed_share", "rate"):
        column(everybody, name, SHARE, 1)
    column(everybody, "off_plan_points", "percent", 1, OFF_PLAN_LEVELS)
    column(everybody, "osi", MONEY, 2)
    column(everybody, "campaign_id", link=CAMPAIGN_LINK)
    running_out = rows(
        About(
            10,
            "Budgets that run out before the period ends",
            "Campaigns whose budget is expected to be spent in this period: when, how long that is from the last look, "
            "and how long before the end.",
            "Raise the budget, or lower the bid, before left_s is over. Spent evenly, early_s is about 0.",
            SECONDS,
        ),
        sql_table(f"{current(RUNNING_OUT)}\n    AND exhausts_at IS NOT NULL\nORDER BY exhausts_at LIMIT 200"),
    )
    column(running_out, "left_s", SECONDS, 0, ("red", Level(3_600, "yellow"), Level(14_400, "green")))
    column(running_out, "spent_share", SHARE, 1)
    column(running_out, "rate", SHARE, 1)
    column(running_out, "campaign_id", link=CAMPAIGN_LINK)
    return Section("Every campaign", everybody, running_out)


def live() -> Section:
    """From the workers' memory."""
    return Section(
        "Right now, from the workers",
        graph(
            About(
                11,
                "Pass-through rate now",
                "What the ad server is told, seconds old: the campaigns that spend most today.",
                "It differs from the rate above for long: rows wait for ClickHouse; see Pipeline health.",
                SHARE,
                falling_short(0.05, 0.2),
            ),
            prom(f"max by (campaign) (campaign_streams_campaign_pacing_rate_ratio{{{OF_CAMPAIGN}}})", "{{campaign}}"),
            width=8,
        ),
        graph(
            About(
                12,
                "Spend and budget now",
                "Net spend of the period and what it may spend, in units of the campaign's currency.",
                "Spend beyond the budget: in_flight was larger than expected; the overspend is bounded by it.",
                MONEY,
            ),
            prom(
                f"max by (campaign) (campaign_streams_campaign_pacing_spend_micros{{{OF_CAMPAIGN}}}) / 1e6",
                "spend {{campaign}}",
                "A",
            ),
            prom(
                f"max by (campaign) (campaign_streams_campaign_pacing_budget_micros{{{OF_CAMPAIGN}}}) / 1e6",
                "budget {{campaign}}",
                "B",
            ),
            width=8,
        ),
        graph(
            About(
                13,
                "In flight and given back",
                "Expected cost of what was served and may still be billed, and credits of the period.",
                "In flight grows while spend does not: events of the billed kind are late or missing.",
                MONEY,
            ),
            prom(
                f"max by (campaign) (campaign_streams_campaign_pacing_in_flight_micros{{{OF_CAMPAIGN}}}) / 1e6",
                "in flight {{campaign}}",
                "A",
            ),
            prom(
                f"max by (campaign) (campaign_streams_campaign_pacing_credited_micros{{{OF_CAMPAIGN}}}) / 1e6",
                "credited {{campaign}}",
                "B",
            ),
            width=8,
        ),
    )


def build() -> Dashboard:
    """The dashboard."""
    return frame.page(
        places.PACING,
        "Pacing",
        "Budgets: plan, spend, pass-through rate, forecast and exhaustion, by campaign.",
        [frame.variable(name) for name in ("advertiser", "campaign")],
        frame.of_campaigns(),
        [overview(), plan(), tables(), live()],
        since="now-24h",
    )
