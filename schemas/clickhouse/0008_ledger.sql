CREATE OR REPLACE VIEW ledger
(
    log_epoch UInt32 COMMENT 'Raised by one whenever the topics were created anew.',
    input LowCardinality(String) COMMENT 'Input topic.',
    partition UInt32 COMMENT 'Partition of the input topic.',
    consumed Int64 COMMENT 'Offsets consumed.',
    counted Int64 COMMENT 'Events counted.',
    duplicate Int64 COMMENT 'Redelivered events.',
    late Int64 COMMENT 'Events beyond the lateness.',
    rejected Int64 COMMENT 'Records that were no valid event.',
    lost_retention Int64 COMMENT 'Offsets that the topic no longer held when they were to be read.',
    no_record Int64 COMMENT 'Offsets that hold no record: markers, compaction.',
    rejected_by_reason Map(String, Int64) COMMENT 'Rejected records by reason.',
    balance Int64 COMMENT 'consumed less the sum of the entries: always 0, or something was dropped silently.'
)
AS SELECT
    log_epoch, input, partition,
    sumIf(records, entry = 'consumed') AS consumed,
    sumIf(records, entry = 'counted') AS counted,
    sumIf(records, entry = 'duplicate') AS duplicate,
    sumIf(records, entry = 'late') AS late,
    sumIf(records, entry = 'rejected') AS rejected,
    sumIf(records, entry = 'lost_retention') AS lost_retention,
    sumIf(records, entry = 'no_record') AS no_record,
    mapFromArrays(
        groupArrayIf(toString(reason), entry = 'rejected'), groupArrayIf(records, entry = 'rejected')
    ) AS rejected_by_reason,
    consumed - sumIf(records, entry != 'consumed') AS balance
FROM ledger_rows FINAL
GROUP BY log_epoch, input, partition
COMMENT 'Where every consumed offset ended, by input and partition: exactly one entry each.';
