"""What Prometheus sees of invalid traffic: flags by rule, words that came too late, and what is held to judge by.

Read when it scrapes. Labels are bounded: rules, states and inputs are enums. Counters move with their partition, so
they are labelled by it, and those of a partition that replays its journal are left out: they would seem to begin anew.
"""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from streams.state.judging import JudgingDesk
from streams.state.owner import Owner

PREFIX = "campaign_streams_"
OF_DESK: dict[str, tuple[Callable[[JudgingDesk], int], str]] = {
    "flags_untold": (lambda desk: desk.book.untold, "Flags beyond a tick's bound: counted, and not told one by one."),
    "words_unmatched": (lambda desk: desk.book.unmatched, "Late words on events that are not remembered."),
    "words_beyond": (lambda desk: desk.book.beyond, "Late words that no room was left for."),
    "source_clicks_forgotten": (
        lambda desk: desk.sources.figures().forgotten,
        "Sources' clicks gone for want of room.",
    ),
    "source_clicks_ignored": (lambda desk: desk.sources.figures().ignored, "Sources' clicks that came too late."),
}


def invalid_metrics(owners: Sequence[Owner], now_ms: int) -> Iterator[Metric]:
    """Everything, at this moment (wall time, epoch ms)."""
    settled = [owner for owner in owners if not owner.is_recovering]
    yield _flags(settled)
    yield from _counters(settled)
    yield from _memory(owners)
    yield from _sources(owners, now_ms)


def _flags(owners: Sequence[Owner]) -> Metric:
    text = "Changes in the lives of flags: raised, withdrawn, overturned, confirmed."
    family = CounterMetricFamily(PREFIX + "flags", text, labels=["partition", "rule", "state"])
    for owner in owners:
        for (rule, state), count in sorted(owner.state.judging.book.told.items()):
            family.add_metric([str(owner.partition), rule, state], count)
    return family


def _counters(owners: Sequence[Owner]) -> Iterator[Metric]:
    for name, (count_of, text) in OF_DESK.items():
        family = CounterMetricFamily(PREFIX + name, text, labels=["partition"])
        for owner in owners:
            family.add_metric([str(owner.partition)], count_of(owner.state.judging))
        yield family
    unverifiable = CounterMetricFamily(
        PREFIX + "touches_unverifiable",
        "Events whose impression or click nobody can tell of: it is older than what is remembered.",
        labels=["partition", "input"],
    )
    for owner in owners:
        for source, touches in owner.state.judging.touches.items():
            unverifiable.add_metric([str(owner.partition), source.value], touches.unverifiable)
    yield unverifiable


def _memory(owners: Sequence[Owner]) -> Iterator[Metric]:
    text = "Events that late words can still reach."
    events = GaugeMetricFamily(PREFIX + "recent_events", text, labels=["input"])
    packed = GaugeMetricFamily(PREFIX + "recent_packed_bytes", "Memory of those that are packed.", labels=["input"])
    counts: dict[str, tuple[int, int]] = {}
    for owner in owners:
        for source, state in owner.state.inputs.items():
            held, size = counts.get(source.value, (0, 0))
            recent = state.traces.recent
            counts[source.value] = (held + len(recent), size + recent.bytes_held())
    for name, (held, size) in counts.items():
        events.add_metric([name], held)
        packed.add_metric([name], size)
    worded = sum(len(owner.state.judging.book) for owner in owners)
    yield from (events, packed)
    yield GaugeMetricFamily(PREFIX + "worded_events", "Events that a late word is held about.", value=float(worded))


def _sources(owners: Sequence[Owner], now_ms: int) -> Iterator[Metric]:
    """The source stage: what it holds, and how far behind it decides."""
    figures = {owner.partition: owner.state.judging.sources.figures() for owner in owners}
    gauges = {
        "source_clicks": (sum(each.entries for each in figures.values()), "Clicks held by their sources."),
        "source_clicks_waiting": (
            sum(each.waiting for each in figures.values()),
            "Sources' clicks that the watermark has not reached.",
        ),
        "source_clicks_bytes": (sum(each.bytes for each in figures.values()), "Memory of what sources hold."),
        "source_flagged_clicks": (sum(each.told for each in figures.values()), "Flagged clicks that are remembered."),
    }
    for name, (value, text) in gauges.items():
        yield GaugeMetricFamily(PREFIX + name, text, value=float(value))
    delay = GaugeMetricFamily(
        PREFIX + "source_watermark_delay_seconds",
        "Wall time less the event time up to which sources are decided on.",
        labels=["partition"],
    )
    for partition, each in figures.items():
        if each.watermark_ms >= 0:
            delay.add_metric([str(partition)], (now_ms - each.watermark_ms) / 1000)
    yield delay
