-- Pacing ends: a campaign that nothing limits any more has no current period (reason unpaced). And what is owed back for
-- spend beyond the policy of over-delivery stands beside the credits that came late. Every statement can be run again:
-- what is looked at while the view that fills pacing_periods is made anew comes with the next look, for rows are absolute.

ALTER TABLE pacing_rows
    ADD COLUMN IF NOT EXISTS excess_credit_micros Int64
        COMMENT 'Owed back since ever for spend beyond the policy of over-delivery, where it credits that: for billing, micros.' AFTER closed_credit_micros;

ALTER TABLE run_pacing_rows
    ADD COLUMN IF NOT EXISTS excess_credit_micros Int64
        COMMENT 'Owed back since ever for spend beyond the policy of over-delivery, where it credits that: for billing, micros.' AFTER closed_credit_micros;

ALTER TABLE pacing_periods
    ADD COLUMN IF NOT EXISTS excess_credit_micros Int64
        COMMENT 'Owed back since ever for spend beyond the policy of over-delivery, where it credits that: for billing, micros.' AFTER closed_credit_micros;

DROP VIEW IF EXISTS pacing_periods_from_rows;

CREATE MATERIALIZED VIEW IF NOT EXISTS pacing_periods_from_rows TO pacing_periods
(
    log_epoch UInt32 COMMENT 'Raised by one whenever the topics were created anew.',
    partition UInt32 COMMENT 'Partition of the campaign.',
    campaign_id LowCardinality(String) COMMENT 'Campaign.',
    minute DateTime('UTC') COMMENT 'Minute of the partition’s event time at which it was looked at last, UTC.',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of every amount in this row.',
    period_kind LowCardinality(String) COMMENT 'day, flight or live_session.',
    period_start DateTime('UTC') COMMENT 'Start of the period, UTC, included.',
    period_end DateTime('UTC') COMMENT 'End of the period, UTC, excluded.',
    budget_micros Int64 COMMENT 'What the period may spend, caps and over-delivery considered, micros.',
    target_micros Int64 COMMENT 'What should be spent by now according to the plan, micros.',
    gross_spend_micros Int64 COMMENT 'Billed in the period so far, micros.',
    credited_micros Int64 COMMENT 'Given back of it: billed for events found invalid or rejected later, micros.',
    spend_micros Int64 COMMENT 'Billed less given back, micros.',
    in_flight_micros Int64 COMMENT 'Expected cost of what was served and may still be billed, micros.',
    rate_ppm UInt32 COMMENT 'Pass-through rate: share of requests to take part in, millionths.',
    reason LowCardinality(String) COMMENT 'Why the rate is what it is (streams.signals.RateReason).',
    forecast_micros Nullable(Int64) COMMENT 'Spend expected at the period’s end, micros; NULL: nothing to go by.',
    forecast_low_micros Nullable(Int64) COMMENT 'Lower end of the 90 % interval of forecast_micros, micros.',
    forecast_high_micros Nullable(Int64) COMMENT 'Upper end of the 90 % interval of forecast_micros, micros.',
    exhausts_at Nullable(DateTime('UTC')) COMMENT 'When the budget runs out, UTC; NULL: not in this period.',
    closed_credit_micros Int64 COMMENT 'Given back after its day had closed: for billing, never for pacing, micros.',
    excess_credit_micros Int64 COMMENT 'Owed back since ever for spend beyond the policy of over-delivery, where it credits that: for billing, micros.',
    version UInt64 COMMENT 'Place of the tick in the journal, with its epoch: the highest version of a key wins.'
)
AS SELECT
    log_epoch, partition, campaign_id, minute, currency, period_kind, period_start, period_end, budget_micros,
    target_micros, gross_spend_micros, credited_micros, spend_micros, in_flight_micros, rate_ppm, reason,
    forecast_micros, forecast_low_micros, forecast_high_micros, exhausts_at, closed_credit_micros,
    excess_credit_micros, version
FROM pacing_rows
COMMENT 'Fills pacing_periods with what is inserted into pacing_rows.';

