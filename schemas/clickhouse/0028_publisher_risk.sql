-- A publisher's risk as the stream shows it (streams.stages.invalid.peer_risk): how far its clicks differ from its
-- peers', trait by trait. Internal, for reviewers: a score is no verdict, flags nothing and moves no money.
--
-- One row for each publisher, partition of the source stage and clock hour of event time: the last step of an hour
-- wins. Every statement can be run again.

CREATE TABLE IF NOT EXISTS publisher_risk_rows
(
    log_epoch UInt32 COMMENT 'Raised by one whenever the topics were created anew.',
    partition UInt32 COMMENT 'Partition of the source stage: the publishers of one channel meet in one.',
    publisher_id String COMMENT 'Publisher; `other`: those beyond the bound, folded.',
    hour DateTime('UTC') COMMENT 'Clock hour of event time, UTC: the last step of an hour wins.',
    weighed_from DateTime('UTC') COMMENT 'Clicks are weighed from here, UTC: a day, or as far as they are held.',
    weighed_to DateTime('UTC') COMMENT 'To here, UTC; not included.',
    publishers UInt32 COMMENT '1; of `other` as many as are folded into it.',
    clicks UInt64 COMMENT 'Clicks that were weighed.',
    conversions UInt64 COMMENT 'Of them converted within a day.',
    distinct_users UInt64 COMMENT 'Distinct users, or devices where the user is not known.',
    distinct_addresses UInt64 COMMENT 'Distinct client addresses, or networks.',
    distinct_agents UInt64 COMMENT 'Distinct user agents.',
    peers UInt32 COMMENT 'Publishers that had enough clicks to be compared.',
    score Nullable(Float64) COMMENT 'Risk, 0 to 1: logistic(base_log_odds + sum of log_odds). NULL: unverifiable.',
    base_log_odds Float64 COMMENT 'Log-odds of a publisher at which nothing stands out.',
    unscored LowCardinality(String) COMMENT 'Why there is no score: few_clicks, few_peers, few_traits, folded.',
    traits Array(LowCardinality(String)) COMMENT 'What was compared, what weighs most first; the next four in its order.',
    seen_shares Array(Float64) COMMENT 'Share that was seen at this publisher.',
    typical_shares Array(Float64) COMMENT 'Median share of its peers.',
    deviations Array(Float64) COMMENT 'How far it lies towards risk, in deviations of the peers.',
    log_odds Array(Float64) COMMENT 'What that adds to the log-odds of the score.',
    version UInt64 COMMENT 'Place of the tick in the journal, with its epoch: the highest version of a key wins.',
    written_at DateTime('UTC') MATERIALIZED now() COMMENT 'When this row was inserted, UTC. Retention counts from here.'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (publisher_id, hour, log_epoch, partition)
TTL written_at + INTERVAL 100 DAY
COMMENT 'How far the clicks of each publisher differ from its peers’, by hour. Internal. Kept 100 days.';

CREATE OR REPLACE VIEW publisher_risk
(
    publisher_id String COMMENT 'Publisher; `other`: those beyond the bound, folded.',
    partition UInt32 COMMENT 'Partition of the source stage: a publisher of several channels may stand in several.',
    weighed_from DateTime('UTC') COMMENT 'Clicks are weighed from here, UTC.',
    weighed_to DateTime('UTC') COMMENT 'To here, UTC; not included.',
    publishers UInt32 COMMENT '1; of `other` as many as are folded into it.',
    clicks UInt64 COMMENT 'Clicks that were weighed.',
    conversions UInt64 COMMENT 'Of them converted within a day.',
    distinct_users UInt64 COMMENT 'Distinct users, or devices where the user is not known.',
    distinct_addresses UInt64 COMMENT 'Distinct client addresses, or networks.',
    distinct_agents UInt64 COMMENT 'Distinct user agents.',
    peers UInt32 COMMENT 'Publishers that had enough clicks to be compared.',
    score Nullable(Float64) COMMENT 'Risk, 0 to 1, at its latest step. NULL: unverifiable.',
    base_log_odds Float64 COMMENT 'Log-odds of a publisher at which nothing stands out.',
    unscored String COMMENT 'Why there is no score: few_clicks, few_peers, few_traits, folded; empty where there is one.',
    traits Array(LowCardinality(String)) COMMENT 'What was compared, what weighs most first; the next four in its order.',
    seen_shares Array(Float64) COMMENT 'Share that was seen at this publisher.',
    typical_shares Array(Float64) COMMENT 'Median share of its peers.',
    deviations Array(Float64) COMMENT 'How far it lies towards risk, in deviations of the peers.',
    log_odds Array(Float64) COMMENT 'What that adds to the log-odds of the score.',
    why String COMMENT 'The parts that raise the score, the largest first: trait +log-odds.'
)
AS WITH
latest AS (
    SELECT
        r.publisher_id AS publisher_id,
        r.partition AS partition,
        argMax(
            tuple(
                r.weighed_from, r.weighed_to, r.publishers, r.clicks, r.conversions, r.distinct_users,
                r.distinct_addresses, r.distinct_agents, r.peers, r.score, r.base_log_odds, r.unscored, r.traits,
                r.seen_shares, r.typical_shares, r.deviations, r.log_odds
            ),
            (r.log_epoch, r.hour, r.version)
        ) AS of
    FROM publisher_risk_rows AS r FINAL
    GROUP BY r.publisher_id, r.partition
)
SELECT
    l.publisher_id AS publisher_id,
    l.partition AS partition,
    l.of.1 AS weighed_from,
    l.of.2 AS weighed_to,
    l.of.3 AS publishers,
    l.of.4 AS clicks,
    l.of.5 AS conversions,
    l.of.6 AS distinct_users,
    l.of.7 AS distinct_addresses,
    l.of.8 AS distinct_agents,
    l.of.9 AS peers,
    l.of.10 AS score,
    l.of.11 AS base_log_odds,
    toString(l.of.12) AS unscored,
    l.of.13 AS traits,
    l.of.14 AS seen_shares,
    l.of.15 AS typical_shares,
    l.of.16 AS deviations,
    l.of.17 AS log_odds,
    arrayStringConcat(
        arrayMap(
            (trait, odds) -> concat(trait, ' +', toString(round(odds, 2))),
            arrayFilter((trait, odds) -> odds > 0, l.of.13, l.of.17),
            arrayFilter(odds -> odds > 0, l.of.17)
        ),
        ', '
    ) AS why
FROM latest AS l
COMMENT 'Each publisher’s latest risk, with its parts. Internal, for reviewers: no verdict.';
