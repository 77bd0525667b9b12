"""What Prometheus sees: read from the owners when it scrapes, so that the hot path never touches a metric.

Campaigns are labelled through a capped set: the top N by today's spend (then impressions), the rest as `other`.
"""

from collections.abc import Callable, Iterator
from operator import add

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams import __version__
from streams.agents.keeper import Keeper
from streams.agents.metrics_invalid import invalid_metrics
from streams.agents.metrics_pacing import pacing_metrics
from streams.agents.metrics_risk import risk_metrics
from streams.agents.publisher import Publisher
from streams.events import Input
from streams.records import OTHER
from streams.stages.rates import wilson
from streams.state.checkpoint import FORMAT
from streams.state.owner import Owner
from streams.state.partition import TOPICS, PartitionState
from streams.state.windows import DAY, WINDOW_INDEX, WINDOW_MEASURES, WINDOWS_MS, Windows

PREFIX = "campaign_streams_"
Highwater = Callable[[str, int], int | None]
Totals = tuple[int, ...]
WINDOWS = (*WINDOWS_MS, DAY)
MONEY = {
    "spend_millimicros": ("spend_micros", "Spend on valid traffic"),
    "gross_spend_millimicros": ("gross_spend_micros", "Cost of all traffic"),
}
"""Measures that are shown in micros: their names and texts."""


class PipelineCollector(Collector):
    """All metrics of one worker."""

    def __init__(self, keeper: Keeper, publisher: Publisher, highwater: Highwater, top: int) -> None:
        self.keeper = keeper
        self.publisher = publisher
        self.highwater = highwater
        self.top = top

    def collect(self) -> Iterator[Metric]:
        """Everything, at this moment."""
        owners = list(self.keeper.owners.values())
        yield _build()
        # a state that replays its journal stands behind what was shown before: counters must not seem to begin anew
        settled = [owner for owner in owners if not owner.is_recovering]
        yield from _ledger(settled)
        yield from _of_state(settled)
        yield from self._progress(owners)
        yield from self._ages(settled)
        yield from self._latency()
        yield from self._worker(owners)
        windows = [owner.state.windows for owner in owners]
        yield from campaign_metrics(windows, self.top)
        yield from pacing_metrics([owner.state.desk for owner in owners], ranked(windows)[: self.top])
        yield from invalid_metrics(owners, self.keeper.clock.now_ms())
        yield from risk_metrics(owners)

    def _progress(self, owners: list[Owner]) -> Iterator[Metric]:
        lag = GaugeMetricFamily(PREFIX + "lag_records", "Records not applied yet.", labels=["topic", "partition"])
        delay = GaugeMetricFamily(
            PREFIX + "watermark_delay_seconds",
            "Wall time less the newest event time.",
            labels=["input", "partition"],
        )
        now_ms = self.keeper.clock.now_ms()
        for owner in owners:
            for topic in TOPICS:
                end = self.highwater(topic, owner.partition)
                if end is not None:
                    behind = max(0, end - owner.state.position(topic))
                    lag.add_metric([topic, str(owner.partition)], behind)
            for source, state in owner.state.inputs.items():
                if state.newest_ms >= 0:
                    delay.add_metric([source.value, str(owner.partition)], (now_ms - state.newest_ms) / 1000)
        yield from (lag, delay)

    def _ages(self, owners: list[Owner]) -> Iterator[Metric]:
        now_ms, labels = self.keeper.clock.now_ms(), ["partition"]
        tick = GaugeMetricFamily(PREFIX + "tick_age_seconds", "Since the last confirmed tick.", labels=labels)
        text = "Since the last checkpoint, or since the partition was opened."
        saved = GaugeMetricFamily(PREFIX + "checkpoint_age_seconds", text, labels=labels)
        for owner in owners:
            if owner.confirmed_wall_ms:
                tick.add_metric([str(owner.partition)], max(0, now_ms - owner.confirmed_wall_ms) / 1000)
            at_ms = self.keeper.checkpointed_ms.get(owner.partition, now_ms)
            saved.add_metric([str(owner.partition)], max(0, now_ms - at_ms) / 1000)
        yield from (tick, saved)

    def _latency(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            PREFIX + "visible_latency_seconds",
            "From a record's append until its row is acknowledged by ClickHouse, of the last ticks.",
            labels=["quantile"],
        )
        found = self.keeper.visible.summary()
        if found is not None:
            family.add_metric(["0.5"], found["p50"] / 1000)
            family.add_metric(["0.99"], found["p99"] / 1000)
        yield family

    def _worker(self, owners: list[Owner]) -> Iterator[Metric]:
        keeper, publisher = self.keeper, self.publisher
        gauges = {
            "partitions": (len(owners), "Partitions that this worker owns."),
            "topic_partitions": (keeper.config.partitions, "Partitions of each input: what all workers own together."),
            "partitions_recovering": (sum(o.is_recovering for o in owners), "Partitions that replay their journal."),
            "dirty_rows": (keeper.dirty_rows, "Rows that ClickHouse has not acknowledged."),
            "dirty_rows_limit": (keeper.settings.max_dirty_rows, "Intake pauses at this many dirty rows."),
            "last_tick_duration_seconds": (keeper.tick_seconds, "Propose, append, read back, release."),
            "checkpoint_interval_seconds": (keeper.config.checkpoint_ms / 1000, "Wanted time between two checkpoints."),
            "last_checkpoint_duration_seconds": (keeper.checkpoint_seconds, "Segments and manifest."),
            "last_insertion_duration_seconds": (publisher.last_seconds, "One insertion into ClickHouse."),
            "sink_up": (int(publisher.failures_in_a_row == 0), "Whether the last insertion was acknowledged."),
            "window_campaigns": (sum(len(o.state.windows) for o in owners), "Campaigns with windows in memory."),
            "paced_campaigns": (sum(len(o.state.desk.held) for o in owners), "Campaigns with settings at the desks."),
            "look_delay_seconds": (
                max((o.state.desk.overdue_ms for o in owners), default=0) / 1000,
                "How late campaigns are looked at.",
            ),
            "dedupe_ids": (_dedupe_ids(owners), "Event ids remembered."),
            "dedupe_packed_bytes": (_dedupe_bytes(owners), "Memory of the packed ids."),
        }
        for name, (value, text) in gauges.items():
            yield GaugeMetricFamily(PREFIX + name, text, value=float(value))
        counters = {
            "inserted_rows": (publisher.inserted_rows, "Rows acknowledged by ClickHouse."),
            "insertions": (publisher.insertions, "Insertions acknowledged by ClickHouse."),
            "insertion_errors": (publisher.errors, "Insertions that were not acknowledged, and tried again."),
            "outages": (keeper.outages, "Attempts that met no answer from Kafka."),
            "fenced": (keeper.fenced, "Partitions lost to another claim."),
            "corrupt_checkpoints": (keeper.corrupt_checkpoints, "Parts of checkpoints that could not be read."),
        }
        for name, (value, text) in counters.items():
            yield CounterMetricFamily(PREFIX + name, text, value=float(value))


