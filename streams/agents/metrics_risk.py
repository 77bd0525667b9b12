"""What Prometheus sees of publishers' risk: the riskiest by name, the others as counts. Internal, as all metrics are.

Labels are bounded: at most `TOP` publishers a worker, and an enum of reasons. Read when it scrapes; gauges of the
assessment that stands, so partitions that replay their journal are shown as they are.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from streams.stages.invalid.peer_risk import Unscored
from streams.stages.invalid.sources import SourceDesk
from streams.state.owner import Owner

PREFIX = "campaign_streams_"
TOP: Final = 20
"""Publishers with a label of their own: the riskiest."""


def risk_metrics(owners: Sequence[Owner]) -> Iterator[Metric]:
    """Everything, at this moment."""
    desks = [owner.state.judging.sources for owner in owners]
    riskiest = GaugeMetricFamily(
        PREFIX + "publisher_risk",
        f"Risk score, 0 to 1, of the {TOP} riskiest publishers: for reviewers, no verdict.",
        labels=["publisher"],
    )
    for publisher, score in top_risks(desks, TOP):
        riskiest.add_metric([publisher], score)
    yield riskiest
    reasons = Counter(risk.unscored or "" for desk in desks for risk in desk.assessment.risks)
    scored = float(reasons.pop("", 0))
    yield GaugeMetricFamily(PREFIX + "risk_publishers_scored", "Publishers that have a risk score.", value=scored)
    unscored = GaugeMetricFamily(
        PREFIX + "risk_publishers_unscored",
        "Publishers that were looked at and have none: they are unverifiable.",
        labels=["reason"],
    )
    for reason in Unscored:
        unscored.add_metric([reason.value], reasons[reason])
    yield unscored
    yield GaugeMetricFamily(
        PREFIX + "risk_publishers_beyond",
        "Publishers beyond the bound of those that are looked at; their clicks are one row, `other`.",
        value=float(sum(desk.assessment.beyond for desk in desks)),
    )


def top_risks(desks: Sequence[SourceDesk], count: int) -> list[tuple[str, float]]:
    """The riskiest publishers, highest first; one that several desks know by its highest score."""
    found: dict[str, float] = {}
    for desk in desks:
        for risk in desk.assessment.risks:
            if risk.score is not None:
                name = desk.name_of(risk.source)
                found[name] = max(found.get(name, 0.0), risk.score)
    return sorted(found.items(), key=lambda each: (-each[1], each[0]))[:count]
