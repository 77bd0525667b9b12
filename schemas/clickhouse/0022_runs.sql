-- Runs: what replays came to, beside the live rows. Each table of rows has a twin whose key begins with the run; live
-- views do not show them, unless a run has been published: then its rows stand in the place of the live rows of its
-- range of effect panes, for every reader from one moment on (one inserted row of `publications` makes it so, another
-- takes it back). Every statement can be run again.

CREATE TABLE IF NOT EXISTS runs
(
    run String COMMENT 'Name of the run.',
    kind LowCardinality(String) COMMENT 'identical or what_if.',
    state LowCardinality(String) COMMENT 'running, done, failed or dropped.',
    from_pane DateTime('UTC') COMMENT 'Begin of its range of effect panes, UTC.',
    to_pane DateTime('UTC') COMMENT 'End of its range, UTC; not included.',
    campaigns Array(String) COMMENT 'Campaigns that it is narrowed to; empty: all.',
    rules String COMMENT 'Fingerprint of its rules; empty: those of the journal.',
    read_from DateTime('UTC') COMMENT 'Event time that it reached back to, UTC.',
    records UInt64 COMMENT 'Records that it read.',
    lost UInt64 COMMENT 'Records that retention had removed before it could read them.',
    created DateTime('UTC') COMMENT 'When it began, wall time, UTC.',
    changed DateTime64(3, 'UTC') COMMENT 'When this was last told, wall time, UTC: the latest wins.',
    note String COMMENT 'What to know about it.'
)
ENGINE = ReplacingMergeTree(changed)
ORDER BY run
COMMENT 'Replays, each in its latest state.';

CREATE TABLE IF NOT EXISTS publications
(
    run String COMMENT 'Run that is published.',
    from_pane DateTime('UTC') COMMENT 'Begin of the range of effect panes that it stands for, UTC.',
    to_pane DateTime('UTC') COMMENT 'End of the range, UTC; not included.',
    is_published Bool COMMENT 'false: it was taken back.',
    who String COMMENT 'Who published it, or took it back.',
    changed DateTime64(3, 'UTC') COMMENT 'When, wall time, UTC: the latest wins.'
)
ENGINE = ReplacingMergeTree(changed)
ORDER BY run
COMMENT 'Runs whose rows stand in the place of live rows.';

CREATE TABLE IF NOT EXISTS run_pane_rows
ENGINE = ReplacingMergeTree(version)
ORDER BY (run,  campaign_id, origin_pane, input, ad_unit_id, creative_id, variant, currency, validity, effect_pane, log_epoch, partition, pane_ms, rules_seq )
COMMENT 'Rows of runs: the decision grain.'
AS SELECT '' AS run, * FROM pane_rows WHERE 0;

CREATE TABLE IF NOT EXISTS run_report_rows
ENGINE = ReplacingMergeTree(version)
ORDER BY (run,  campaign_id, origin_pane, input, ad_unit_id, creative_id, variant, currency, validity, region, channel, publisher_id, creator_id, shop_id, live_session_id, device_class, placement, advertiser_id, product_id, audience_id, effect_pane, log_epoch, partition, pane_ms, rules_seq )
COMMENT 'Rows of runs: the report grain.'
AS SELECT '' AS run, * FROM report_rows WHERE 0;

CREATE TABLE IF NOT EXISTS run_cohort_rows
ENGINE = ReplacingMergeTree(version)
ORDER BY (run,  campaign_id, click_hour, age_bucket_ms, input, ad_unit_id, creative_id, variant, currency, validity, effect_pane, log_epoch, partition, pane_ms, rules_seq )
COMMENT 'Rows of runs: cohorts.'
AS SELECT '' AS run, * FROM cohort_rows WHERE 0;

CREATE TABLE IF NOT EXISTS run_pacing_rows
ENGINE = ReplacingMergeTree(version)
ORDER BY (run, campaign_id, minute, log_epoch, partition)
COMMENT 'Rows of runs: pacing.'
AS SELECT '' AS run, * FROM pacing_rows WHERE 0;

CREATE TABLE IF NOT EXISTS run_alert_rows
ENGINE = ReplacingMergeTree(version)
ORDER BY (run, alert_id, log_epoch, partition)
COMMENT 'Rows of runs: alerts.'
AS SELECT '' AS run, * FROM alert_rows WHERE 0;

CREATE TABLE IF NOT EXISTS run_flag_rows
ENGINE = ReplacingMergeTree(version)
ORDER BY (run, event, input, rule, log_epoch, partition)
COMMENT 'Rows of runs: flags.'
AS SELECT '' AS run, * FROM flag_rows WHERE 0;
