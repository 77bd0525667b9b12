-- Why traffic is invalid, as advertisers may be told it: classes of reasons, by day, in English and Chinese. No rules,
-- thresholds or evidence. Sums over reasons are all invalid traffic: what was counted without a flag of its own (one tick
-- tells 2,000 of an input; flags are kept 100 days) is the reason `other`. Every statement can be run again.

CREATE OR REPLACE VIEW invalid_reasons
(
    campaign_id LowCardinality(String) COMMENT 'Campaign.',
    campaign_name String COMMENT 'Name for people; empty when unknown.',
    advertiser_id String COMMENT 'Advertiser; empty when unknown.',
    time_zone String COMMENT 'IANA time zone of the day; UTC when the campaign’s is unknown.',
    day Date COMMENT 'Day of the campaign, in its own time zone.',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of the cost; currencies are never summed.',
    is_provisional Bool COMMENT 'Whether the day is not settled yet: settled is it when the next day has ended.',
    class LowCardinality(String) COMMENT 'givt: general invalid traffic; sivt: sophisticated.',
    reason_class LowCardinality(String)
        COMMENT 'Class of reasons: automated, unseen, repeated, excessive, unsupported, source, reviewed or other. An event has one.',
    reason_en String COMMENT 'The reason in English.',
    reason_zh String COMMENT 'The reason in Chinese.',
    impressions Int64 COMMENT 'Impressions that are invalid for it.',
    clicks Int64 COMMENT 'Clicks that are invalid for it, of all types.',
    conversions Int64 COMMENT 'Conversions that are invalid for it, of all types, by conversion time.',
    spend_micros Int64
        COMMENT 'Cost of what is invalid for it, plays included, not billed, micros; each row is rounded by itself.'
)
AS WITH
    [
        'declared_bot', 'non_browser_agent', 'data_centre', 'prefetch', 'hidden_placement', 'double_click',
        'activity_cap', 'click_without_impression', 'click_before_impression', 'click_too_soon',
        'repeated_click', 'conversion_without_click', 'conversion_too_soon', 'order_repeated',
        'user_velocity', 'device_velocity', 'address_velocity', 'device_fan_out', 'address_fan_out',
        'publisher_flooding', 'publisher_timing', 'review'
    ] AS rules,
    [
        'automated', 'automated', 'automated', 'unseen', 'unseen', 'repeated', 'excessive', 'unsupported',
        'unsupported', 'unsupported', 'repeated', 'unsupported', 'unsupported', 'repeated', 'excessive',
        'excessive', 'excessive', 'excessive', 'excessive', 'source', 'source', 'reviewed'
    ] AS reason_of_rule,
    [
        'automated', 'unseen', 'repeated', 'excessive', 'unsupported', 'source', 'reviewed', 'other'
    ] AS reasons,
    [
        'The traffic came from an automated program.',
        'The ad could not be seen when it was counted.',
        'The same action was reported more than once.',
        'One source acted more often than people do.',
        'The action does not follow from an ad that was shown or clicked.',
        'The source\'s traffic differs from comparable sources.',
        'A reviewer found the traffic invalid.',
        'Counted as invalid without a record of its own.'
    ] AS texts_en,
    [
        '该流量来自自动程序。',
        '广告在计数时无法被看到。',
        '同一行为被重复上报。',
        '同一来源的操作频率超出正常用户。',
        '该行为与广告的展示或点击不相符。',
        '该来源的流量与同类来源明显不同。',
        '经人工审核，该流量无效。',
        '计为无效流量，未逐条记录。'
    ] AS texts_zh,
