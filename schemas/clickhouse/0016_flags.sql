-- Invalid traffic: the flags as rows, and of each pane how many events were judged and how many could not be.
--
-- flag_rows keeps one row for each rule and event: its latest state wins. What an excluding flag moves stands in
-- pane_rows and report_rows under another validity; flag_rows only explains it. Thresholds and evidence are internal:
-- advertisers see rules' classes, and credits. Every statement can be run again.

CREATE TABLE IF NOT EXISTS flag_rows
(
    log_epoch UInt32 COMMENT 'Raised by one whenever the topics were created anew.',
    partition UInt32 COMMENT 'Partition of the event.',
    input LowCardinality(String) COMMENT 'Input of the event.',
    event String COMMENT 'Digest of the event id: XXH3, 128 bits, hexadecimal.',
    rule LowCardinality(String) COMMENT 'Rule (schemas/flags.md).',
    event_id String COMMENT 'Event id; empty when it is longer than 64 bytes.',
    event_time DateTime('UTC') COMMENT 'When the event happened, UTC.',
    campaign_id LowCardinality(String) COMMENT 'Campaign; empty for organic traffic.',
    ad_unit_id LowCardinality(String) COMMENT 'Ad unit (ad group).',
    creative_id LowCardinality(String) COMMENT 'Creative.',
    publisher_id LowCardinality(String) COMMENT 'Publisher; empty unless it is a dimension of the settings.',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of the cost.',
    cost_millimicros Int64 COMMENT 'What the event had cost, thousandths of a micro.',
    class LowCardinality(String) COMMENT 'givt or sivt.',
    mode LowCardinality(String) COMMENT 'on: it excludes from valid figures; observe: it is only told.',
    state LowCardinality(String) COMMENT 'raised, withdrawn, overturned or confirmed.',
    evidence String COMMENT 'What was seen, and the thresholds, JSON. Internal.',
    reviewer String COMMENT 'Who reviewed it; empty: nobody.',
    review_reason String COMMENT 'Why the reviewer decided so.',
    decided DateTime('UTC') COMMENT 'Wall time of the tick that told it, UTC.',
    version UInt64 COMMENT 'Place of the tick in the journal, with its epoch: the highest version of a key wins.',
    written_at DateTime('UTC') MATERIALIZED now() COMMENT 'When this row was inserted, UTC. Retention counts from here.'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (event, input, rule, log_epoch, partition)
TTL written_at + INTERVAL 100 DAY
COMMENT 'Each flag in its latest state, with its evidence. Kept 100 days.';

ALTER TABLE pane_rows
    ADD COLUMN IF NOT EXISTS judged Int64 COMMENT 'Events judged as traffic: those that count.' AFTER credited_millimicros;

ALTER TABLE pane_rows
    ADD COLUMN IF NOT EXISTS undecided Int64 COMMENT 'Judged events that carried too little to be judged by; they count as valid.' AFTER judged;

ALTER TABLE report_rows
    ADD COLUMN IF NOT EXISTS judged Int64 COMMENT 'Events judged as traffic: those that count.' AFTER credited_millimicros;

ALTER TABLE report_rows
    ADD COLUMN IF NOT EXISTS undecided Int64 COMMENT 'Judged events that carried too little to be judged by; they count as valid.' AFTER judged;