CREATE OR REPLACE VIEW campaign_pacing
(
    campaign_id LowCardinality(String) COMMENT 'Campaign.',
    campaign_name String COMMENT 'Name for people; empty when unknown.',
    advertiser_id String COMMENT 'Advertiser; empty when unknown.',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of the amounts in this row.',
    time_zone String COMMENT 'IANA time zone of the campaign’s day; UTC when unknown.',
    period_kind LowCardinality(String) COMMENT 'day, flight or live_session.',
    period_start Nullable(DateTime('UTC')) COMMENT 'Start of the period, UTC, included; NULL: open.',
    period_end Nullable(DateTime('UTC')) COMMENT 'End of the period, UTC, excluded; NULL: open.',
    is_current Bool COMMENT 'Whether it is the campaign’s latest period, and the campaign is still paced.',
    minute DateTime('UTC') COMMENT 'Minute of the latest look, by the event time of the campaign’s partition, UTC.',
    status LowCardinality(String)
        COMMENT 'on_pace, (well_, far_)behind or ahead, exhausted, not_started, ended, as_soon_as_possible, unpaced, unknown.',
    budget_micros Int64 COMMENT 'What the period may spend, caps and over-delivery considered, micros.',
    target_micros Int64 COMMENT 'What should be spent by now according to the plan, micros.',
    spend_micros Int64 COMMENT 'Billed in the period less credited_micros, micros.',
    gross_spend_micros Int64 COMMENT 'Billed in the period so far, micros.',
    credited_micros Int64 COMMENT 'Given back of it: billed for events found invalid or rejected later, micros.',
    in_flight_micros Int64 COMMENT 'Expected cost of what was served and may still be billed, micros.',
    closed_credit_micros Int64 COMMENT 'Given back after its day had closed: for billing, never for pacing, micros.',
    excess_credit_micros Int64
        COMMENT 'Owed back since ever for spend beyond the policy of over-delivery, where it credits that: for billing, micros.',
    off_plan_points Nullable(Float64)
        COMMENT 'Spend less target over budget, percentage points: below 0 is behind. NULL without a budget.',
    spent_share Nullable(Float64) COMMENT 'Spend over budget. NULL without a budget.',
    elapsed_share Nullable(Float64)
        COMMENT 'Share of the period that has passed at the end of the minute. NULL where the period is open.',
    progress Nullable(Float64) COMMENT 'spent_share over elapsed_share: 1 is as fast as the clock. NULL over zero.',
    osi Nullable(Float64) COMMENT 'On-schedule indicator: spend over target: 1 is on plan. NULL over zero.',
    rate Float64 COMMENT 'Pass-through rate: share of requests to take part in, 0 to 1.',
    reason LowCardinality(String) COMMENT 'Why the rate is what it is (streams.signals.RateReason).',
    reason_text String COMMENT 'The same in words.',
    forecast_micros Nullable(Int64) COMMENT 'Spend expected at the period’s end, micros; NULL: nothing to go by.',
    forecast_low_micros Nullable(Int64) COMMENT 'Lower end of the 90 % interval of forecast_micros, micros.',
    forecast_high_micros Nullable(Int64) COMMENT 'Upper end of the 90 % interval of forecast_micros, micros.',
    exhausts_at Nullable(DateTime('UTC')) COMMENT 'When the budget runs out, UTC; NULL: not in this period.',
    note String COMMENT 'What to know about this row: empty when nothing.'
)
AS WITH
    toDateTime(4102444800, 'UTC') AS open_end,
