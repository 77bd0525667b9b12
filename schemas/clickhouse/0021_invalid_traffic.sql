-- Invalid traffic for two audiences. `invalid_traffic` may be shown to advertisers: what counts and what does not, by
-- class (general, sophisticated), and the money; no rules, thresholds, evidence or scores. `flags` is internal.
--
-- A day is settled when the campaign's next day has ended (T+1): no late word can reach its clicks any more, for clicks
-- are remembered for 24 h. Until then it is provisional. What is corrected later still is a credit, and shown as such.

CREATE OR REPLACE VIEW invalid_traffic
(
    campaign_id LowCardinality(String) COMMENT 'Campaign.',
    campaign_name String COMMENT 'Name for people; empty when unknown.',
    advertiser_id String COMMENT 'Advertiser; empty when unknown.',
    time_zone String COMMENT 'IANA time zone of the day; UTC when the campaign’s is unknown.',
    day Date COMMENT 'Day of the campaign, in its own time zone.',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of the amounts in this row; currencies are never summed.',
    is_provisional Bool COMMENT 'Whether the day is not settled yet: settled is it when the next day has ended.',
    gross_impressions Int64 COMMENT 'Ads that began to render, all traffic.',
    impressions Int64 COMMENT 'Of them valid.',
    givt_impressions Int64 COMMENT 'Of them general invalid traffic: bots, data centres, hidden or fetched ahead.',
    sivt_impressions Int64 COMMENT 'Of them sophisticated invalid traffic.',
    gross_clicks Int64 COMMENT 'Clicks of the types that count towards CTR, all traffic.',
    clicks Int64 COMMENT 'Of them valid.',
    givt_clicks Int64 COMMENT 'Of them general invalid traffic: bots, data centres, double clicks.',
    sivt_clicks Int64 COMMENT 'Of them sophisticated invalid traffic.',
    gross_conversions Int64 COMMENT 'Conversions credited to a click, of the types that count, all traffic.',
    conversions Int64 COMMENT 'Of them valid.',
    givt_conversions Int64 COMMENT 'Of them general invalid traffic.',
    sivt_conversions Int64 COMMENT 'Of them sophisticated invalid traffic.',
    gross_spend_micros Int64
        COMMENT 'Cost of all traffic, micros: spend_micros + credited_micros + givt_spend_micros + sivt_spend_micros.',
    spend_micros Int64 COMMENT 'What is billed: cost of valid traffic less credited_micros, micros.',
    credited_micros Int64 COMMENT 'Given back of what valid traffic was billed, micros: leads rejected later.',
    givt_spend_micros Int64 COMMENT 'Cost of general invalid traffic, not billed, micros.',
    sivt_spend_micros Int64 COMMENT 'Cost of sophisticated invalid traffic, not billed, micros.',
    given_back_micros Int64
        COMMENT 'Billed first and given back, micros: credited_micros, and what was found invalid later.',
    invalid_impression_share Nullable(Float64) COMMENT 'Invalid over gross impressions. NULL over zero.',
    invalid_click_share Nullable(Float64) COMMENT 'Invalid over gross clicks. NULL over zero.',
    invalid_conversion_share Nullable(Float64) COMMENT 'Invalid over gross conversions. NULL over zero.',
    invalid_spend_share Nullable(Float64) COMMENT 'Cost of invalid traffic over that of all. NULL over zero.',
    decision_rate Nullable(Float64)
        COMMENT 'Share of judged events that could be decided: 1 - undecided / judged. NULL over zero.',
    note String COMMENT 'What to know about this row: empty when nothing.'
)
AS WITH
    (part, whole) -> if(whole > 0, part / whole, NULL) AS share
SELECT
    d.campaign_id AS campaign_id,
    ifNull(c.name, '') AS campaign_name,
    ifNull(c.advertiser_id, '') AS advertiser_id,
    d.time_zone AS time_zone,
    d.day AS day,
    d.currency AS currency,
    toBool(toDate(toString(now('UTC'), d.time_zone)) < d.day + 2) AS is_provisional,
    d.gross_impressions AS gross_impressions,
    d.impressions AS impressions,
    d.givt_impressions AS givt_impressions,
    d.sivt_impressions AS sivt_impressions,
    d.gross_clicks AS gross_clicks,
    d.clicks AS clicks,
    d.givt_clicks AS givt_clicks,
    d.sivt_clicks AS sivt_clicks,
    d.gross_conversions AS gross_conversions,
    d.conversions AS conversions,
    d.givt_conversions AS givt_conversions,
    d.sivt_conversions AS sivt_conversions,
    d.gross_spend_micros AS gross_spend_micros,
    d.spend_micros AS spend_micros,
    d.credited_micros AS credited_micros,
    d.givt_spend_micros AS givt_spend_micros,
    d.sivt_spend_micros AS sivt_spend_micros,
    d.credited_micros + d.invalidated_later_micros AS given_back_micros,
    share(d.givt_impressions + d.sivt_impressions, d.gross_impressions) AS invalid_impression_share,
    share(d.givt_clicks + d.sivt_clicks, d.gross_clicks) AS invalid_click_share,
    share(d.givt_conversions + d.sivt_conversions, d.gross_conversions) AS invalid_conversion_share,
    share(d.givt_spend_micros + d.sivt_spend_micros, d.gross_spend_micros) AS invalid_spend_share,
    d.decision_rate AS decision_rate,
    arrayStringConcat(arrayFilter(text -> text != '', [
        if(is_provisional, 'provisional until the next day has ended', ''),
        if(d.invalidated_later_micros < 0, 'more came back to valid by reviews than was found invalid later', '')
    ]), '; ') AS note
