"""What Prometheus sees of pacing and alerts: the top campaigns' figures, and alerts by kind. Read when it scrapes."""

from collections.abc import Collection, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from streams.stages.pacing.facts import Decision
from streams.state.pacing import PacingDesk
from streams.terms import AlertKind

PREFIX = "campaign_streams_"
FIGURES = {
    "pacing_rate_ratio": "Pass-through rate, 0 to 1.",
    "pacing_budget_micros": "What the period may spend, in the campaign's currency.",
    "pacing_target_micros": "What should be spent by now according to the plan.",
    "pacing_spend_micros": "Spent in the period, less what was given back.",
    "pacing_credited_micros": "Given back of the period's spend.",
    "pacing_in_flight_micros": "Expected cost of what was served and may still be billed.",
    "pacing_forecast_micros": "Spend expected at the period's end; no sample: nothing to go by.",
}


def pacing_metrics(desks: list[PacingDesk], top: Collection[str]) -> Iterator[Metric]:
    """Figures of the campaigns in `top` that are paced, and alerts of all campaigns by kind."""
    families = {
        name: GaugeMetricFamily(f"{PREFIX}campaign_{name}", text, labels=["campaign"]) for name, text in FIGURES.items()
    }
    for desk in desks:
        for campaign, held in desk.held.items():
            if campaign in top and held.decision is not None:
                for name, value in _figures(held.decision).items():
                    families[f"pacing_{name}"].add_metric([campaign], value)
    yield from families.values()
    firing = GaugeMetricFamily(PREFIX + "alerts_firing", "Alerts that fire now.", labels=["kind"])
    told = CounterMetricFamily(PREFIX + "alerts", "Changes in the lives of alerts.", labels=["kind", "state"])
    counts: dict[tuple[str, str], int] = {}
    for desk in desks:
        for change, count in desk.told.items():
            counts[change] = counts.get(change, 0) + count
    for kind in AlertKind:
        firing.add_metric([kind.value], sum(a.kind is kind for desk in desks for a in desk.firing.values()))
    for (kind_name, state), count in sorted(counts.items()):
        told.add_metric([kind_name, state], count)
    yield from (firing, told)


def _figures(decision: Decision) -> dict[str, float]:
    found = {
        "rate_ratio": decision.rate,
        "budget_micros": decision.budget_micros,
        "target_micros": decision.target_micros,
        "spend_micros": decision.spend.valid / 1000,
        "credited_micros": decision.spend.credited / 1000,
        "in_flight_micros": decision.in_flight_millimicros / 1000,
    }
    return found if decision.forecast is None else {**found, "forecast_micros": decision.forecast.spend_micros}
