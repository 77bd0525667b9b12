-- Tables of absolute rows: a row states totals so far for its key; the highest version wins. Read them with FINAL, or
-- through the views. Columns and keys are those of streams/records.py (a test keeps both equal).
--
-- The sorting key is a permutation of the row's key with the campaign first, for questions are about campaigns; the
-- primary key is its beginning, so that the index in memory stays small.
-- A version replaces another only within one partition: PARTITION BY uses the effect pane, which is part of the key.
-- Retention counts from the insertion (written_at), never from event time: a log of 2013 can be loaded and stays.
-- pane_rows is kept 35 days, report_rows 400: the view all_rows passes from one to the other without a gap.
-- Every statement can be run again.

CREATE TABLE IF NOT EXISTS pane_rows
(
    log_epoch UInt32 COMMENT 'Raised by one whenever the topics were created anew.',
    input LowCardinality(String) COMMENT 'Input topic, or journal for what a tick decided.',
    partition UInt32 COMMENT 'Partition of the input topic.',
    pane_ms UInt32 COMMENT 'Pane size, ms.',
    rules_seq UInt64 COMMENT 'Tick that brought the rules in force; with new rules totals begin anew.',
    origin_pane DateTime('UTC') COMMENT 'Start of the pane in which the events happened, UTC.',
    effect_pane DateTime('UTC') COMMENT 'Pane of the topic-partition’s newest event time when they counted, UTC.',
    campaign_id LowCardinality(String) COMMENT 'Campaign; empty for organic traffic.',
    ad_unit_id LowCardinality(String) COMMENT 'Ad unit (ad group).',
    creative_id LowCardinality(String) COMMENT 'Creative.',
    variant LowCardinality(String) COMMENT 'First experiment and its arm, as id=arm.',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of every amount in this row.',
    validity LowCardinality(String) COMMENT 'valid, givt or sivt. Gross is the sum over all three.',
    duplicates Int64 COMMENT 'Redelivered events, counted nowhere else.',
    late Int64 COMMENT 'Events beyond the lateness of their input, counted nowhere else.',
    money_rejected Int64 COMMENT 'Counted events whose amount was refused: another currency.',
    spend_millimicros Int64 COMMENT 'Cost, thousandths of a micro.',
    impressions Int64 COMMENT 'Ads that began to render.',
    viewable_impressions Int64 COMMENT 'Impressions that met the viewability threshold.',
    measured_impressions Int64 COMMENT 'Impressions whose viewability was measured.',
    plays_started Int64 COMMENT 'First loops started.',
    plays_3s Int64 COMMENT 'First loops that reached 3 s.',
    plays_5s Int64 COMMENT 'First loops that reached 5 s.',
    plays_completed Int64 COMMENT 'First loops that reached the end.',
    viewable_plays Int64 COMMENT 'First loops that met the viewability threshold.',
    loop_plays Int64 COMMENT 'Later loops started.',
    watched_ms Int64 COMMENT 'Time watched, ms.',
    clicks Int64 COMMENT 'Clicks of the types that count towards CTR.',
    clicks_card Int64 COMMENT 'Clicks on a card.',
    clicks_button Int64 COMMENT 'Clicks on a button.',
    clicks_cover Int64 COMMENT 'Clicks on a cover.',
    clicks_live_room_entry Int64 COMMENT 'Entries into a live room.',
    clicks_profile Int64 COMMENT 'Clicks on a profile.',
    clicks_other Int64 COMMENT 'Other clicks.',
    conversions Int64 COMMENT 'Conversions credited to a click, of the types that count, by conversion time.',
    view_through_conversions Int64 COMMENT 'The same, credited to a view.',
    play_through_conversions Int64 COMMENT 'The same, credited to a play.',
    unattributed_conversions Int64 COMMENT 'The same, credited to nothing.',
    leads Int64 COMMENT 'Leads.',
    add_to_carts Int64 COMMENT 'Additions to a cart.',
    orders Int64 COMMENT 'Orders placed.',
    paid_orders Int64 COMMENT 'Orders paid.',
    installs Int64 COMMENT 'Installs.',
    other_conversions Int64 COMMENT 'Other conversions.',
    quantity Int64 COMMENT 'Pieces.',
    ordered_value_micros Int64 COMMENT 'Value of orders placed, micros.',
    paid_value_micros Int64 COMMENT 'Value of orders paid, micros.',
    cost_of_goods_micros Int64 COMMENT 'Cost of goods, micros.',
    discount_micros Int64 COMMENT 'Discount given, micros.',
    attributed_weight_ppm Int64 COMMENT 'Sum of the attribution weights, millionths.',
    cancels Int64 COMMENT 'Cancellations.',
    refunds Int64 COMMENT 'Refunds.',
    chargebacks Int64 COMMENT 'Chargebacks.',
    rejected_leads Int64 COMMENT 'Leads rejected.',
    adjusted_micros Int64 COMMENT 'Adjustments by their own date, signed, micros.',
    adjusted_by_order_micros Int64 COMMENT 'The same adjustments by the date of what was adjusted, signed, micros.',
    likes Int64 COMMENT 'Likes.',
    comments Int64 COMMENT 'Comments.',
    shares Int64 COMMENT 'Shares.',
    follows Int64 COMMENT 'Follows.',
    unfollows Int64 COMMENT 'Unfollows.',
    negative_feedbacks Int64 COMMENT 'Negative feedbacks.',
    rules LowCardinality(String) COMMENT 'Fingerprint of the rules (table rule_sets).',
    version UInt64 COMMENT 'Place of the tick in the journal, with its epoch: the highest version of a key wins.',
    written_at DateTime('UTC') MATERIALIZED now() COMMENT 'When this row was inserted, UTC. Retention counts from here.'
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(effect_pane)
PRIMARY KEY (campaign_id, origin_pane, input)
ORDER BY (
    campaign_id,
    origin_pane,
    input,
    ad_unit_id,
    creative_id,
    variant,
    currency,
    validity,
    effect_pane,
    log_epoch,
    partition,
    pane_ms,
    rules_seq
)
TTL written_at + INTERVAL 35 DAY
COMMENT 'Decision grain: campaign, ad unit, creative, variant, in panes of 10 s. Kept 35 days.';

CREATE TABLE IF NOT EXISTS report_rows
(
    log_epoch UInt32 COMMENT 'Raised by one whenever the topics were created anew.',
    input LowCardinality(String) COMMENT 'Input topic, or journal for what a tick decided.',
    partition UInt32 COMMENT 'Partition of the input topic.',
    pane_ms UInt32 COMMENT 'Pane size, ms.',
    rules_seq UInt64 COMMENT 'Tick that brought the rules in force; with new rules totals begin anew.',
    origin_pane DateTime('UTC') COMMENT 'Start of the pane in which the events happened, UTC.',
    effect_pane DateTime('UTC') COMMENT 'Pane of the topic-partition’s newest event time when they counted, UTC.',
    campaign_id LowCardinality(String) COMMENT 'Campaign; empty for organic traffic.',
    ad_unit_id LowCardinality(String) COMMENT 'Ad unit (ad group).',
    creative_id LowCardinality(String) COMMENT 'Creative.',
    variant LowCardinality(String) COMMENT 'First experiment and its arm, as id=arm.',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of every amount in this row.',
    validity LowCardinality(String) COMMENT 'valid, givt or sivt. Gross is the sum over all three.',
    region LowCardinality(String) COMMENT 'Region, ISO 3166-2 where known.',
    channel LowCardinality(String) COMMENT 'Channel.',
    publisher_id LowCardinality(String) COMMENT 'Publisher.',
    creator_id LowCardinality(String) COMMENT 'Creator or host.',
    shop_id LowCardinality(String) COMMENT 'Shop.',
    live_session_id LowCardinality(String) COMMENT 'Live session.',
    device_class LowCardinality(String) COMMENT 'Device class.',
    placement LowCardinality(String) COMMENT 'Placement.',
    advertiser_id LowCardinality(String) COMMENT 'Advertiser.',
    product_id LowCardinality(String) COMMENT 'Product.',
    audience_id LowCardinality(String) COMMENT 'Audience.',
    duplicates Int64 COMMENT 'Redelivered events, counted nowhere else.',
    late Int64 COMMENT 'Events beyond the lateness of their input, counted nowhere else.',
    money_rejected Int64 COMMENT 'Counted events whose amount was refused: another currency.',
    spend_millimicros Int64 COMMENT 'Cost, thousandths of a micro.',
    impressions Int64 COMMENT 'Ads that began to render.',
    viewable_impressions Int64 COMMENT 'Impressions that met the viewability threshold.',
    measured_impressions Int64 COMMENT 'Impressions whose viewability was measured.',
    plays_started Int64 COMMENT 'First loops started.',
    plays_3s Int64 COMMENT 'First loops that reached 3 s.',
    plays_5s Int64 COMMENT 'First loops that reached 5 s.',
    plays_completed Int64 COMMENT 'First loops that reached the end.',
    viewable_plays Int64 COMMENT 'First loops that met the viewability threshold.',
    loop_plays Int64 COMMENT 'Later loops started.',
    watched_ms Int64 COMMENT 'Time watched, ms.',
    clicks Int64 COMMENT 'Clicks of the types that count towards CTR.',
    clicks_card Int64 COMMENT 'Clicks on a card.',
    clicks_button Int64 COMMENT 'Clicks on a button.',
    clicks_cover Int64 COMMENT 'Clicks on a cover.',
    clicks_live_room_entry Int64 COMMENT 'Entries into a live room.',
    clicks_profile Int64 COMMENT 'Clicks on a profile.',
    clicks_other Int64 COMMENT 'Other clicks.',
    conversions Int64 COMMENT 'Conversions credited to a click, of the types that count, by conversion time.',
    view_through_conversions Int64 COMMENT 'The same, credited to a view.',
    play_through_conversions Int64 COMMENT 'The same, credited to a play.',
    unattributed_conversions Int64 COMMENT 'The same, credited to nothing.',
    leads Int64 COMMENT 'Leads.',
    add_to_carts Int64 COMMENT 'Additions to a cart.',
    orders Int64 COMMENT 'Orders placed.',
    paid_orders Int64 COMMENT 'Orders paid.',
    installs Int64 COMMENT 'Installs.',
    other_conversions Int64 COMMENT 'Other conversions.',
    quantity Int64 COMMENT 'Pieces.',
    ordered_value_micros Int64 COMMENT 'Value of orders placed, micros.',
    paid_value_micros Int64 COMMENT 'Value of orders paid, micros.',
    cost_of_goods_micros Int64 COMMENT 'Cost of goods, micros.',
    discount_micros Int64 COMMENT 'Discount given, micros.',
    attributed_weight_ppm Int64 COMMENT 'Sum of the attribution weights, millionths.',
    cancels Int64 COMMENT 'Cancellations.',
    refunds Int64 COMMENT 'Refunds.',
    chargebacks Int64 COMMENT 'Chargebacks.',
    rejected_leads Int64 COMMENT 'Leads rejected.',
    adjusted_micros Int64 COMMENT 'Adjustments by their own date, signed, micros.',
    adjusted_by_order_micros Int64 COMMENT 'The same adjustments by the date of what was adjusted, signed, micros.',
    likes Int64 COMMENT 'Likes.',
    comments Int64 COMMENT 'Comments.',
    shares Int64 COMMENT 'Shares.',
    follows Int64 COMMENT 'Follows.',
    unfollows Int64 COMMENT 'Unfollows.',
    negative_feedbacks Int64 COMMENT 'Negative feedbacks.',
    users Array(UInt64) COMMENT 'KMV sketch of user ids: the smallest 64-bit hashes, sorted.',
    rules LowCardinality(String) COMMENT 'Fingerprint of the rules (table rule_sets).',
    version UInt64 COMMENT 'Place of the tick in the journal, with its epoch: the highest version of a key wins.',
    written_at DateTime('UTC') MATERIALIZED now() COMMENT 'When this row was inserted, UTC. Retention counts from here.'
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(effect_pane)
PRIMARY KEY (campaign_id, origin_pane, input)
ORDER BY (
    campaign_id,
    origin_pane,
    input,
    ad_unit_id,
    creative_id,
    variant,
    currency,
    validity,
    region,
    channel,
    publisher_id,
    creator_id,
    shop_id,
    live_session_id,
    device_class,
    placement,
    advertiser_id,
    product_id,
    audience_id,
    effect_pane,
    log_epoch,
    partition,
    pane_ms,
    rules_seq
)
TTL written_at + INTERVAL 400 DAY
COMMENT 'Report grain: the decision grain’s key and the configured dimensions, in panes of 1 min. Kept 400 days.';

CREATE TABLE IF NOT EXISTS cohort_rows
(
    log_epoch UInt32 COMMENT 'Raised by one whenever the topics were created anew.',
    input LowCardinality(String) COMMENT 'Input topic, or journal for what a tick decided.',
    partition UInt32 COMMENT 'Partition of the input topic.',
    pane_ms UInt32 COMMENT 'Pane size, ms.',
    rules_seq UInt64 COMMENT 'Tick that brought the rules in force; with new rules totals begin anew.',
    effect_pane DateTime('UTC') COMMENT 'Pane of the topic-partition’s newest event time when they counted, UTC.',
    campaign_id LowCardinality(String) COMMENT 'Campaign; empty for organic traffic.',
    ad_unit_id LowCardinality(String) COMMENT 'Ad unit (ad group).',
    creative_id LowCardinality(String) COMMENT 'Creative.',
    variant LowCardinality(String) COMMENT 'First experiment and its arm, as id=arm.',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of every amount in this row.',
    validity LowCardinality(String) COMMENT 'valid, givt or sivt. Gross is the sum over all three.',
    click_hour DateTime('UTC') COMMENT 'Start of the hour of the click, UTC.',
    age_bucket_ms UInt64 COMMENT 'Time from click to conversion: lower bound of its bucket, ms.',
    conversions Int64 COMMENT 'Conversions credited to clicks of this hour, of the types that count.',
    conversion_value_micros Int64 COMMENT 'Value of these conversions, micros.',
    rules LowCardinality(String) COMMENT 'Fingerprint of the rules (table rule_sets).',
    version UInt64 COMMENT 'Place of the tick in the journal, with its epoch: the highest version of a key wins.',
    written_at DateTime('UTC') MATERIALIZED now() COMMENT 'When this row was inserted, UTC. Retention counts from here.'
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(effect_pane)
PRIMARY KEY (campaign_id, click_hour, age_bucket_ms)
ORDER BY (
    campaign_id,
    click_hour,
    age_bucket_ms,
    input,
    ad_unit_id,
    creative_id,
    variant,
    currency,
    validity,
    effect_pane,
    log_epoch,
    partition,
    pane_ms,
    rules_seq
)
TTL written_at + INTERVAL 400 DAY
COMMENT 'Conversions by the hour of their click and by age: the cohort, which matures. Kept 400 days.';

CREATE TABLE IF NOT EXISTS ledger_rows
(
    log_epoch UInt32 COMMENT 'Raised by one whenever the topics were created anew.',
    input LowCardinality(String) COMMENT 'Input topic, or journal for what a tick decided.',
    partition UInt32 COMMENT 'Partition of the input topic.',
    entry LowCardinality(String) COMMENT 'consumed, or where the offsets ended (streams.records.Entry).',
    reason LowCardinality(String) COMMENT 'Reason of a rejection, else empty.',
    records Int64 COMMENT 'Offsets so far.',
    version UInt64 COMMENT 'Place of the tick in the journal, with its epoch: the highest version of a key wins.'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (log_epoch, input, partition, entry, reason)
COMMENT 'Where every consumed offset ended. Kept for ever.';

CREATE TABLE IF NOT EXISTS campaign_rows
(
    campaign_id String COMMENT 'Campaign; empty for organic traffic.',
    name String COMMENT 'Name for people.',
    advertiser_id LowCardinality(String) COMMENT 'Advertiser.',
    agency_id LowCardinality(String) COMMENT 'Agency.',
    account_id LowCardinality(String) COMMENT 'Account that is billed.',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of every amount in this row.',
    time_zone LowCardinality(String) COMMENT 'IANA time zone of the campaign’s day.',
    settings String COMMENT 'The whole document, JSON.',
    valid_from DateTime64(3, 'UTC') COMMENT 'From when these settings hold, UTC.',
    version UInt64 COMMENT 'Place of the tick in the journal, with its epoch: the highest version of a key wins.'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (campaign_id, valid_from)
COMMENT 'Every version of every campaign’s settings. Kept for ever.';

CREATE TABLE IF NOT EXISTS rule_sets
(
    rules String COMMENT 'Fingerprint of the rules.',
    reach_sample UInt32 COMMENT 'Hashes that a complete sketch of users can hold at most.',
    document String COMMENT 'The rules, JSON.',
    version UInt64 COMMENT 'When they were recorded, epoch ms.'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY rules
COMMENT 'What the fingerprints in the column rules stand for. Kept for ever.';
