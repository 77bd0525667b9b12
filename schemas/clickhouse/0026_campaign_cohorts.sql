-- As in 0007, with the rows of published runs.
CREATE OR REPLACE VIEW campaign_cohorts
(
    campaign_id LowCardinality(String) COMMENT 'Campaign; empty for organic traffic.',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of the value in this row; currencies are never summed.',
    click_hour DateTime('UTC') COMMENT 'Start of the hour of the click, UTC.',
    clicks Int64 COMMENT 'Clicks in this hour, valid traffic.',
    gross_clicks Int64 COMMENT 'Clicks in this hour, valid and invalid traffic.',
    conversions Int64 COMMENT 'Conversions of these clicks so far, valid traffic.',
    gross_conversions Int64 COMMENT 'Conversions of these clicks so far, valid and invalid traffic.',
    conversion_value_micros Int64 COMMENT 'Value of these conversions, micros, valid traffic.',
    cvr Nullable(Float64)
        COMMENT 'Conversion rate by click time so far: conversions over clicks. NULL over zero, or above 1 (see note).',
    cvr_low Nullable(Float64) COMMENT 'Lower end of the 95 % Wilson interval of cvr.',
    cvr_high Nullable(Float64) COMMENT 'Upper end of the 95 % Wilson interval of cvr.',
    as_of DateTime('UTC') COMMENT 'Event time that the campaign’s partitions have reached, UTC.',
    age_ms Int64 COMMENT 'Time from the end of the click hour to as_of, ms.',
    maturity Float64
        COMMENT 'Share of the conversions within 30 days of the click expected by this age (see maturity_basis).',
    maturity_basis String
        COMMENT 'own cohorts: ages in cohorts over 30 days old (30 conversions or more); else elapsed time.',
    ages Map(UInt64, Int64) COMMENT 'Valid conversions by age: lower bound of the bucket, ms, to their number.',
    note String COMMENT 'What to know about this row: empty when nothing.'
)
AS WITH
    (k, n) -> if(n > 0 AND k BETWEEN 0 AND n, k / n, NULL) AS share,
    (k, n) -> if(n > 0 AND k BETWEEN 0 AND n, greatest(0, (k + 1.920729410347062
        - 1.959963984540054 * sqrt(k / n * (n - k) + 0.960364705173531)) / (n + 3.841458820694124)), NULL) AS
            wilson_low,
    (k, n) -> if(n > 0 AND k BETWEEN 0 AND n, least(1, (k + 1.920729410347062
        + 1.959963984540054 * sqrt(k / n * (n - k) + 0.960364705173531)) / (n + 3.841458820694124)), NULL) AS
            wilson_high,
    2592000000 AS window_ms,
    [0, 300000, 3600000, 10800000, 21600000, 43200000, 86400000, 172800000, 259200000, 604800000, 1209600000,
        2592000000]
        AS bounds,
    (bucket, age) -> least(1, greatest(0, (age - bucket) / (bounds[indexOf(bounds, bucket) + 1] - bucket))) AS arrived,
events AS (
    SELECT
        campaign_id, currency, log_epoch, partition, toStartOfHour(origin_pane) AS click_hour, validity,
        toUInt64(0) AS age_bucket_ms, clicks, toInt64(0) AS conversions, toInt64(0) AS conversion_value_micros
    FROM all_rows WHERE clicks != 0
    UNION ALL
    SELECT
        campaign_id, currency, log_epoch, partition, click_hour, validity,
        age_bucket_ms, toInt64(0), conversions, conversion_value_micros
    FROM shown_cohort_rows
),
reached AS (
    SELECT log_epoch, partition, max(effect_pane) AS newest FROM all_rows GROUP BY log_epoch, partition
),
campaigns_reached AS (
    SELECT e.campaign_id AS campaign_id, max(newest) AS as_of
    FROM (SELECT DISTINCT campaign_id, log_epoch, partition FROM events) AS e
    LEFT JOIN reached AS r ON r.log_epoch = e.log_epoch AND r.partition = e.partition
    GROUP BY e.campaign_id
),
per_currency AS (
    SELECT
        campaign_id, currency, click_hour,
        sumIf(e.clicks, validity = 'valid') AS valid_clicks,
        sum(e.clicks) AS all_clicks,
        sumIf(e.conversions, validity = 'valid') AS valid_conversions,
        sum(e.conversions) AS all_conversions,
        sumIf(e.conversion_value_micros, validity = 'valid') AS valid_value_micros,
        sumMapIf(map(e.age_bucket_ms, e.conversions), validity = 'valid' AND e.conversions != 0) AS by_age
    FROM events AS e
    GROUP BY campaign_id, currency, click_hour
),
per_campaign AS (
    SELECT *, groupUniqArrayIf(currency, currency != '') OVER (PARTITION BY campaign_id) AS currencies
    FROM per_currency
),
cohorts AS (
    SELECT
        campaign_id, click_hour,
        if(p.currency = '' AND valid_value_micros = 0 AND length(currencies) = 1, currencies[1], p.currency)
            AS shown_currency,
        sum(valid_clicks) AS clicks,
        sum(all_clicks) AS gross_clicks,
        sum(valid_conversions) AS conversions,
        sum(all_conversions) AS gross_conversions,
        sum(valid_value_micros) AS value_micros,
        sumMap(by_age) AS ages
    FROM per_campaign AS p
    GROUP BY campaign_id, click_hour, shown_currency
),
history AS (
    SELECT k.campaign_id AS campaign_id, mapFilter((bucket, _) -> bucket < window_ms, sumMap(k.ages)) AS old_ages
    FROM cohorts AS k
    INNER JOIN campaigns_reached AS w ON w.campaign_id = k.campaign_id
    WHERE toUnixTimestamp(w.as_of) * 1000 >= (toUnixTimestamp(k.click_hour) + 3600) * 1000 + window_ms
    GROUP BY k.campaign_id
)
SELECT
    k.campaign_id AS campaign_id,
    k.shown_currency AS currency,
    k.click_hour AS click_hour,
    k.clicks AS clicks,
    k.gross_clicks AS gross_clicks,
    k.conversions AS conversions,
    k.gross_conversions AS gross_conversions,
    k.value_micros AS conversion_value_micros,
    share(k.conversions, k.clicks) AS cvr,
    wilson_low(k.conversions, k.clicks) AS cvr_low,
    wilson_high(k.conversions, k.clicks) AS cvr_high,
    w.as_of AS as_of,
    greatest(0, (toInt64(toUnixTimestamp(w.as_of)) - toInt64(toUnixTimestamp(k.click_hour)) - 3600) * 1000) AS age_ms,
    if(
        maturity_basis = 'own cohorts',
        arraySum(bucket -> old_ages[bucket] * arrived(bucket, age_ms), mapKeys(old_ages))
            / arraySum(mapValues(old_ages)),
        least(1, age_ms / window_ms)
    ) AS maturity,
    if(arraySum(mapValues(old_ages)) >= 30, 'own cohorts', 'elapsed time') AS maturity_basis,
    k.ages AS ages,
    arrayStringConcat(arrayFilter(text -> text != '', [
        if(conversions > clicks AND clicks > 0, 'more conversions than clicks (these were invalidated): no CVR', ''),
        if(clicks = 0, 'no click of this hour is known', '')
    ]), '; ') AS note
FROM cohorts AS k
LEFT JOIN campaigns_reached AS w ON w.campaign_id = k.campaign_id
LEFT JOIN history AS h ON h.campaign_id = k.campaign_id
COMMENT 'CVR by click time: each campaign by hour of the click, with how mature the cohort is.';
