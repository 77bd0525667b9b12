"""Invalid traffic: gross and valid, general and sophisticated, by rule and by source, and how much was decidable."""

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import frame, places, sql
from grafana.frame import CAMPAIGN_LINK, Section
from grafana.house import COUNT, MONEY, SECONDS, SHARE, About, band, bars, column, falling_short, graph, number, rows
from grafana.house import too_much as above
from grafana.places import INVALID_SHARE
from grafana.sources import prom, sql_series, sql_table
from grafana.sql import RATIOS, indented, traffic

EVENTS = "(impressions + clicks + conversions)"
"""What is judged as traffic and counts: an event is one of these."""
SHARES = above(0.05, 0.2)
CLASSES = ("valid", "givt", "sivt")

OF_FLAGS = f"""\
FROM shown_flag_rows
WHERE $__timeFilter(event_time)
    AND {sql.OF_CAMPAIGNS}
    AND {sql.chosen(("campaign", "creative"))}"""
OF_RULES = f"{OF_FLAGS}\n    AND rule != 'review'"
"""What rules have found: reviews are rows of their own."""
REVIEWED = """\
argMax(state, if(rule = 'review', (effect_pane, version, review_ms), (toDateTime(0, 'UTC'), 0, -1)))
            OVER (PARTITION BY event, input, event_time)"""
"""The last review of a row's event; without one, some flag's state."""


def of_class(*classes: str) -> str:
    """Events of these classes."""
    named = ", ".join(f"'{each}'" for each in classes)
    return f"sumIf({EVENTS}, validity IN ({named}))"


def share_of(*classes: str) -> str:
    """Events of these classes over all, with the interval."""
    inner = traffic(f"{of_class(*classes)} AS k,\n    sum{EVENTS} AS n")
    columns = 'share(k, n) AS "invalid", wilson_low(k, n) AS "at least", wilson_high(k, n) AS "at most"'
    return f"{RATIOS}\nSELECT {columns}\nFROM (\n{indented(inner)}\n)"


def totals() -> Section:
    """The range as a whole."""
    return Section(
        "The whole time range",
        number(
            About(
                1,
                "Invalid",
                "Impressions, clicks and conversions labelled invalid, over all of them, with the 95 % interval. They "
                "stay in gross figures and are given back where they were billed.",
                "Above 5 %: see which rule and which source, below, and talk to that publisher.",
                SHARE,
                SHARES,
            ),
            sql_table(share_of("givt", "sivt")),
            width=5,
        ),
        number(
            About(
                2,
                "General (GIVT)",
                "Found by lists and simple rules: declared bots, data centres, prefetching.",
                "A jump is mostly a crawler or a new list; no advertiser is being attacked.",
                SHARE,
                SHARES,
            ),
            sql_table(share_of("givt")),
            width=5,
        ),
        number(
            About(
                3,
                "Sophisticated (SIVT)",
                "Found by evidence over many events: floods, farms, replays, injected clicks.",
                "A jump in one campaign is an attack: block its sources upstream. Always 0: these rules only observe "
                "until they are switched on (`campaign-streams flags rules`); what they found is under Rules.",
                SHARE,
                above(0.02, 0.1),
            ),
            sql_table(share_of("sivt")),
            width=5,
        ),
        number(
            About(
                4,
                "Decision rate",
                "Events that carried enough to be judged by, over those judged. The rest counts as valid.",
                "Below 90 %: a producer leaves out address, device or user agent; the shares above are then too low.",
                SHARE,
                falling_short(0.8, 0.9),
            ),
            sql_table(
                f"WITH\n    {sql.SHARE}\n"
                'SELECT share(judged_all - undecided_all, judged_all) AS "decision rate"\nFROM (\n'
                + indented(traffic("sum(judged) AS judged_all,\n    sum(undecided) AS undecided_all"))
                + "\n)"
            ),
        ),
        number(
            About(
                5,
                "Given back and billed as invalid",
                "Credits, and what invalid traffic would have cost, in units of each currency.",
                "It should follow the invalid share: a credit without invalid traffic is a rejected lead.",
                MONEY,
            ),
            sql_table(
                traffic(
                    f"currency,\n    {sql.MONEY.format('sum(credited_millimicros)')} AS given_back,\n    "
                    + sql.MONEY.format("sumIf(spend_millimicros, validity != 'valid')")
                    + " AS invalid_spend",
                    "currency\nHAVING given_back != 0 OR invalid_spend != 0",
                )
            ),
            width=5,
            by_row=True,
        ),
    )


