-- Pacing and alerts as rows, and the credit: what was billed for events that were found invalid or rejected later.
--
-- pacing_rows keeps one row for each minute of a paced campaign: the last look of the minute wins. alert_rows keeps
-- one row for each occurrence of an alert: its latest state wins. Amounts are micros of the currency in the row.
-- pacing_rows is partitioned by the minute, which is part of its key; alert_rows, whose key names no time, is not
-- partitioned: alerts are few. Retention counts from the insertion, as in 0001. Every statement can be run again.

CREATE TABLE IF NOT EXISTS pacing_rows
(
    log_epoch UInt32 COMMENT 'Raised by one whenever the topics were created anew.',
    partition UInt32 COMMENT 'Partition of the campaign.',
    campaign_id LowCardinality(String) COMMENT 'Campaign.',
    minute DateTime('UTC') COMMENT 'Minute of the partition’s event time, UTC; the last look of a minute wins.',
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
    version UInt64 COMMENT 'Place of the tick in the journal, with its epoch: the highest version of a key wins.',
    written_at DateTime('UTC') MATERIALIZED now() COMMENT 'When this row was inserted, UTC. Retention counts from here.'
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(minute)
ORDER BY (campaign_id, minute, log_epoch, partition)
TTL written_at + INTERVAL 400 DAY
COMMENT 'Spend, plan, rate and forecast of each paced campaign by minute. Kept 400 days.';

CREATE TABLE IF NOT EXISTS alert_rows
(
    log_epoch UInt32 COMMENT 'Raised by one whenever the topics were created anew.',
    partition UInt32 COMMENT 'Partition that decided it.',
    alert_id String COMMENT 'One occurrence: made of kind, campaign and the time at which it began.',
    kind LowCardinality(String) COMMENT 'What it is about (streams.terms.AlertKind).',
    audience LowCardinality(String) COMMENT 'advertiser or operations.',
    state LowCardinality(String) COMMENT 'pending, firing or resolved.',
    is_pushed Bool COMMENT 'Pushed to its receivers; otherwise told in the digest.',
    campaign_id LowCardinality(String) COMMENT 'Campaign; empty when it is about none.',
    advertiser_id LowCardinality(String) COMMENT 'Advertiser; empty when unknown.',
    agency_id LowCardinality(String) COMMENT 'Agency; empty when unknown.',
    account_id LowCardinality(String) COMMENT 'Account that is billed; empty when unknown.',
    cause String COMMENT 'What alerts of one cause share: one message tells of all of them.',
    seen Nullable(Float64) COMMENT 'What was seen, in the unit of this row; NULL: no number.',
    expected Nullable(Float64) COMMENT 'What was expected, in the unit of this row; NULL: no number.',
    unit LowCardinality(String) COMMENT 'Unit of seen and expected: micros, ratio, percent, hours, ms; empty for none.',
    began DateTime('UTC') COMMENT 'Event time at which it began, UTC.',
    changed DateTime('UTC') COMMENT 'Event time of its latest change, UTC.',
    text_en String COMMENT 'One sentence for people, English.',
    text_zh String COMMENT 'The same, Chinese.',
    version UInt64 COMMENT 'Place of the tick in the journal, with its epoch: the highest version of a key wins.',
    written_at DateTime('UTC') MATERIALIZED now() COMMENT 'When this row was inserted, UTC. Retention counts from here.'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (alert_id, log_epoch, partition)
TTL written_at + INTERVAL 400 DAY
COMMENT 'Each occurrence of an alert in its latest state. Kept 400 days.';

ALTER TABLE pane_rows
    ADD COLUMN IF NOT EXISTS credited_millimicros Int64
    COMMENT 'Given back, thousandths of a micro: billed for events found invalid or rejected later; positive.'
    AFTER spend_millimicros;

ALTER TABLE report_rows
    ADD COLUMN IF NOT EXISTS credited_millimicros Int64
    COMMENT 'Given back, thousandths of a micro: billed for events found invalid or rejected later; positive.'
    AFTER spend_millimicros;

ALTER TABLE pane_rows
    MODIFY COLUMN spend_millimicros COMMENT 'Billed by the settings in force, thousandths of a micro.';

ALTER TABLE report_rows
    MODIFY COLUMN spend_millimicros COMMENT 'Billed by the settings in force, thousandths of a micro.';
