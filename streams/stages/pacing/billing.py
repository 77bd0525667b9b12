"""What a billing model means for pacing: which event carries the spend, how late it comes, and what one costs.

The **carrier** is the event that comes at once and in numbers and that billable events follow: an impression, or for
CPA a click. Delays are mixtures of exponential distributions, so what is in flight needs one number for each part.
"""

from typing import Final, NamedTuple

from streams.events import Input, Milestone
from streams.terms import Billing, BillingModel


class Kernel(NamedTuple):
    """How billable events follow their carrier: parts of a mixture; what no part holds comes at once."""

    weights: tuple[float, ...]
    delays_ms: tuple[float, ...]
    """Mean delay of each part."""
    prior_events: float
    """Billable events that the prior is worth."""
    prior_carriers: float
    """Carriers that the prior is worth: with few of its own, a campaign is taken for one of high response (safe)."""
    error: float
    """How wrong, as a share, the expectation of what is in flight may be: delays are assumed, the response drifts."""


_AT_ONCE: Final = Kernel((), (), 0.0, 0.0, 0.0)
_CLICKS: Final = Kernel((0.8, 0.2), (15_000.0, 120_000.0), 2.0, 200.0, 0.12)
_PLAYS: Final = Kernel((1.0,), (10_000.0,), 2.0, 4.0, 0.12)
_LONG_PLAYS: Final = Kernel((1.0,), (40_000.0,), 2.0, 4.0, 0.12)
_CONVERSIONS: Final = Kernel((0.5, 0.3, 0.2), (600_000.0, 3_600_000.0, 43_200_000.0), 2.0, 40.0, 0.3)
"""AppsFlyer: click to install within 1 h for about 75%, within 24 h for about 94%; this mixture: 72% and 97%."""
_SHORT_MILESTONES: Final = frozenset({Milestone.START, Milestone.THREE_SECONDS})
_BILLED_BY: Final = {
    BillingModel.CPM: Input.IMPRESSIONS,
    BillingModel.OCPM: Input.IMPRESSIONS,
    BillingModel.CPC: Input.CLICKS,
    BillingModel.OCPC: Input.CLICKS,
    BillingModel.CPA: Input.CONVERSIONS,
    BillingModel.PAID_PLAY: Input.PLAYS,
}
_OPTIMISED: Final = frozenset({BillingModel.OCPM, BillingModel.OCPC})


def kernel_of(billing: Billing) -> Kernel:
    """The delays to expect."""
    if billing.model in (BillingModel.CPC, BillingModel.OCPC):
        return _CLICKS
    if billing.model is BillingModel.CPA:
        return _CONVERSIONS
    if billing.model is BillingModel.PAID_PLAY:
        return _PLAYS if billing.play_milestone in _SHORT_MILESTONES else _LONG_PLAYS
    return _AT_ONCE


def is_carried_by_clicks(billing: Billing) -> bool:
    """Whether clicks, not impressions, tell what is in flight."""
    return billing.model is BillingModel.CPA


def watched_inputs(billing: Billing) -> frozenset[Input]:
    """Inputs without which spend is not known: impressions, what carries, and what is billed."""
    if billing.model is BillingModel.CLEARING_PRICE:
        return frozenset({Input.IMPRESSIONS, Input.CLICKS})
    if billing.model is BillingModel.CPA:
        return frozenset({Input.IMPRESSIONS, Input.CLICKS, Input.CONVERSIONS})
    return frozenset({Input.IMPRESSIONS, _BILLED_BY[billing.model]})


def is_optimised(billing: Billing) -> bool:
    """Judged by a target cost, with a learning phase."""
    return billing.model in _OPTIMISED


def price_of_impression(billing: Billing) -> float | None:
    """Millimicros, where impressions have a fixed price: a price per mille in micros is just that."""
    if billing.model in (BillingModel.CPM, BillingModel.OCPM) and billing.price_micros is not None:
        return float(billing.price_micros)
    return None


def price_of_event(billing: Billing) -> float | None:
    """Millimicros of one billable event, where it is fixed."""
    if billing.price_micros is None:
        return None
    by_mille = billing.model in (BillingModel.CPM, BillingModel.OCPM)
    return float(billing.price_micros) * (1.0 if by_mille else 1_000.0)