def over_time() -> Section:
    """Shares and counts by interval."""
    shares = ",\n    ".join(
        [
            "$__timeInterval(origin_pane) AS time",
            f"{of_class('givt')} AS g",
            f"{of_class('sivt')} AS s",
            f"sum{EVENTS} AS n",
        ]
    )
    shown = 'share(g + s, n) AS "invalid", wilson_low(g + s, n) AS "at least", wilson_high(g + s, n) AS "at most"'
    counts = ",\n    ".join(
        ["$__timeInterval(origin_pane) AS time"] + [f'{of_class(each)} AS "{each}"' for each in CLASSES]
    )
    measures = ("impressions", "clicks", "conversions")
    gross = ",\n    ".join(
        ["$__timeInterval(origin_pane) AS time"]
        + [f'sum({each}) AS "gross {each}",\n    {sql.valid(each)} AS "valid {each}"' for each in measures]
    )
    return Section(
        "Over time",
        band(
            graph(
                About(
                    INVALID_SHARE,
                    "Invalid share",
                    "Events labelled invalid over all of the interval they happened in; the band is the 95 % interval. "
                    "A late verdict raises past intervals.",
                    "A step up: find the rule that rose with it, then the campaign and the publisher.",
                    SHARE,
                    SHARES,
                ),
                sql_series(
                    f"{RATIOS}\nSELECT time, {shown}\nFROM (\n{indented(traffic(shares, 'time'))}\n)\nORDER BY time"
                ),
                width=8,
                interval="1m",
            ),
            "at least",
            "at most",
        ),
        graph(
            About(
                7,
                "Valid, general, sophisticated",
                "Events of each class, stacked: the whole is gross traffic.",
                "The whole grows by what is invalid: somebody sends it. Valid falls by as much: a rule hits people.",
                COUNT,
            ),
            sql_series(f"{traffic(counts, 'time')}\nORDER BY time"),
            width=8,
            interval="1m",
            stacks=True,
        ),
        graph(
            About(
                8,
                "Gross and valid",
                "Impressions, clicks and conversions with and without what is invalid.",
                "The distance is what is excluded; where clicks part and impressions do not, it is click fraud.",
                COUNT,
            ),
            sql_series(f"{traffic(gross, 'time')}\nORDER BY time"),
            width=8,
            interval="1m",
        ),
    )


def rules() -> Section:
    """What each rule found."""
    found = rows(
        About(
            10,
            "Rules",
            "Flags of each rule in the time range: events, those that exclude (mode on), what became of them, their "
            "cost, and how long after the event they were decided (90 % of them).",
            "overturned beyond 1 % of raised: the rule hits people; set it to `observe` and tune it. "
            "schemas/flags.md explains each.",
            COUNT,
        ),
        sql_table(
            f"""SELECT
    rule, class,
    uniqExact(event, input) AS events,
    uniqExactIf((event, input), mode = 'on') AS excluding,
    countIf(state = 'withdrawn') AS withdrawn,
    countIf(reviewed = 'overturned') AS overturned,
    countIf(reviewed = 'confirmed') AS confirmed,
    countIf(reviewed = 'overturned') / count() AS overturned_share,
    quantile(0.9)(greatest(0, toInt64(toUnixTimestamp(decided)) - toInt64(toUnixTimestamp(event_time)))) AS delay_s,
    toString(currency) AS in_currency,
    sum(cost_millimicros) / 1e9 AS cost
FROM (
    SELECT *, {REVIEWED} AS reviewed
{indented(OF_FLAGS)}
)
WHERE rule != 'review'
GROUP BY rule, class, in_currency
ORDER BY events DESC"""
        ),
        width=14,
    )
    column(found, "overturned_share", SHARE, 2, above(0.01, 0.05))
    column(found, "delay_s", SECONDS, 0)
    column(found, "cost", MONEY, 2)
    return Section(
        "Rules",
        found,
        graph(
            About(
                11,
                "Flags by rule",
                "Events that each rule flagged, by when they happened.",
                "One rule alone that jumps: read the evidence of its latest flags, below.",
                COUNT,
            ),
            sql_series(
                "SELECT $__timeInterval(event_time) AS time, toString(rule) AS rule_name, count() AS flags\n"
                f"{OF_RULES}\nGROUP BY time, rule_name\nORDER BY time"
            ),
            width=10,
            height=9,
            interval="1m",
            name="${__field.labels.rule_name}",
        ),
    )


