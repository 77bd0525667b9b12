"""Pipeline health, the second half: ledger, state and checkpoints, and whether people are told."""

from grafana.frame import Section
from grafana.house import COUNT, SECONDS, About, Level, column, falling_short, graph, rows, too_much
from grafana.sources import prom, sql_table

PREFIX = "campaign_streams_"
HERE = 'instance=~"${instance:regex}"'

LEDGER_SQL = """\
SELECT
    log_epoch, input, partition, consumed, counted, duplicate, late, rejected, lost_retention, no_record, balance
FROM ledger
ORDER BY balance != 0 DESC, log_epoch DESC, input, partition LIMIT 1000"""


def ledger() -> Section:
    """Where every offset ended."""
    table = rows(
        About(
            22,
            "The ledger in ClickHouse",
            "Of each input and partition: offsets consumed, and the entries in which they ended. balance is the "
            "difference, always 0.",
            "A balance that is not 0 stays on top: keep the topics, and see RUNBOOK, LedgerOutOfBalance.",
            COUNT,
        ),
        sql_table(LEDGER_SQL),
        width=24,
    )
    column(table, "balance", steps=("red", Level(0, "green"), Level(1, "red")))
    column(table, "lost_retention", steps=too_much(1, 1))
    return Section(
        "Ledger",
        graph(
            About(
                20,
                "Imbalance by input and partition",
                "Offsets consumed less the sum of the ledger's entries: always 0, at every moment.",
                "Anything but 0 is a mistake in counting: RUNBOOK, LedgerOutOfBalance.",
                COUNT,
                too_much(1, 1),
            ),
            prom("input_partition:campaign_streams_ledger_imbalance:offsets", "{{input}}-{{partition}}"),
        ),
        graph(
            About(
                21,
                "Where records end",
                "Records each second by entry of the ledger: counted, duplicate, late, rejected, lost_retention, "
                "no_record.",
                "lost_retention above 0: topics are kept too short. RUNBOOK, RecordsLostToRetention. A burst of "
                "duplicates: a producer sends again.",
                "reqps",
            ),
            prom(f"sum by (entry) (rate({PREFIX}ledger_records_total{{{HERE}}}[$__rate_interval]))", "{{entry}}"),
            stacks=True,
        ),
        table,
    )


def state() -> Section:
    """What a worker holds, and how it is kept."""
    bounded = ("other_key_rows", "windows_untracked", "desk_untracked", "settings_refused", "misrouted_campaigns")
    faults = ("fenced", "outages", "corrupt_checkpoints")
    return Section(
        "State and checkpoints",
        graph(
            About(
                40,
                "Age of checkpoints",
                "Since the last checkpoint, of each worker's slowest partition.",
                "Many times the interval: a restart would replay that long. RUNBOOK, CheckpointTooOld.",
                SECONDS,
                too_much(30, 85),
            ),
            prom(f"max by (instance) ({PREFIX}checkpoint_age_seconds{{{HERE}}})", "{{instance}}", "A"),
            prom(f"{PREFIX}checkpoint_interval_seconds{{{HERE}}}", "wanted {{instance}}", "B"),
            width=8,
        ),
        graph(
            About(
                41,
                "Age of ticks",
                "Since the last confirmed tick, of each worker's slowest partition.",
                "Above 60 s: RUNBOOK, TicksStalled.",
                SECONDS,
                too_much(10, 60),
            ),
            prom(f"max by (instance) ({PREFIX}tick_age_seconds{{{HERE}}})", "{{instance}}"),
            width=8,
        ),
        graph(
            About(
                42,
                "Claims lost, Kafka away, checkpoints corrupt",
                "In an hour: partitions lost to another claim, attempts that Kafka did not answer, and parts of "
                "checkpoints that could not be read.",
                "RUNBOOK, PartitionsFenced, KafkaUnreachable, CheckpointCorrupt.",
                COUNT,
                too_much(1, 10),
            ),
            *(
                prom(f"sum(increase({PREFIX}{name}_total{{{HERE}}}[1h]))", name, letter)
                for name, letter in zip(faults, "ABC", strict=True)
            ),
            width=8,
        ),
        graph(
            About(
                43,
                "Memory of the process",
                "Resident memory of each worker, and of it the packed event ids.",
                "Near the container's limit: RUNBOOK, sizing. More workers share the partitions out.",
                "bytes",
                too_much(2e9, 8e9),
            ),
            prom(f'process_resident_memory_bytes{{job="campaign-streams", {HERE}}}', "{{instance}}", "A"),
            prom(f"{PREFIX}dedupe_packed_bytes{{{HERE}}}", "ids {{instance}}", "B"),
            width=8,
        ),
        graph(
            About(
                44,
                "What is remembered",
                "Event ids, campaigns with windows, and campaigns at the pacing desks, by worker.",
                "Ids grow with traffic and the memory of duplicates (rules.horizons): weigh one against the other.",
                COUNT,
            ),
            prom(f"{PREFIX}dedupe_ids{{{HERE}}}", "ids {{instance}}", "A"),
            prom(f"{PREFIX}window_campaigns{{{HERE}}}", "with windows {{instance}}", "B"),
            prom(f"{PREFIX}paced_campaigns{{{HERE}}}", "paced {{instance}}", "C"),
            width=8,
        ),
        graph(
            About(
                45,
                "Beyond a bound, refused, or in a wrong place",
                "In an hour: keys folded into `other`, additions beyond the windows or the pacing desks, settings "
                "refused, campaigns in a wrong partition.",
                "misrouted_campaigns: a producer uses another partitioner. RUNBOOK, MisroutedCampaigns, KeysFolded, "
                "SettingsRefused, CampaignsUntracked.",
                COUNT,
                too_much(1, 1_000),
            ),
            *(
                prom(f"sum(increase({PREFIX}{name}_total{{{HERE}}}[1h]))", name, letter)
                for name, letter in zip(bounded, "ABCDE", strict=True)
            ),
            width=8,
        ),
        graph(
            About(
                46,
                "Starts in 15 minutes",
                "How often each worker's process has begun anew.",
                "Three or more: it dies; its log says why. RUNBOOK, WorkerRestarting.",
                COUNT,
                too_much(1, 3),
            ),
            prom(f'changes(process_start_time_seconds{{job="campaign-streams", {HERE}}}[15m])', "{{instance}}"),
        ),
        graph(
            About(
                47,
                "Workers by version and format of state",
                "How many workers run each version, and the format of its state.",
                "Two formats for longer than an upgrade takes: RUNBOOK, MixedStateFormats.",
                COUNT,
            ),
            prom(f"count by (version, format) ({PREFIX}build_info{{{HERE}}})", "{{version}}, format {{format}}"),
        ),
    )


