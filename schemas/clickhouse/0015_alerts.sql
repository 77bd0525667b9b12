-- Alerts for people: each occurrence in its latest state. The table keeps that state alone, so there is no view of the
-- changes: `began` and `changed` tell when. What had not resolved when the topics were created anew never will: `lost`.

CREATE OR REPLACE VIEW alerts
(
    alert_id String COMMENT 'One occurrence: made of kind, campaign and the time at which it began.',
    kind LowCardinality(String) COMMENT 'What it is about (streams.terms.AlertKind).',
    state LowCardinality(String)
        COMMENT 'pending, firing or resolved; lost: it had not resolved when its log was created anew.',
    audience LowCardinality(String) COMMENT 'advertiser or operations.',
    is_pushed Bool COMMENT 'Pushed to its receivers; otherwise told in the digest.',
    campaign_id LowCardinality(String) COMMENT 'Campaign; empty when it is about none.',
    campaign_name String COMMENT 'Name for people; empty when unknown.',
    advertiser_id LowCardinality(String) COMMENT 'Advertiser; empty when unknown.',
    agency_id LowCardinality(String) COMMENT 'Agency; empty when unknown.',
    account_id LowCardinality(String) COMMENT 'Account that is billed; empty when unknown.',
    cause String COMMENT 'What alerts of one cause share: one message tells of all of them.',
    text_en String COMMENT 'One sentence for people, English.',
    text_zh String COMMENT 'The same, Chinese.',
    seen Nullable(Float64) COMMENT 'What was seen, in the unit of this row; NULL: no number.',
    expected Nullable(Float64) COMMENT 'What was expected, in the unit of this row; NULL: no number.',
    unit LowCardinality(String) COMMENT 'Unit of seen and expected: micros, ratio, percent, hours, ms; empty for none.',
    time_zone String COMMENT 'IANA time zone of the campaign’s day; UTC when unknown.',
    began DateTime('UTC') COMMENT 'Event time at which it began, UTC.',
    changed DateTime('UTC') COMMENT 'Event time of its latest change, UTC.',
    duration_ms Nullable(Int64) COMMENT 'From its begin until it was resolved, event time, ms; NULL while it is not.'
)
AS WITH
    (SELECT max(log_epoch) FROM ledger_rows) AS newest_epoch,
latest AS (
    SELECT
        r.alert_id AS alert_id,
        max((r.log_epoch, r.changed, r.version)) AS place,
        argMax(r.state, (r.log_epoch, r.changed, r.version)) AS last_state,
        argMax(r.kind, (r.log_epoch, r.changed, r.version)) AS kind,
        argMax(r.audience, (r.log_epoch, r.changed, r.version)) AS audience,
        argMax(r.is_pushed, (r.log_epoch, r.changed, r.version)) AS is_pushed,
        argMax(r.campaign_id, (r.log_epoch, r.changed, r.version)) AS campaign_id,
        argMax(r.advertiser_id, (r.log_epoch, r.changed, r.version)) AS advertiser_id,
        argMax(r.agency_id, (r.log_epoch, r.changed, r.version)) AS agency_id,
        argMax(r.account_id, (r.log_epoch, r.changed, r.version)) AS account_id,
        argMax(r.cause, (r.log_epoch, r.changed, r.version)) AS cause,
        argMax(r.text_en, (r.log_epoch, r.changed, r.version)) AS text_en,
        argMax(r.text_zh, (r.log_epoch, r.changed, r.version)) AS text_zh,
        argMax(tuple(r.seen), (r.log_epoch, r.changed, r.version)).1 AS seen,
        argMax(tuple(r.expected), (r.log_epoch, r.changed, r.version)).1 AS expected,
        argMax(r.unit, (r.log_epoch, r.changed, r.version)) AS unit,
        argMax(r.began, (r.log_epoch, r.changed, r.version)) AS began
    FROM alert_rows AS r FINAL
    GROUP BY r.alert_id
)
SELECT
    a.alert_id AS alert_id,
    a.kind AS kind,
    if(a.last_state != 'resolved' AND a.place.1 < newest_epoch, 'lost', a.last_state) AS state,
    a.audience AS audience,
    a.is_pushed AS is_pushed,
    a.campaign_id AS campaign_id,
    ifNull(c.name, '') AS campaign_name,
    a.advertiser_id AS advertiser_id,
    a.agency_id AS agency_id,
    a.account_id AS account_id,
    a.cause AS cause,
    a.text_en AS text_en,
    a.text_zh AS text_zh,
    a.seen AS seen,
    a.expected AS expected,
    a.unit AS unit,
    ifNull(nullIf(c.time_zone, ''), 'UTC') AS time_zone,
    a.began AS began,
    a.place.2 AS changed,
    if(a.last_state = 'resolved',
        1000 * (toInt64(toUnixTimestamp(a.place.2)) - toInt64(toUnixTimestamp(a.began))), NULL) AS duration_ms
FROM latest AS a
LEFT JOIN campaigns AS c ON c.campaign_id = a.campaign_id
COMMENT 'Each occurrence of an alert in its latest state, with its texts and how long it lasted.';
