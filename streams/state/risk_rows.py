"""Rows of publisher_risk_rows, without their version: in the order of `streams.records.COLUMNS`."""

from collections.abc import Callable, Iterator
from typing import Final

from streams.records import OTHER, Row
from streams.stages.invalid.peer_risk import BASE, HOUR_MS, Assessment, PeerRisk

FOLDED: Final = "folded"
"""Why the sum of the publishers beyond the bound has no score."""


def risk_rows(log_epoch: int, partition: int, found: Assessment, name_of: Callable[[int], str]) -> Iterator[Row]:
    """One row a publisher and clock hour of event time, which the hour's last step fills; and one for the rest."""
    hour = (found.to_ms - 1) // HOUR_MS * HOUR_MS // 1000
    span = (found.from_ms // 1000, found.to_ms // 1000)
    for risk in found.risks:
        head = (log_epoch, partition, name_of(risk.source), hour, *span)
        yield (*head, 1, *_counts(risk), found.peers, risk.score, BASE, risk.unscored or "", *_parts(risk))
    if found.beyond:
        head = (log_epoch, partition, OTHER, hour, *span)
        yield (
            *head,
            found.beyond,
            found.beyond_clicks,
            0,
            0,
            0,
            0,
            found.peers,
            None,
            BASE,
            FOLDED,
            [],
            [],
            [],
            [],
            [],
        )


def _counts(risk: PeerRisk) -> tuple[int, ...]:
    return (risk.clicks, risk.conversions, risk.users, risk.addresses, risk.agents)


def _parts(risk: PeerRisk) -> tuple[list[str] | list[float], ...]:
    """Columns of equal length, the part that weighs most first."""
    parts = sorted(risk.parts, key=lambda part: (-part.log_odds, -part.deviation, part.trait))
    return (
        [part.trait.value for part in parts],
        [part.seen for part in parts],
        [part.typical for part in parts],
        [part.deviation for part in parts],
        [part.log_odds for part in parts],
    )