def delivery() -> Section:
    """Alerts of campaigns on their way to people, and allowances."""
    return Section(
        "Alerts, delivery, allowances",
        graph(
            About(
                50,
                "Alerts that fire, by kind",
                "Alerts of campaigns that fire now, over all workers.",
                "Many of one kind at once have one cause: look for a silent input or an outage first.",
                COUNT,
                too_much(10, 100),
            ),
            prom("sum by (kind) (campaign_streams_alerts_firing)", "{{kind}}"),
            width=6,
        ),
        graph(
            About(
                51,
                "Processes that deliver",
                "Processes that deliver alerts: 1. Kafka gives the work to one.",
                "0 where routes are set: nobody is told. RUNBOOK, NobodyDelivers.",
                COUNT,
                falling_short(1, 1),
            ),
            prom("sum(campaign_streams_delivery_owner)", "owners"),
            width=4,
        ),
        graph(
            About(
                52,
                "Messages that wait, and circuits that are open",
                "Messages composed and not delivered, alerts untold or held back by the cap, and receivers that are "
                "left in peace (1), by route.",
                "RUNBOOK, DeliveryQueueLong, DeliveryCircuitOpen.",
                COUNT,
                too_much(1, 10),
            ),
            prom("campaign_streams_delivery_queued_messages", "queued {{route}}", "A"),
            prom("campaign_streams_delivery_circuit_open", "open {{route}}", "B"),
            prom("campaign_streams_delivery_pending_alerts", "untold {{route}}", "C"),
            prom("campaign_streams_delivery_held_alerts", "held by the cap {{route}}", "D"),
            width=7,
        ),
        graph(
            About(
                56,
                "Messages by what became of them",
                "Messages in an hour by route: delivered, failed for good, or only logged (dry_run).",
                "failed: the receiver refuses for good; its address or secret is wrong. RUNBOOK, DeliveryRefused.",
                COUNT,
            ),
            prom(
                "sum by (route, outcome) (increase(campaign_streams_delivery_messages_total[1h]))",
                "{{route}} {{outcome}}",
            ),
            width=7,
        ),
        graph(
            About(
                53,
                "What delivery did other than telling",
                "Alerts in an hour that were repeated, too old, without a route, and the like.",
                "without_route or unknown_routes: the settings name no receiver for them.",
                COUNT,
                too_much(1, 100),
            ),
            prom("sum by (event) (increase(campaign_streams_delivery_alerts_total[1h]))", "{{event}}", "A"),
            prom("sum(increase(campaign_streams_delivery_internal_errors_total[1h]))", "internal errors", "B"),
            width=8,
        ),
        graph(
            About(
                54,
                "Allowances that wait",
                "Allowances of balances and shared budgets that Kafka has not taken.",
                "Above 0 for two minutes: RUNBOOK, AllowancesWaiting.",
                COUNT,
                too_much(1, 100),
            ),
            prom(f"{PREFIX}pools_waiting_allowances{{{HERE}}}", "{{instance}}"),
            width=8,
        ),
        graph(
            About(
                55,
                "Spend reports of shared budgets",
                "Reports in an hour by outcome: taken, or why not.",
                "Refusals grow: campaigns name a pool or an account that is not there.",
                COUNT,
            ),
            prom("sum by (outcome) (increase(campaign_streams_pools_reports_total[1h]))", "{{outcome}}"),
            width=8,
        ),
    )