FROM campaign_days AS d
LEFT JOIN campaigns AS c ON c.campaign_id = d.campaign_id
WHERE d.campaign_id != ''
COMMENT 'Invalid traffic of each campaign by day, as advertisers may see it: classes and money, no rules or evidence.';

CREATE OR REPLACE VIEW flags
(
    event String COMMENT 'Digest of the event id: XXH3, 128 bits, hexadecimal.',
    input LowCardinality(String) COMMENT 'Input of the event.',
    rule LowCardinality(String) COMMENT 'Rule (streams.invalid.Rule).',
    class LowCardinality(String) COMMENT 'givt or sivt: the rule’s class.',
    mode LowCardinality(String) COMMENT 'on: it excludes from valid figures; observe: it is only told.',
    state LowCardinality(String) COMMENT 'raised, withdrawn, overturned or confirmed.',
    counts_as LowCardinality(String) COMMENT 'What the event counts as, all its flags and reviews considered.',
    event_id String COMMENT 'Event id; empty when it is longer than 64 bytes.',
    event_time DateTime('UTC') COMMENT 'When the event happened, UTC.',
    campaign_id LowCardinality(String) COMMENT 'Campaign; empty for organic traffic.',
    ad_unit_id LowCardinality(String) COMMENT 'Ad unit (ad group).',
    creative_id LowCardinality(String) COMMENT 'Creative.',
    publisher_id LowCardinality(String) COMMENT 'Publisher; empty unless it is a dimension of the settings.',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of the cost.',
    cost_millimicros Int64 COMMENT 'What the event had cost, thousandths of a micro.',
    evidence String COMMENT 'What was seen, and the thresholds, JSON. Internal.',
    reviewer String COMMENT 'Who reviewed it; empty: nobody.',
    review_reason String COMMENT 'Why the reviewer decided so.',
    decided DateTime('UTC') COMMENT 'Wall time of the tick that told it, UTC.',
    log_epoch UInt32 COMMENT 'Raised by one whenever the topics were created anew.',
    partition UInt32 COMMENT 'Partition of the event.'
)
AS WITH
latest AS (
    SELECT
        r.event AS event,
        r.input AS input,
        r.rule AS rule,
        max((r.log_epoch, r.version)) AS place,
        argMax(r.partition, (r.log_epoch, r.version)) AS partition,
        argMax(r.class, (r.log_epoch, r.version)) AS class,
        argMax(r.mode, (r.log_epoch, r.version)) AS mode,
        argMax(r.state, (r.log_epoch, r.version)) AS state,
        argMax(r.event_id, (r.log_epoch, r.version)) AS event_id,
        argMax(r.event_time, (r.log_epoch, r.version)) AS event_time,
        argMax(r.campaign_id, (r.log_epoch, r.version)) AS campaign_id,
        argMax(r.ad_unit_id, (r.log_epoch, r.version)) AS ad_unit_id,
        argMax(r.creative_id, (r.log_epoch, r.version)) AS creative_id,
        argMax(r.publisher_id, (r.log_epoch, r.version)) AS publisher_id,
        argMax(r.currency, (r.log_epoch, r.version)) AS currency,
        argMax(r.cost_millimicros, (r.log_epoch, r.version)) AS cost_millimicros,
        argMax(r.evidence, (r.log_epoch, r.version)) AS evidence,
        argMax(r.reviewer, (r.log_epoch, r.version)) AS reviewer,
        argMax(r.review_reason, (r.log_epoch, r.version)) AS review_reason,
        argMax(r.decided, (r.log_epoch, r.version)) AS decided
    FROM flag_rows AS r FINAL
    GROUP BY r.event, r.input, r.rule
),
judged AS (
    SELECT
        l.*,
        argMax(l.state, if(l.state IN ('overturned', 'confirmed'), l.place, (0, 0)))
            OVER (PARTITION BY l.event, l.input) AS last_review,
        max(l.mode = 'on' AND l.state != 'withdrawn' AND l.class = 'givt')
            OVER (PARTITION BY l.event, l.input) AS is_general,
        max(l.mode = 'on' AND l.state != 'withdrawn' AND l.class = 'sivt')
            OVER (PARTITION BY l.event, l.input) AS is_sophisticated
    FROM latest AS l
)
SELECT
    j.event AS event,
    j.input AS input,
    j.rule AS rule,
    j.class AS class,
    j.mode AS mode,
    j.state AS state,
    multiIf(
        j.last_review = 'overturned', 'valid',
        j.is_general, 'givt',
        j.is_sophisticated OR j.last_review = 'confirmed', 'sivt',
        'valid'
    ) AS counts_as,
    j.event_id AS event_id,
    j.event_time AS event_time,
    j.campaign_id AS campaign_id,
    j.ad_unit_id AS ad_unit_id,
    j.creative_id AS creative_id,
    j.publisher_id AS publisher_id,
    j.currency AS currency,
    j.cost_millimicros AS cost_millimicros,
    j.evidence AS evidence,
    j.reviewer AS reviewer,
    j.review_reason AS review_reason,
    j.decided AS decided,
    j.place.1 AS log_epoch,
    j.partition AS partition
FROM judged AS j
COMMENT 'Each flag in its latest state, with its evidence, and what its event counts as. Internal.';