def _build() -> Metric:
    family = GaugeMetricFamily(PREFIX + "build_info", "Version, and format of its state.", labels=["version", "format"])
    family.add_metric([__version__, str(FORMAT)], 1)
    return family


def _dedupe_ids(owners: list[Owner]) -> int:
    return sum(len(state.dedupe) for owner in owners for state in owner.state.inputs.values())


def _dedupe_bytes(owners: list[Owner]) -> int:
    return sum(state.dedupe.bytes_packed() for owner in owners for state in owner.state.inputs.values())


def _folded(state: PartitionState) -> int:
    return sum(held.panes.folded_rows + held.report.folded_rows for held in state.inputs.values())


OF_STATE: dict[str, tuple[Callable[[PartitionState], int], str]] = {
    "misrouted_campaigns": (lambda state: state.misrouted, "Campaigns seen in a wrong partition."),
    "settings_refused": (lambda state: state.campaigns.refused, "Campaign settings refused."),
    "other_key_rows": (_folded, "Keys, per fold, that went into `other` beyond the key limit."),
    "credits_unmatched": (lambda state: state.credits.unmatched, "Rejections without a billed conversion in memory."),
    "desk_untracked": (lambda state: state.desk.untracked, "Beyond the bounds of the pacing desk."),
    "windows_untracked": (lambda state: state.windows.untracked, "Additions beyond the windows."),
}
"""Counters that move with their partition. Summed by worker they would jump whenever a partition changes hands."""


def _of_state(owners: list[Owner]) -> Iterator[Metric]:
    for name, (count_of, text) in OF_STATE.items():
        family = CounterMetricFamily(PREFIX + name, text, labels=["partition"])
        for owner in owners:
            family.add_metric([str(owner.partition)], count_of(owner.state))
        yield family