periods AS (
    SELECT
        r.campaign_id AS campaign_id,
        r.period_kind AS period_kind,
        r.period_start AS period_start,
        max((r.log_epoch, r.minute, r.version)) AS place,
        argMax(r.currency, (r.log_epoch, r.minute, r.version)) AS currency,
        argMax(r.period_end, (r.log_epoch, r.minute, r.version)) AS period_end,
        argMax(r.budget_micros, (r.log_epoch, r.minute, r.version)) AS budget_micros,
        argMax(r.target_micros, (r.log_epoch, r.minute, r.version)) AS target_micros,
        argMax(r.gross_spend_micros, (r.log_epoch, r.minute, r.version)) AS gross_spend_micros,
        argMax(r.credited_micros, (r.log_epoch, r.minute, r.version)) AS credited_micros,
        argMax(r.spend_micros, (r.log_epoch, r.minute, r.version)) AS spend_micros,
        argMax(r.in_flight_micros, (r.log_epoch, r.minute, r.version)) AS in_flight_micros,
        argMax(r.closed_credit_micros, (r.log_epoch, r.minute, r.version)) AS closed_credit_micros,
        argMax(r.excess_credit_micros, (r.log_epoch, r.minute, r.version)) AS excess_credit_micros,
        argMax(r.rate_ppm, (r.log_epoch, r.minute, r.version)) AS rate_ppm,
        argMax(r.reason, (r.log_epoch, r.minute, r.version)) AS reason,
        argMax(tuple(r.forecast_micros), (r.log_epoch, r.minute, r.version)).1 AS forecast_micros,
        argMax(tuple(r.forecast_low_micros), (r.log_epoch, r.minute, r.version)).1 AS forecast_low_micros,
        argMax(tuple(r.forecast_high_micros), (r.log_epoch, r.minute, r.version)).1 AS forecast_high_micros,
        argMax(tuple(r.exhausts_at), (r.log_epoch, r.minute, r.version)).1 AS exhausts_at
    FROM pacing_periods AS r FINAL
    GROUP BY r.campaign_id, r.period_kind, r.period_start
),
places AS (
    SELECT *, max(place) OVER (PARTITION BY campaign_id) AS last_place FROM periods
),
measured AS (
    SELECT
        p.*,
        place.2 AS minute,
        toBool(place = last_place AND p.reason != 'unpaced') AS is_current,
        toUnixTimestamp(p.period_start) = 0 OR p.period_end >= open_end AS is_open,
        toInt64(toUnixTimestamp(p.period_end)) - toInt64(toUnixTimestamp(p.period_start)) AS whole_s,
        toInt64(toUnixTimestamp(minute)) + 60 - toInt64(toUnixTimestamp(p.period_start)) AS passed_s,
        if(is_open OR whole_s <= 0, NULL, least(1, greatest(0, passed_s / whole_s))) AS elapsed,
        if(p.budget_micros > 0, p.spend_micros / p.budget_micros, NULL) AS spent,
        if(p.budget_micros > 0, 100 * (p.spend_micros - p.target_micros) / p.budget_micros, NULL) AS points
    FROM places AS p
)
SELECT
    m.campaign_id AS campaign_id,
    ifNull(c.name, '') AS campaign_name,
    ifNull(c.advertiser_id, '') AS advertiser_id,
    m.currency AS currency,
    ifNull(nullIf(c.time_zone, ''), 'UTC') AS time_zone,
    m.period_kind AS period_kind,
    if(toUnixTimestamp(m.period_start) = 0, NULL, m.period_start) AS period_start,
    if(m.period_end >= open_end, NULL, m.period_end) AS period_end,
    m.is_current AS is_current,
    m.minute AS minute,
    multiIf(
        m.reason IN ('exhausted', 'not_started', 'ended', 'as_soon_as_possible', 'unpaced'), m.reason,
        m.reason = 'unknown_input' OR points IS NULL, 'unknown',
        abs(points) <= 2, 'on_pace',
        concat(
            multiIf(abs(points) <= 5, '', abs(points) <= 10, 'well_', 'far_'),
            if(points < 0, 'behind', 'ahead')
        )
    ) AS status,
    m.budget_micros AS budget_micros,
    m.target_micros AS target_micros,
    m.spend_micros AS spend_micros,
    m.gross_spend_micros AS gross_spend_micros,
    m.credited_micros AS credited_micros,
    m.in_flight_micros AS in_flight_micros,
    m.closed_credit_micros AS closed_credit_micros,
    m.excess_credit_micros AS excess_credit_micros,
    points AS off_plan_points,
    spent AS spent_share,
    elapsed AS elapsed_share,
    if(elapsed > 0, spent / elapsed, NULL) AS progress,
    if(m.target_micros > 0, m.spend_micros / m.target_micros, NULL) AS osi,
    m.rate_ppm / 1000000 AS rate,
    m.reason AS reason,
    transform(toString(m.reason),
        ['not_started', 'ended', 'slow_start', 'on_plan', 'behind', 'ahead',
            'as_soon_as_possible', 'closing', 'exhausted', 'allowance',
            'no_allowance', 'unknown_input', 'unpaced'],
        ['the period has not begun', 'the period has ended', 'starts low until traffic and prices are known',
            'spend is on plan', 'spend is behind plan', 'spend is ahead of plan',
            'spends as soon as possible', 'slowed so as not to overspend what is left', 'the budget is spent',
            'held down by the account’s balance or a shared budget',
            'held low until its account or shared budget has told an allowance',
            'an input is silent: held or lowered, never raised', 'nothing limits its spend any more'],
        toString(m.reason)) AS reason_text,
    m.forecast_micros AS forecast_micros,
    m.forecast_low_micros AS forecast_low_micros,
    m.forecast_high_micros AS forecast_high_micros,
    m.exhausts_at AS exhausts_at,
    arrayStringConcat(arrayFilter(text -> text != '', [
        if(m.budget_micros <= 0, 'no budget: nothing to compare with', ''),
        if(m.reason = 'unknown_input', 'an input is silent: spend may be more than is known', ''),
        if(is_open, 'an open period: no share of its time', ''),
        if(m.budget_micros > 0 AND m.spend_micros > m.budget_micros, 'spend exceeds the budget', '')
    ]), '; ') AS note
FROM measured AS m
LEFT JOIN campaigns AS c ON c.campaign_id = m.campaign_id
COMMENT 'Pacing of each campaign by period, as it was looked at last: budget, plan, spend, rate, forecast and status.';
