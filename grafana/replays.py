"""Replay comparison: what a run came to, beside the live rows of its range."""

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import frame, places, sql
from grafana.frame import CAMPAIGN_LINK, Section
from grafana.house import COUNT, MONEY, SHARE, About, Level, column, graph, number, rows, too_much
from grafana.sources import sql_series, sql_table
from grafana.sql import SHARE as SHARE_OF

RUN = "${run:singlequote}"
OF_RUN = f"FROM runs FINAL WHERE run = {RUN}"
RANGE = f"""\
    (SELECT max(from_pane) {OF_RUN}) AS run_begin,
    (SELECT max(to_pane) {OF_RUN}) AS run_end,
    (SELECT any(campaigns) {OF_RUN}) AS only"""
CHOSEN = sql.chosen().replace("\n    ", "\n        ")
ZERO_IS_EQUAL = ("yellow", Level(0, "green"), Level(1, "yellow"))
ONLY_IN_ONE = 200


def within(time: str) -> str:
    """Rows of the run's range and of its campaigns, among the chosen ones."""
    return f"""{time} >= run_begin AND {time} < run_end
        AND (empty(only) OR has(only, toString(campaign_id)))
        AND {CHOSEN}"""


def sides(name: str, time: str, columns: str) -> str:
    """Rows of both sides: `is_run` tells which."""
    return f"""WITH
{RANGE},
sides AS (
    SELECT 0 AS is_run, {columns}
    FROM {name} FINAL
    WHERE {within(time)}
    UNION ALL
    SELECT 1 AS is_run, {columns}
    FROM run_{name} FINAL
    WHERE run = {RUN}
        AND {within(time)}
)"""


PANES = sides(
    "pane_rows",
    "effect_pane",
    "campaign_id, currency, effect_pane, validity, impressions, clicks, conversions, spend_millimicros, "
    "credited_millimicros",
)
MEASURES = ("impressions", "clicks", "conversions")


def valid(measure: str, side: int) -> str:
    """Of valid traffic of one side (1: the run)."""
    return f"sumIf({measure}, validity = 'valid' AND is_run = {side})"


def spend(side: int) -> str:
    """Net, of one side, in units of the currency."""
    net = f"{valid('spend_millimicros', side)} - sumIf(credited_millimicros, is_run = {side})"
    return sql.MONEY.format(f"({net})")


def runs() -> Section:
    """Which runs there are."""
    found = rows(
        About(
            1,
            "Runs",
            "Replays, the latest first: range, rules (empty: those of the journal), records read and records that "
            "retention had removed, and whether the run stands in the place of live rows.",
            "Follow a run's link to compare it in its own range. lost above 0: it is not complete. "
            "`campaign-streams runs publish` puts it in the place of live rows, `campaign-streams runs withdraw` takes "
            "it back.",
            COUNT,
        ),
        sql_table(
            """SELECT
    r.run AS run, r.kind AS kind,
    if(r.state = 'running' AND r.changed < now64(3) - INTERVAL 60 SECOND, 'abandoned', r.state) AS state,
    r.from_pane AS from_pane, r.to_pane AS to_pane,
    arrayStringConcat(r.campaigns, ', ') AS only_campaigns, r.rules AS rules, r.records AS records, r.lost AS lost,
    p.is_published AS is_published, p.who AS who, r.note AS note,
    toUnixTimestamp(r.from_pane) * 1000 AS link_from,
    toUnixTimestamp(r.to_pane) * 1000 AS link_to
FROM (SELECT * FROM runs FINAL) AS r
LEFT JOIN (SELECT * FROM publications FINAL) AS p ON p.run = r.run
WHERE r.state != 'dropped'
ORDER BY r.created DESC, run LIMIT 200"""
        ),
        height=7,
    )
    url = f"/d/{places.REPLAYS}?var-run=${{__data.fields.run}}"
    url += "&from=${__data.fields.link_from}&to=${__data.fields.link_to}"
    column(found, "run", link=("Compare this run", url))
    column(found, "lost", steps=too_much(1, 1))
    for name in ("link_from", "link_to"):
        column(found, name, is_hidden=True)
    return Section("Runs", found)


