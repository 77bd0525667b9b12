-- As in 0006, with the rows of published runs.
CREATE OR REPLACE VIEW campaign_reach
(
    campaign_id LowCardinality(String) COMMENT 'Campaign; empty for organic traffic.',
    time_zone String COMMENT 'IANA time zone of the day; UTC when the campaign’s is unknown.',
    day Date COMMENT 'Day of the campaign, in its own time zone.',
    reach Nullable(Float64)
        COMMENT 'Unique users with a valid impression, estimated; NULL without impressions of known users.',
    reach_error Nullable(Float64) COMMENT 'Relative standard error of reach; 0 when it is exact.',
    gross_reach Nullable(Float64) COMMENT 'Unique users with any impression, estimated.'
)
AS WITH
    (hashes, theta) -> multiIf(empty(hashes), NULL, theta = 18446744073709551615, toFloat64(length(hashes)),
        arrayCount(hash -> hash < theta, hashes) / (theta / 18446744073709551616.)) AS distinct_users,
    (hashes, theta) -> multiIf(empty(hashes), NULL, theta = 18446744073709551615, 0.,
        1 / sqrt(greatest(1, arrayCount(hash -> hash < theta, hashes) - 1))) AS relative_error,
    (SELECT mapFromArrays(groupArray(rules), groupArray(reach_sample)) FROM rule_sets FINAL) AS samples,
    (users, rules) -> users[if(samples[rules] = 0, 256, samples[rules])] AS kth_hash,
    (users, rules) -> if(kth_hash(users, rules) = 0, 18446744073709551615, kth_hash(users, rules)) AS theta_of,
merged AS (
    SELECT
        r.campaign_id AS campaign_id,
        ifNull(nullIf(c.time_zone, ''), 'UTC') AS time_zone,
        toDate(toString(r.origin_pane, time_zone)) AS day,
        groupUniqArrayArrayIf(users, validity = 'valid') AS valid_users,
        minIf(theta_of(users, rules), validity = 'valid') AS low_valid,
        groupUniqArrayArray(users) AS all_users,
        min(theta_of(users, rules)) AS low_all
    FROM shown_report_rows AS r
    LEFT JOIN campaigns AS c ON c.campaign_id = r.campaign_id
    WHERE notEmpty(users)
    GROUP BY campaign_id, time_zone, day
)
SELECT
    campaign_id, time_zone, day,
    distinct_users(valid_users, low_valid) AS reach,
    relative_error(valid_users, low_valid) AS reach_error,
    distinct_users(all_users, low_all) AS gross_reach
FROM merged
COMMENT 'Unique users of each campaign by day in its own time zone, over all dimensions.';