latest AS (
    SELECT
        r.campaign_id AS campaign_id, r.event AS event, r.input AS input, r.event_time AS event_time,
        r.rule AS rule, r.review_ms AS review_ms,
        max((r.log_epoch, r.effect_pane, r.version)) AS place,
        argMax(r.class, (r.log_epoch, r.effect_pane, r.version)) AS class,
        argMax(r.mode, (r.log_epoch, r.effect_pane, r.version)) AS mode,
        argMax(r.state, (r.log_epoch, r.effect_pane, r.version)) AS state,
        argMax(r.currency, (r.log_epoch, r.effect_pane, r.version)) AS currency,
        argMax(r.cost_millimicros, (r.log_epoch, r.effect_pane, r.version)) AS cost
    FROM shown_flag_rows AS r
    WHERE r.campaign_id != ''
    GROUP BY r.campaign_id, r.event, r.input, r.event_time, r.rule, r.review_ms
),
-- As the view flags reckons it.
judged AS (
    SELECT
        l.campaign_id AS campaign_id, l.input AS input, l.event_time AS event_time,
        argMax(l.currency, l.place) AS currency, argMax(l.cost, l.place) AS cost,
        argMax(
            (l.state, if(l.rule = 'review', l.class, '')),
            if(l.state IN ('overturned', 'confirmed'), (l.place, l.review_ms), ((0, toDateTime(0, 'UTC'), 0), -1))
        ) AS last,
        groupArrayIf(
            (l.class, indexOf(rules, l.rule)), l.rule != 'review' AND l.mode = 'on' AND l.state != 'withdrawn'
        ) AS excluding,
        multiIf(
            last.1 = 'overturned', 'valid',
            arrayExists(e -> e.1 = 'givt', excluding) OR (last.1 = 'confirmed' AND last.2 = 'givt'), 'givt',
            notEmpty(excluding) OR last.1 = 'confirmed', 'sivt',
            'valid'
        ) AS class,
        arrayMin(arrayMap(e -> e.2, arrayFilter(e -> e.1 = class, excluding))) AS rule_at
    FROM latest AS l
    GROUP BY l.campaign_id, l.event, l.input, l.event_time
),
lines AS (
    SELECT
        j.campaign_id AS campaign_id, j.event_time AS at, j.currency AS currency, j.class AS class,
        if(j.rule_at = 0, 'reviewed', reason_of_rule[j.rule_at]) AS reason,
        toInt64(countIf(j.input = 'impressions')) AS impressions,
        toInt64(countIf(j.input = 'clicks')) AS clicks,
        toInt64(countIf(j.input = 'conversions')) AS conversions,
        sum(j.cost) AS millimicros
    FROM judged AS j
    WHERE j.class != 'valid'
    GROUP BY j.campaign_id, j.event_time, j.currency, j.class, reason
    UNION ALL
    SELECT
        a.campaign_id, a.origin_pane, a.currency, a.validity, 'other',
        sum(a.impressions),
        sum(a.clicks_card + a.clicks_button + a.clicks_cover + a.clicks_live_room_entry + a.clicks_profile + a.clicks_other),
        sum(a.leads + a.add_to_carts + a.orders + a.paid_orders + a.installs + a.other_conversions),
        sum(a.spend_millimicros)
    FROM all_rows AS a
    WHERE a.validity != 'valid' AND a.campaign_id != ''
    GROUP BY a.campaign_id, a.origin_pane, a.currency, a.validity
),
by_day AS (
    SELECT
        l.campaign_id AS campaign_id,
        ifNull(nullIf(c.time_zone, ''), 'UTC') AS time_zone,
        toDate(toString(l.at, time_zone)) AS day,
        l.currency AS currency, l.class AS class, l.reason AS reason,
        sum(l.impressions) AS impressions, sum(l.clicks) AS clicks, sum(l.conversions) AS conversions,
        sum(l.millimicros) AS millimicros
    FROM lines AS l
    LEFT JOIN campaigns AS c ON c.campaign_id = l.campaign_id
    GROUP BY campaign_id, time_zone, day, currency, class, reason
),
-- `other` holds all of a class up to here. Less than nothing is left only where flags outlive their figures.
apart AS (
    SELECT
        b.campaign_id AS campaign_id, b.time_zone AS time_zone, b.day AS day, b.currency AS currency,
        b.class AS class, b.reason AS reason,
        if(b.reason = 'other', greatest(0, b.impressions - sumIf(b.impressions, b.reason != 'other') OVER same), b.impressions) AS impressions,
        if(b.reason = 'other', greatest(0, b.clicks - sumIf(b.clicks, b.reason != 'other') OVER same), b.clicks) AS clicks,
        if(b.reason = 'other', greatest(0, b.conversions - sumIf(b.conversions, b.reason != 'other') OVER same), b.conversions) AS conversions,
        if(b.reason = 'other', greatest(0, b.millimicros - sumIf(b.millimicros, b.reason != 'other') OVER same), b.millimicros) AS millimicros
    FROM by_day AS b
    WINDOW same AS (PARTITION BY b.campaign_id, b.day, b.currency, b.class)
)
SELECT
    a.campaign_id AS campaign_id,
    ifNull(c.name, '') AS campaign_name,
    ifNull(c.advertiser_id, '') AS advertiser_id,
    a.time_zone AS time_zone,
    a.day AS day,
    a.currency AS currency,
    toBool(toDate(toString(now('UTC'), a.time_zone)) < a.day + 2) AS is_provisional,
    a.class AS class,
    a.reason AS reason_class,
    texts_en[indexOf(reasons, a.reason)] AS reason_en,
    texts_zh[indexOf(reasons, a.reason)] AS reason_zh,
    a.impressions AS impressions,
    a.clicks AS clicks,
    a.conversions AS conversions,
    intDiv(a.millimicros + if(a.millimicros < 0, -500, 500), 1000) AS spend_micros
FROM apart AS a
LEFT JOIN campaigns AS c ON c.campaign_id = a.campaign_id
WHERE a.impressions != 0 OR a.clicks != 0 OR a.conversions != 0 OR a.millimicros != 0
COMMENT 'Why traffic is invalid, by campaign, day and class of reasons, as advertisers may be told it.';
