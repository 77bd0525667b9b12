"""Pipeline health: whether every record is counted, how soon, and whether what is counted gets out."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import frame, places
from grafana.frame import Section
from grafana.health_state import delivery, ledger, state
from grafana.house import COUNT, PLAIN, SECONDS, SHARE, About, falling_short, graph, number, too_much
from grafana.places import WATERMARK
from grafana.sources import prom, prom_now

PREFIX = "campaign_streams_"
HERE = 'instance=~"${instance:regex}"'
PER_S = "reqps"


def overview() -> Section:
    """One look: is anything wrong?"""
    return Section(
        "Now",
        number(
            About(
                1,
                "Workers that answer",
                "Workers that Prometheus reaches now.",
                "Fewer than there should be: RUNBOOK, WorkerDown. 0: nothing is counted.",
                COUNT,
                falling_short(1, 1),
            ),
            prom_now('sum(up{job="campaign-streams"})', "workers"),
            width=3,
        ),
        number(
            About(
                2,
                "Partitions without owner",
                "Partitions of the inputs less those that workers own.",
                "Above 0 for two minutes: RUNBOOK, PartitionsUnowned. For seconds it is a rebalance.",
                COUNT,
                too_much(1, 1),
            ),
            prom_now("sum(job:campaign_streams_partitions_missing:count)", "missing"),
            width=3,
        ),
        number(
            About(
                3,
                "Ledger imbalance",
                "The largest difference between offsets consumed and the sum of the ledger's entries: always 0.",
                "Anything but 0: a record was dropped or counted twice. RUNBOOK, LedgerOutOfBalance.",
                COUNT,
                too_much(1, 1),
            ),
            prom_now("max(abs(input_partition:campaign_streams_ledger_imbalance:offsets))", "imbalance"),
            width=3,
        ),
        number(
            About(
                4,
                "Lag",
                "Records of all topics that have not been applied yet.",
                "More than the workers count in a minute: RUNBOOK, ConsumerLagHigh.",
                COUNT,
                too_much(100_000, 1_000_000),
            ),
            prom_now(f"sum({PREFIX}lag_records{{{HERE}}})", "records"),
            width=3,
        ),
        number(
            About(
                5,
                "Visible after (p99)",
                "From a record's append to Kafka until its row is acknowledged by ClickHouse: the slowest worker.",
                "Above 10 s: RUNBOOK, NumbersSlow. Look at insertions, then at the tick.",
                SECONDS,
                too_much(5, 10),
            ),
            prom_now(f'max({PREFIX}visible_latency_seconds{{{HERE}, quantile="0.99"}})', "p99"),
            width=3,
        ),
        number(
            About(
                6,
                "Workers that ClickHouse serves",
                "The share of workers whose last insertion was acknowledged.",
                "Below 100 %: nothing is lost, numbers stand still. RUNBOOK, SinkDown.",
                SHARE,
                falling_short(0.5, 1),
            ),
            prom_now(f"avg({PREFIX}sink_up{{{HERE}}})", "up"),
            width=3,
        ),
        number(
            About(
                7,
                "Partitions recovering",
                "Partitions that replay their journal after a start or a change of owner.",
                "Above 0 for ten minutes: RUNBOOK, RecoveryTooLong.",
                COUNT,
                too_much(1, 100),
            ),
            prom_now(f"sum({PREFIX}partitions_recovering{{{HERE}}})", "partitions"),
            width=3,
        ),
        number(
            About(
                8,
                "Oldest tick",
                "Since the last tick that was written and read back, of the slowest partition.",
                "Above 60 s: Kafka does not take the journal. RUNBOOK, TicksStalled.",
                SECONDS,
                too_much(10, 60),
            ),
            prom_now(f"max({PREFIX}tick_age_seconds{{{HERE}}})", "age"),
            width=3,
        ),
    )


def intake() -> Section:
    """From Kafka."""
    return Section(
        "Intake",
        graph(
            About(
                10,
                "Consumed",
                "Offsets consumed each second, by input.",
                "A fall to 0 in one input only: ask its producer. RUNBOOK, InputSilent.",
                PER_S,
            ),
            prom("input:campaign_streams_consumed_offsets:rate5m", "{{input}}"),
            width=8,
        ),
        graph(
            About(
                11,
                "Lag by input",
                "Records of each input that wait to be counted.",
                "It grows for minutes: add workers, up to the number of partitions. RUNBOOK, ConsumerLagGrowing.",
                COUNT,
                too_much(100_000, 1_000_000),
            ),
            prom("input:campaign_streams_lag:records", "{{input}}"),
            width=8,
        ),
        graph(
            About(
                12,
                "Time to catch up",
                "Lag over the rate of the last 5 minutes: how long it would take if nothing new came.",
                "Above a minute for long: the workers are too slow for this traffic.",
                SECONDS,
                too_much(30, 60),
            ),
            prom("input:campaign_streams_lag:seconds", "{{input}}"),
            width=8,
        ),
        graph(
            About(
                13,
                "Lag by topic and partition",
                "The same by partition, the ten largest.",
                "One partition only: one campaign is too large for it, or its owner is slow.",
                COUNT,
                too_much(100_000, 1_000_000),
            ),
            prom(f"topk(10, sum by (topic, partition) ({PREFIX}lag_records{{{HERE}}}))", "{{topic}}-{{partition}}"),
            width=8,
        ),
        graph(
            About(
                WATERMARK,
                "Watermark delay",
                "Wall time less the newest event time of each input: the least delayed partition. "
                "An input that is silent grows by a second each second; loaded history is as old as it is.",
                "It grows although records wait: RUNBOOK, WatermarkStalled. Without records: the input is silent.",
                SECONDS,
                too_much(60, 540),
            ),
            prom(f"min by (input) ({PREFIX}watermark_delay_seconds{{{HERE}}})", "{{input}}"),
            width=8,
        ),
        graph(
            About(
                15,
                "Rejected and late",
                "Records each second that became dead letters, by input and reason.",
                "Above 1 %: `campaign-streams dead-letters list` shows them; mend the producer, then redrive. RUNBOOK, "
                "DeadLettersRising.",
                PER_S,
                too_much(0.1, 10),
            ),
            prom("input_reason:campaign_streams_dead_letters:rate5m", "{{input}} {{entry}} {{reason}}"),
            width=8,
        ),
    )


def latency() -> Section:
    """How old a number is, part by part."""
    return Section(
        "Latency and sinks",
        graph(
            About(
                30,
                "Visible after",
                "From a record's append until its row is acknowledged by ClickHouse, of the last ticks, by worker.",
                "p99 above 10 s: RUNBOOK, NumbersSlow.",
                SECONDS,
                too_much(5, 10),
            ),
            prom(f"{PREFIX}visible_latency_seconds{{{HERE}}}", "{{instance}} p{{quantile}}"),
            width=8,
        ),
        graph(
            About(
                31,
                "Tick, checkpoint, insertion",
                "How long the last of each took, by worker. A tick is proposed, appended, read back and released.",
                "Slow ticks and checkpoints: Kafka. Slow insertions: ClickHouse.",
                SECONDS,
                too_much(1, 5),
            ),
            prom(f"{PREFIX}last_tick_duration_seconds{{{HERE}}}", "tick {{instance}}", "A"),
            prom(f"{PREFIX}last_checkpoint_duration_seconds{{{HERE}}}", "checkpoint {{instance}}", "B"),
            prom(f"{PREFIX}last_insertion_duration_seconds{{{HERE}}}", "insertion {{instance}}", "C"),
            width=8,
        ),
        graph(
            About(
                32,
                "Pacing looks late by",
                "How late campaigns are looked at, by worker: the age of its controls.",
                "Above 15 s: RUNBOOK, PacingBehind.",
                SECONDS,
                too_much(5, 15),
            ),
            prom(f"{PREFIX}look_delay_seconds{{{HERE}}}", "{{instance}}"),
            width=8,
        ),
        graph(
            About(
                33,
                "Rows inserted",
                "Rows that ClickHouse acknowledged each second, by worker.",
                "0 while records are consumed: see the panel beside it.",
                PER_S,
                PLAIN,
            ),
            prom("instance:campaign_streams_inserted_rows:rate5m", "{{instance}}"),
            width=8,
        ),
        graph(
            About(
                34,
                "Rows that wait for ClickHouse",
                "Rows not yet acknowledged over the most that may wait; at 100 % intake pauses.",
                "Above 50 %: RUNBOOK, DirtyRowsHigh. 100 %: IntakePaused.",
                SHARE,
                too_much(0.5, 1),
            ),
            prom("instance:campaign_streams_dirty_rows:ratio", "{{instance}}"),
            width=8,
        ),
        graph(
            About(
                35,
                "Insertions that failed, and ClickHouse away",
                "Insertions a minute that ClickHouse did not acknowledge (each is tried again), and 1 for each worker "
                "whose last one was not.",
                "Above 0 for long: RUNBOOK, SinkDown. The worker's log has ClickHouse's words.",
                COUNT,
                too_much(1, 10),
            ),
            prom(f"60 * rate({PREFIX}insertion_errors_total{{{HERE}}}[$__rate_interval])", "{{instance}}", "A"),
            prom(f"1 - {PREFIX}sink_up{{{HERE}}}", "away {{instance}}", "B"),
            width=8,
        ),
    )


def build() -> Dashboard:
    """The dashboard."""
    return frame.page(
        places.HEALTH,
        "Pipeline health",
        "Lag, watermark, the ledger's balance, latency, checkpoints, sinks, state and delivery. "
        "Each alert of deploy/RUNBOOK.md leads here.",
        [frame.prometheus_variable("instance", "Worker", "campaign_streams_partitions")],
        frame.of_pipeline(),
        [overview(), intake(), ledger(), latency(), state(), delivery()],
        since="now-1h",
    )
