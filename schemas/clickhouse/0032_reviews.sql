-- Rules and reviewers are told apart. A review was a state of the flags that it was about, so a rule that took its word
-- back wrote over the review, and a review over what the rule had seen. Now every review is a row of its own, of the rule
-- `review`, and what an event counts as follows from the rules' flags and the last review. Rows of before are read as
-- they were meant. Every statement can be run again.

ALTER TABLE flag_rows
    ADD COLUMN IF NOT EXISTS review_ms Int64
        COMMENT 'Of a review: when it was said, epoch ms, later reviews of the event having more; else 0.' AFTER rule,
    MODIFY ORDER BY (event, input, rule, log_epoch, partition, review_ms);

ALTER TABLE flag_rows
    COMMENT COLUMN class 'givt or sivt: the rule’s class; of a review, what the event counts as where it is invalid.',
    COMMENT COLUMN state 'Of a rule’s flag raised or withdrawn, of a review (rule: review) overturned or confirmed.',
    COMMENT COLUMN reviewer 'Who reviewed the event; empty in the rows of rules.';

ALTER TABLE run_flag_rows
    ADD COLUMN IF NOT EXISTS review_ms Int64
        COMMENT 'Of a review: when it was said, epoch ms, later reviews of the event having more; else 0.' AFTER rule,
    MODIFY ORDER BY (run, event, input, rule, log_epoch, partition, review_ms);

ALTER TABLE run_flag_rows
    COMMENT COLUMN class 'givt or sivt: the rule’s class; of a review, what the event counts as where it is invalid.',
    COMMENT COLUMN state 'Of a rule’s flag raised or withdrawn, of a review (rule: review) overturned or confirmed.',
    COMMENT COLUMN reviewer 'Who reviewed the event; empty in the rows of rules.';

CREATE OR REPLACE VIEW shown_flag_rows
AS WITH
    (SELECT groupArray((run, from_pane, to_pane)) FROM publications FINAL WHERE is_published) AS published,
of_runs AS (
    SELECT * EXCEPT run FROM run_flag_rows FINAL
    WHERE run IN (SELECT run FROM publications FINAL WHERE is_published)
        AND arrayExists(p -> run = p.1 AND effect_pane >= p.2 AND effect_pane < p.3, published)
)
SELECT * FROM flag_rows FINAL
WHERE NOT arrayExists(p -> effect_pane >= p.2 AND effect_pane < p.3, published)
    AND event NOT IN (SELECT event FROM of_runs)
UNION ALL
SELECT * FROM (
    SELECT * FROM flag_rows FINAL
    WHERE NOT arrayExists(p -> effect_pane >= p.2 AND effect_pane < p.3, published)
        AND event IN (SELECT event FROM of_runs)
    UNION ALL
    SELECT * FROM of_runs
)
ORDER BY effect_pane DESC, version DESC
LIMIT 1 BY event, input, rule, log_epoch, partition, review_ms
COMMENT 'Rows of flag_rows as they count, with those of published runs.';

-- As in 0030, with reviews of their own. An id that counts again long after is another event: its time tells.
CREATE OR REPLACE VIEW flags
(
    event String COMMENT 'Digest of the event id: XXH3, 128 bits, hexadecimal.',
    input LowCardinality(String) COMMENT 'Input of the event.',
    rule LowCardinality(String) COMMENT 'Rule (streams.invalid.Rule).',
    review_ms Int64 COMMENT 'Of a review: when it was said, epoch ms, later reviews of the event having more; else 0.',
    class LowCardinality(String) COMMENT 'givt or sivt: the rule’s class; of a review, what the event counts as where it is invalid.',
    mode LowCardinality(String) COMMENT 'on: it excludes from valid figures; observe: it is only told.',
    state LowCardinality(String) COMMENT 'Of a rule’s flag raised or withdrawn, of a review (rule: review) overturned or confirmed.',
    review LowCardinality(String) COMMENT 'Last review of the event: overturned, confirmed, or empty: there was none.',
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
    reviewer String COMMENT 'Who reviewed the event; empty in the rows of rules.',
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
        r.review_ms AS review_ms,
        max((r.log_epoch, r.effect_pane, r.version)) AS place,
        argMax(r.partition, (r.log_epoch, r.effect_pane, r.version)) AS partition,
        argMax(r.class, (r.log_epoch, r.effect_pane, r.version)) AS class,
        argMax(r.mode, (r.log_epoch, r.effect_pane, r.version)) AS mode,
        argMax(r.state, (r.log_epoch, r.effect_pane, r.version)) AS state,
        argMax(r.event_id, (r.log_epoch, r.effect_pane, r.version)) AS event_id,
        argMax(r.event_time, (r.log_epoch, r.effect_pane, r.version)) AS event_time,
        argMax(r.campaign_id, (r.log_epoch, r.effect_pane, r.version)) AS campaign_id,
        argMax(r.ad_unit_id, (r.log_epoch, r.effect_pane, r.version)) AS ad_unit_id,
        argMax(r.creative_id, (r.log_epoch, r.effect_pane, r.version)) AS creative_id,
        argMax(r.publisher_id, (r.log_epoch, r.effect_pane, r.version)) AS publisher_id,
        argMax(r.currency, (r.log_epoch, r.effect_pane, r.version)) AS currency,
        argMax(r.cost_millimicros, (r.log_epoch, r.effect_pane, r.version)) AS cost_millimicros,
        argMax(r.evidence, (r.log_epoch, r.effect_pane, r.version)) AS evidence,
        argMax(r.reviewer, (r.log_epoch, r.effect_pane, r.version)) AS reviewer,
        argMax(r.review_reason, (r.log_epoch, r.effect_pane, r.version)) AS review_reason,
        argMax(r.decided, (r.log_epoch, r.effect_pane, r.version)) AS decided
    FROM shown_flag_rows AS r
    GROUP BY r.event, r.input, r.rule, r.review_ms
),
judged AS (
    SELECT
        l.*,
        argMax(
            (l.state, if(l.rule = 'review', l.class, '')),
            if(l.state IN ('overturned', 'confirmed'), (l.place, l.review_ms), ((0, toDateTime(0, 'UTC'), 0), -1))
        ) OVER same_event AS last,
        if(last.1 IN ('overturned', 'confirmed'), last.1, '') AS last_review,
        max(l.rule != 'review' AND l.mode = 'on' AND l.state != 'withdrawn' AND l.class = 'givt')
            OVER same_event AS is_general,
        max(l.rule != 'review' AND l.mode = 'on' AND l.state != 'withdrawn' AND l.class = 'sivt')
            OVER same_event AS is_sophisticated
    FROM latest AS l
    WINDOW same_event AS (PARTITION BY l.event, l.input, l.event_time)
)
SELECT
    j.event AS event,
    j.input AS input,
    j.rule AS rule,
    j.review_ms AS review_ms,
    j.class AS class,
    j.mode AS mode,
    j.state AS state,
    j.last_review AS review,
    multiIf(
        j.last_review = 'overturned', 'valid',
        j.is_general OR (j.last_review = 'confirmed' AND j.last.2 = 'givt'), 'givt',
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