def by_source(column_name: str, limit: int) -> str:
    """Gross, valid and invalid of each value of a column."""
    inner = ",\n    ".join(
        [f"toString({column_name}) AS source", f"sum{EVENTS} AS n"]
        + [f"{of_class(each)} AS {each}_events" for each in CLASSES]
        + ["sum(judged) AS judged_all", "sum(undecided) AS undecided_all"]
    )
    return f"""{RATIOS}
SELECT
    source AS {column_name},
    n AS gross,
    valid_events AS valid,
    givt_events AS givt,
    sivt_events AS sivt,
    share(n - valid_events, n) AS invalid,
    wilson_low(n - valid_events, n) AS at_least,
    share(judged_all - undecided_all, judged_all) AS decision_rate
FROM (
{indented(traffic(inner, "source"))}
)
WHERE n > 0
ORDER BY at_least DESC LIMIT {limit}"""


def sources() -> Section:
    """Where it comes from."""
    campaigns = _shares(
        About(
            12,
            "Campaigns",
            "Events by campaign, the surest invalid first (by the lower end of the interval).",
            "Open the campaign, and compare its valid CTR with the gross one.",
            COUNT,
        ),
        by_source("campaign_id", 100),
    )
    column(campaigns, "campaign_id", link=CAMPAIGN_LINK)
    channels = _shares(
        About(
            13,
            "Channels",
            "The same by channel. (By publisher, where `publisher_id` is among `rules.dimensions`: see the bars.)",
            "One channel alone: its supply is the cause, whatever the campaign.",
            COUNT,
        ),
        by_source("channel", 100),
    )
    return Section(
        "Sources",
        campaigns,
        channels,
        bars(
            About(
                14,
                "Flags by publisher",
                "Flagged events by publisher; `(unknown)` where publishers are no dimension of the settings.",
                "`campaign-streams publishers score` tells whether a publisher is risky as a whole.",
                COUNT,
            ),
            sql_table(
                "SELECT if(publisher_id = '', '(unknown)', toString(publisher_id)) AS publisher, count() AS flags\n"
                f"{OF_RULES}\nGROUP BY publisher\nORDER BY flags DESC LIMIT 20"
            ),
            by_row=True,
        ),
        graph(
            About(
                15,
                "Time to a verdict",
                "From an event until its flag was told: half of them, and 90 %.",
                "Hours: verdicts wait for evidence of other partitions, or the journal lags; see Pipeline health.",
                SECONDS,
                above(60, 3_600),
            ),
            sql_series(
                f"""SELECT
    $__timeInterval(decided) AS time,
    quantile(0.5)(greatest(0, toInt64(toUnixTimestamp(decided)) - toInt64(toUnixTimestamp(event_time)))) AS "half",
    quantile(0.9)(greatest(0, toInt64(toUnixTimestamp(decided)) - toInt64(toUnixTimestamp(event_time)))) AS "90 %"
{OF_RULES}
GROUP BY time
ORDER BY time"""
            ),
            interval="1m",
        ),
    )


def _shares(about: About, query: str) -> table.Panel:
    panel = rows(about, sql_table(query), width=12)
    for name in ("invalid", "at_least"):
        column(panel, name, SHARE, 2, SHARES)
    return column(panel, "decision_rate", SHARE, 1, falling_short(0.8, 0.9))


LATEST = f"""\
SELECT decided, event_time, event_id, rule, class, mode, state, counts_as, input, campaign_id, creative_id,
    publisher_id, evidence, reviewer, review_reason
{OF_FLAGS.replace("shown_flag_rows", "flags")}
ORDER BY decided DESC LIMIT 100"""
DAYS = f"""\
SELECT campaign_id, campaign_name AS name, day, currency, gross_impressions, impressions, givt_impressions,
    sivt_impressions, gross_clicks, clicks, givt_clicks, sivt_clicks, invalid_click_share, invalid_spend_share,
    spend_micros / 1e6 AS spend, given_back_micros / 1e6 AS given_back, decision_rate, note
FROM invalid_traffic
WHERE day >= toDate($__fromTime) - 1 AND day <= toDate($__toTime) + 1
    AND {sql.chosen()}
ORDER BY day DESC, gross_clicks DESC LIMIT 500"""


