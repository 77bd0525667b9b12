-- Views that a person can query without knowing the engine: superseded rows never show, whatever has been merged.
--
-- Plain columns are valid traffic; gross_ ones add what was labelled invalid (givt, sivt). A ratio over zero is NULL,
-- and so is one above 1, with a note. Intervals are Wilson score intervals at 95 % (E. B. Wilson, "Probable inference,
-- the law of succession, and statistical inference", JASA 22, 1927), z = 1.959963984540054.
-- Amounts are micros of the currency in the row; a row that names no currency and holds no money is shown under its
-- campaign's one currency. Every statement can be run again.

-- Each event once: rows of the report grain up to a moment, and of the decision grain from then on. Both grains cut
-- the same events into effect panes, so a cut at the end of a report pane loses nothing and counts nothing twice. The
-- moment is the newest effect pane among rows written over 34 days ago, a day before the decision grain expires; a
-- younger database is read in the decision grain alone.
CREATE OR REPLACE VIEW all_rows
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
    rules LowCardinality(String) COMMENT 'Fingerprint of the rules (table rule_sets).'
)
AS WITH (
    SELECT ifNull(maxOrNull(effect_pane + toIntervalSecond(intDiv(pane_ms, 1000))), toDateTime(0, 'UTC'))
    FROM report_rows WHERE written_at < now() - INTERVAL 34 DAY
) AS cut
SELECT
    log_epoch, input, partition, pane_ms, rules_seq, origin_pane, effect_pane, campaign_id, ad_unit_id,
    creative_id, variant, currency, validity, duplicates, late, money_rejected, spend_millimicros,
    impressions, viewable_impressions, measured_impressions, plays_started, plays_3s, plays_5s,
    plays_completed, viewable_plays, loop_plays, watched_ms, clicks, clicks_card, clicks_button, clicks_cover,
    clicks_live_room_entry, clicks_profile, clicks_other, conversions, view_through_conversions,
    play_through_conversions, unattributed_conversions, leads, add_to_carts, orders, paid_orders, installs,
    other_conversions, quantity, ordered_value_micros, paid_value_micros, cost_of_goods_micros,
    discount_micros, attributed_weight_ppm, cancels, refunds, chargebacks, rejected_leads, adjusted_micros,
    adjusted_by_order_micros, likes, comments, shares, follows, unfollows, negative_feedbacks, rules
FROM pane_rows FINAL WHERE effect_pane >= cut
UNION ALL
SELECT
    log_epoch, input, partition, pane_ms, rules_seq, origin_pane, effect_pane, campaign_id, ad_unit_id,
    creative_id, variant, currency, validity, duplicates, late, money_rejected, spend_millimicros,
    impressions, viewable_impressions, measured_impressions, plays_started, plays_3s, plays_5s,
    plays_completed, viewable_plays, loop_plays, watched_ms, clicks, clicks_card, clicks_button, clicks_cover,
    clicks_live_room_entry, clicks_profile, clicks_other, conversions, view_through_conversions,
    play_through_conversions, unattributed_conversions, leads, add_to_carts, orders, paid_orders, installs,
    other_conversions, quantity, ordered_value_micros, paid_value_micros, cost_of_goods_micros,
    discount_micros, attributed_weight_ppm, cancels, refunds, chargebacks, rejected_leads, adjusted_micros,
    adjusted_by_order_micros, likes, comments, shares, follows, unfollows, negative_feedbacks, rules
FROM report_rows FINAL WHERE effect_pane < cut
COMMENT 'Rows as they count, each event once: the decision grain, and the report grain for what is older than 34 days.';

CREATE OR REPLACE VIEW campaigns
(
    campaign_id String COMMENT 'Campaign.',
    name String COMMENT 'Name for people.',
    advertiser_id String COMMENT 'Advertiser.',
    agency_id String COMMENT 'Agency.',
    account_id String COMMENT 'Account that is billed.',
    currency String COMMENT 'ISO 4217 code of the campaign’s money.',
    time_zone String COMMENT 'IANA time zone of the campaign’s day.',
    settings String COMMENT 'The whole document, JSON.',
    valid_from DateTime64(3, 'UTC') COMMENT 'From when these settings hold, UTC.'
)
AS WITH
settings_rows AS (
    SELECT *, valid_from <= now64(3) AS holds, if(holds, 1, -1) * toUnixTimestamp64Milli(valid_from) AS place
    FROM campaign_rows FINAL
)
SELECT
    s.campaign_id AS campaign_id,
    argMax(s.name, (holds, place)) AS name,
    argMax(s.advertiser_id, (holds, place)) AS advertiser_id,
    argMax(s.agency_id, (holds, place)) AS agency_id,
    argMax(s.account_id, (holds, place)) AS account_id,
    argMax(s.currency, (holds, place)) AS currency,
    argMax(s.time_zone, (holds, place)) AS time_zone,
    argMax(s.settings, (holds, place)) AS settings,
    argMax(s.valid_from, (holds, place)) AS valid_from
FROM settings_rows AS s
GROUP BY s.campaign_id
COMMENT 'Settings of each campaign that hold now (of one that has not begun: its first).';