def differences() -> Section:
    """The chosen run as a whole, and by campaign."""
    differ = " OR ".join(
        [f"{valid(measure, 1)} != {valid(measure, 0)}" for measure in MEASURES] + [f"{spend(1)} != {spend(0)}"]
    )
    total = ",\n    ".join(f'{valid(measure, 1)} - {valid(measure, 0)} AS "{measure}"' for measure in MEASURES)
    return Section(
        "The chosen run less the live rows, in the run's range",
        number(
            About(
                2,
                "Campaigns that differ",
                "Campaigns whose valid impressions, clicks, conversions or net spend are not the same on both sides.",
                "An identical run must come to 0: anything else is a mistake, or the topics have changed since.",
                COUNT,
                too_much(1, 1),
            ),
            sql_table(
                f"{PANES}\nSELECT count() AS campaigns\nFROM (\n    SELECT campaign_id, currency FROM sides\n"
                f"    GROUP BY campaign_id, currency\n    HAVING {differ}\n)"
            ),
            width=6,
        ),
        number(
            About(
                3,
                "Valid traffic",
                "Impressions, clicks and conversions that count in the run and not live; below 0: the other way round.",
                "Stricter rules lower all three; where only clicks fall, they hit click fraud alone.",
                COUNT,
                ZERO_IS_EQUAL,
            ),
            sql_table(f"{PANES}\nSELECT\n    {total}\nFROM sides"),
            width=10,
        ),
        number(
            About(
                4,
                "Net spend",
                "What the run would bill less what was billed, in units of each currency.",
                "Below 0: publishing it gives money back. Tell those concerned before you publish.",
                MONEY,
                ZERO_IS_EQUAL,
            ),
            sql_table(
                f"{PANES}\nSELECT toString(currency) AS in_currency, {spend(1)} - {spend(0)} AS difference\n"
                "FROM sides\nGROUP BY in_currency\nORDER BY abs(difference) DESC"
            ),
            width=8,
            by_row=True,
        ),
        campaigns(),
    )


def campaigns() -> table.Panel:
    """By campaign, the largest differences in money first."""
    counted = ",\n        ".join(
        f"{valid(measure, side)} AS {name}_{measure}"
        for measure in MEASURES
        for side, name in enumerate(("live", "run"))
    )
    found = rows(
        About(
            5,
            "Campaigns",
            "Both sides of each campaign, the largest difference in money first. `campaign-streams runs show` says the "
            "same in a terminal.",
            "Open the first ones; the flags below say which rule made the difference.",
            COUNT,
        ),
        sql_table(
            f"""{PANES},
    {SHARE_OF}
SELECT
    campaign AS campaign_id, in_currency AS currency,
    live_impressions, run_impressions, live_clicks, run_clicks, live_conversions, run_conversions,
    share(live_clicks, live_impressions) AS live_ctr,
    share(run_clicks, run_impressions) AS run_ctr,
    live_spend, run_spend,
    run_spend - live_spend AS difference
FROM (
    SELECT
        toString(campaign_id) AS campaign, toString(currency) AS in_currency,
        {counted},
        {spend(0)} AS live_spend,
        {spend(1)} AS run_spend
    FROM sides
    GROUP BY campaign, in_currency
)
ORDER BY abs(difference) DESC, campaign_id LIMIT 500"""
        ),
    )
    for name in ("live_spend", "run_spend"):
        column(found, name, MONEY, 2)
    column(found, "difference", MONEY, 2, ZERO_IS_EQUAL)
    for name in ("live_ctr", "run_ctr"):
        column(found, name, SHARE, 3)
    return column(found, "campaign_id", link=CAMPAIGN_LINK)