RISKS = """\
SELECT publisher_id, score, clicks, conversions, distinct_users AS users, distinct_addresses AS addresses,
    distinct_agents AS agents, if(score IS NULL, concat('unverifiable: ', unscored), why) AS parts, weighed_to
FROM publisher_risk
WHERE weighed_to >= $__fromTime AND weighed_to <= $__toTime + INTERVAL 1 DAY
ORDER BY score DESC NULLS LAST, clicks DESC LIMIT 100"""


def publishers() -> Section:
    """By risk."""
    panel = rows(
        About(
            21,
            "Publishers by risk",
            "How far each publisher's clicks differ from its peers' over the last day: shared addresses, users and "
            "agents, bursts, conversions missing, too soon or too late. The parts are log-odds above -4. Internal; no "
            "verdict, and nothing is flagged by it. Of all campaigns.",
            "Above 0.5: `campaign-streams publishers show` tells every part beside its peers'; look at its flags, and "
            "talk to it.",
            COUNT,
        ),
        sql_table(RISKS),
    )
    return Section("Publishers", column(panel, "score", "none", 3, above(0.2, 0.5)))


def days() -> Section:
    """What advertisers may see."""
    panel = rows(
        About(
            17,
            "Days, as advertisers may see them",
            "Each campaign's day in its own time zone: classes and money, no rules or evidence. Provisional until the "
            "next day has ended.",
            "This is what to send an advertiser who asks; a settled day changes by credits only.",
            COUNT,
        ),
        sql_table(DAYS),
    )
    for name in ("invalid_click_share", "invalid_spend_share"):
        column(panel, name, SHARE, 2, SHARES)
    for name in ("spend", "given_back"):
        column(panel, name, MONEY, 2)
    column(panel, "decision_rate", SHARE, 1, falling_short(0.8, 0.9))
    return Section("Days", column(panel, "campaign_id", link=CAMPAIGN_LINK))


def desks() -> Section:
    """From the workers' memory; of all campaigns."""
    return Section(
        "Right now, from the workers (all campaigns)",
        graph(
            About(
                18,
                "Changes of flags",
                "Flags raised, withdrawn, overturned and confirmed each minute, by rule.",
                "A rule that withdraws as much as it raises decides too early.",
                COUNT,
            ),
            prom(
                "60 * sum by (rule, state) (rate(campaign_streams_flags_total[$__rate_interval]))", "{{rule}} {{state}}"
            ),
            width=8,
        ),
        graph(
            About(
                19,
                "Sources are decided behind by",
                "Wall time less the event time up to which addresses, devices and publishers are decided on: the worst "
                "partition.",
                "It grows: a partition lags, and with it the evidence of all; see lag in Pipeline health.",
                SECONDS,
                above(120, 600),
            ),
            prom("max(campaign_streams_source_watermark_delay_seconds)", "delay", "A"),
            width=8,
        ),
        graph(
            About(
                20,
                "Beyond a bound",
                "In an hour: flags that were not told one by one, late words without their event or without room, and "
                "sources' clicks forgotten or too late.",
                "They count all the same, but unexplained: fewer thresholds met, or more partitions.",
                COUNT,
                above(1, 10_000),
            ),
            *(
                prom(f"sum(increase(campaign_streams_{name}_total[1h]))", name, letter)
                for name, letter in zip(BOUNDED, "ABCDE", strict=True)
            ),
            width=8,
        ),
    )


BOUNDED = ("flags_untold", "words_unmatched", "words_beyond", "source_clicks_forgotten", "source_clicks_ignored")


def flags() -> Section:
    """One by one."""
    panel = rows(
        About(
            16,
            "Latest flags",
            "The latest flags with their evidence. Internal: advertisers see classes and credits only.",
            "Doubt one: `campaign-streams flags explain` tells all of it, `campaign-streams flags overturn` takes it "
            "back.",
            COUNT,
        ),
        sql_table(LATEST),
    )
    return Section("Flags", column(panel, "campaign_id", link=CAMPAIGN_LINK))


def build() -> Dashboard:
    """The dashboard."""
    return frame.page(
        places.INVALID,
        "Invalid traffic",
        "Gross and valid, general and sophisticated, by rule and by source; decision rate and time to a verdict. "
        "Of campaigns: organic traffic is left out.",
        [frame.variable(name) for name in frame.VARIABLES],
        frame.of_campaigns(),
        [totals(), over_time(), days(), rules(), sources(), publishers(), desks(), flags()],
        since="now-24h",
    )