def _ledger(owners: list[Owner]) -> Iterator[Metric]:
    entries = CounterMetricFamily(
        PREFIX + "ledger_records",
        "Consumed offsets by where they ended; the sum equals consumed_offsets.",
        labels=["input", "partition", "entry", "reason"],
    )
    consumed = CounterMetricFamily(PREFIX + "consumed_offsets", "Offsets consumed.", labels=["input", "partition"])
    for owner in owners:
        for source in Input:
            held, partition = owner.state.inputs[source], str(owner.partition)
            consumed.add_metric([source.value, partition], held.consumed())
            for (entry, reason), count in held.ledger.items():
                entries.add_metric([source.value, partition, entry, reason], count)
        state, partition = owner.state, str(owner.partition)
        for notice in state.notices.values():
            consumed.add_metric([notice.name, partition], notice.consumed())
            for (entry, reason), count in notice.ledger.items():
                entries.add_metric([notice.name, partition, entry, reason], count)
    yield from (entries, consumed)


def top_campaigns(windows: list[Windows], top: int) -> dict[str, dict[str, Totals]]:
    """By window: totals of the top campaigns by today's spend, then impressions; the rest summed under `other`."""
    today = _all(windows, DAY)
    order = _by_spend(today)
    found: dict[str, dict[str, Totals]] = {}
    for window in WINDOWS:
        totals = today if window == DAY else _all(windows, window)
        shares = found[window] = {campaign: totals[campaign] for campaign in order[:top]}
        rest = [totals[campaign] for campaign in (*order[top:], OTHER) if campaign in totals]
        if rest:
            shares[OTHER] = tuple(map(sum, zip(*rest, strict=True)))
    return found


def ranked(windows: list[Windows]) -> list[str]:
    """Campaigns by today's spend, then impressions."""
    return _by_spend(_all(windows, DAY))


def _by_spend(today: dict[str, Totals]) -> list[str]:
    spend, shown = WINDOW_INDEX["spend_millimicros"], WINDOW_INDEX["impressions"]
    return sorted(
        today.keys() - {OTHER}, key=lambda campaign: (-today[campaign][spend], -today[campaign][shown], campaign)
    )


def _all(windows: list[Windows], window: str) -> dict[str, Totals]:
    """Of all partitions; a campaign that stands in several (misrouted) is summed."""
    found: dict[str, Totals] = {}
    for held in windows:
        for campaign, totals in held.all_totals(window).items():
            before = found.get(campaign)
            found[campaign] = totals if before is None else tuple(map(add, before, totals))
    return found


def campaign_metrics(windows: list[Windows], top: int) -> Iterator[Metric]:
    """Counts and ratios by campaign and window; a ratio over zero has no sample."""
    labels = ["campaign", "window"]
    counts = {
        measure: GaugeMetricFamily(f"{PREFIX}campaign_{measure}", f"Sum of {measure} in the window.", labels=labels)
        for measure in WINDOW_MEASURES
        if measure not in MONEY
    }
    spends = {
        measure: GaugeMetricFamily(
            f"{PREFIX}campaign_{name}",
            f"{text}, in the campaign's currency; none for `other`, for currencies are never summed.",
            labels=labels,
        )
        for measure, (name, text) in MONEY.items()
    }
    ratios = {
        "ctr": ("clicks", "impressions", "Clicks / impressions."),
        "cvr": ("conversions", "clicks", "Conversions credited to a click / clicks, by conversion time."),
    }
    families = {
        (name, bound): GaugeMetricFamily(f"{PREFIX}campaign_{name}_{bound}", text, labels=labels)
        for name, (_, _, text) in ratios.items()
        for bound in ("ratio", "ratio_low", "ratio_high")
    }
    for window, shares in top_campaigns(windows, top).items():
        for campaign, totals in shares.items():
            for measure, family in counts.items():
                family.add_metric([campaign, window], totals[WINDOW_INDEX[measure]])
            if campaign != OTHER:
                for measure, family in spends.items():
                    family.add_metric([campaign, window], totals[WINDOW_INDEX[measure]] / 1000)
            for name, (numerator, denominator, _) in ratios.items():
                rate = wilson(totals[WINDOW_INDEX[numerator]], totals[WINDOW_INDEX[denominator]])
                if rate is not None:
                    families[name, "ratio"].add_metric([campaign, window], rate.value)
                    families[name, "ratio_low"].add_metric([campaign, window], rate.low)
                    families[name, "ratio_high"].add_metric([campaign, window], rate.high)
    yield from (*counts.values(), *spends.values(), *families.values())