def over_time() -> Section:
    """Both sides by effect pane."""
    tail = "FROM sides\nWHERE $__timeFilter(effect_pane)\nGROUP BY time\nORDER BY time"
    clicks = ", ".join(f'{valid("clicks", side)} AS "{name}"' for side, name in enumerate(("live", "run")))
    ctr = ", ".join(
        f'share({valid("clicks", side)}, {valid("impressions", side)}) AS "{name}"'
        for side, name in enumerate(("live", "run"))
    )
    money = ", ".join(f'{spend(side)} AS "{name}"' for side, name in enumerate(("live", "run")))
    time = "$__timeInterval(effect_pane) AS time"
    return Section(
        "Over time, by effect pane",
        graph(
            About(
                6,
                "Valid clicks",
                "Clicks that count, live and in the run, within the run's range.",
                "They part at one moment: look for a change of settings or a deployment there.",
                COUNT,
            ),
            sql_series(f"{PANES}\nSELECT {time}, {clicks}\n{tail}"),
            width=8,
            interval="1m",
        ),
        graph(
            About(
                7,
                "CTR",
                "Valid clicks over valid impressions of both sides.",
                "A run that takes out invalid traffic should bring CTR nearer to that of the days before.",
                SHARE,
            ),
            sql_series(f"{PANES},\n    {SHARE_OF}\nSELECT {time}, {ctr}\n{tail}"),
            width=8,
            interval="1m",
        ),
        graph(
            About(
                8,
                "Net spend",
                "Billed less given back, of both sides, by currency, in its units.",
                "The area between is what publishing changes.",
                MONEY,
            ),
            sql_series(
                f"{PANES}\nSELECT {time}, toString(currency) AS in_currency, {money}\n"
                f"{tail.replace('GROUP BY time', 'GROUP BY time, in_currency')}"
            ),
            width=8,
            interval="1m",
            name="${__field.name} ${__field.labels.in_currency}",
        ),
    )


FLAGS = f"""{sides("flag_rows", "effect_pane", "campaign_id, rule, class, mode, state")}
SELECT
    rule, class,
    countIf(is_run = 0 AND state != 'withdrawn') AS live_flags,
    countIf(is_run = 1 AND state != 'withdrawn') AS run_flags,
    countIf(is_run = 0 AND state != 'withdrawn' AND mode = 'on') AS live_excluding,
    countIf(is_run = 1 AND state != 'withdrawn' AND mode = 'on') AS run_excluding
FROM sides
GROUP BY rule, class
ORDER BY abs(run_excluding - live_excluding) DESC, rule"""
ALERTS = f"""{sides("alert_rows", "changed", "alert_id, campaign_id, kind, state, began, text_en")}
SELECT
    if(max(is_run) = 1, 'only in the run', 'only live') AS side,
    any(kind) AS kind,
    any(toString(campaign_id)) AS campaign_id,
    any(began) AS began,
    any(text_en) AS text
FROM sides
WHERE state != 'pending'
GROUP BY alert_id
HAVING uniqExact(is_run) = 1
ORDER BY began LIMIT {ONLY_IN_ONE}"""
RATES = f"""{sides("pacing_rows", "minute", "campaign_id, minute, rate_ppm")}
SELECT
    $__timeInterval(minute) AS time,
    avgOrNullIf(rate_ppm / 1e6, is_run = 0) AS "live",
    avgOrNullIf(rate_ppm / 1e6, is_run = 1) AS "run"
FROM sides
WHERE $__timeFilter(minute)
GROUP BY time
ORDER BY time"""


def decisions() -> Section:
    """Flags, alerts and rates."""
    return Section(
        "Decisions",
        rows(
            About(
                9,
                "Flags by rule",
                "Flags in the run's range on both sides, and of them those that exclude.",
                "A rule that flags much more in the run than live: read its evidence before you switch it on.",
                COUNT,
            ),
            sql_table(FLAGS),
            width=8,
        ),
        column(
            rows(
                About(
                    10,
                    "Alerts on one side only",
                    "Alerts that fired in the run and not live, or live and not in the run.",
                    "Only live: somebody was told of what the run holds for untrue. Only in the run: nobody was told.",
                    COUNT,
                ),
                sql_table(ALERTS),
                width=8,
            ),
            "campaign_id",
            link=CAMPAIGN_LINK,
        ),
        graph(
            About(
                11,
                "Pass-through rate",
                "The mean rate of the chosen campaigns on both sides.",
                "What was served cannot be changed: a run shows what pacing would have told, not what would have come.",
                SHARE,
            ),
            sql_series(RATES),
            width=8,
            height=9,
            interval="1m",
        ),
    )


def build() -> Dashboard:
    """The dashboard."""
    return frame.page(
        places.REPLAYS,
        "Replay comparison",
        "Runs of replays beside the live rows of their range: traffic, money, flags, alerts, rates.",
        [frame.run_variable(), *(frame.variable(name) for name in ("advertiser", "campaign"))],
        frame.of_campaigns(),
        [runs(), differences(), over_time(), decisions()],
        since="now-24h",
    )
