"""Incidents that are injected into the closed loop of alerts: what they are, and which alerts tell of them."""

from typing import Final, NamedTuple

from streams.terms import AlertKind

K = AlertKind
FINDS: Final[dict[str, tuple[AlertKind, ...]]] = {
    "stalled": (K.STALLED,),
    "ctr_down": (K.CTR_ANOMALY,),
    "ctr_up": (K.CTR_ANOMALY,),
    "cvr_down": (K.CVR_ANOMALY, K.CONVERSIONS_COLLAPSED),
    "cost_overrun": (K.COST_OVERRUN,),
    "cpa": (K.CPA_ANOMALY, K.COST_OVERRUN),
    "collapse": (K.CONVERSIONS_COLLAPSED,),
    "invalid": (K.INVALID_TRAFFIC,),
    "over_delivery": (K.OVER_DELIVERY, K.EXHAUSTED_EARLY),
    "under_delivery": (K.UNDER_DELIVERY, K.EXPECTED_UNDER_DELIVERY),
    "exhausted_early": (K.EXHAUSTED_EARLY, K.EXHAUSTED),
    "balance_low": (K.BALANCE_LOW,),
    "input_silent": (K.INPUT_SILENT,),
}
"""Which alerts find an incident of a kind."""
FACTORS: Final = {"ctr_down": 0.4, "ctr_up": 3.0, "cvr_down": 0.3, "cost_overrun": 0.3, "collapse": 0.02, "cpa": 3.0}
LASTS_H: Final = {"stalled": 3, "ctr_down": 8, "ctr_up": 8, "cvr_down": 10, "cost_overrun": 12, "cpa": 10}
LASTS_H.update({"collapse": 8, "invalid": 4, "over_delivery": 8, "under_delivery": 12, "exhausted_early": 6})
VOLUME: Final = {"ctr_down": 400, "ctr_up": 250, "cvr_down": 120, "cost_overrun": 100, "cpa": 120, "collapse": 60}
FOLLOWS: Final[dict[str, tuple[AlertKind, ...]]] = {
    "stalled": (K.UNDER_DELIVERY, K.EXPECTED_UNDER_DELIVERY),
    "under_delivery": (K.STALLED,),
    "ctr_down": (K.UNDER_DELIVERY, K.EXPECTED_UNDER_DELIVERY, K.COST_OVERRUN, K.CPA_ANOMALY),
    "ctr_up": (K.CVR_ANOMALY, K.CPA_ANOMALY),
    "cvr_down": (K.COST_OVERRUN, K.CPA_ANOMALY),
    "cost_overrun": (K.CVR_ANOMALY, K.CPA_ANOMALY, K.CONVERSIONS_COLLAPSED),
    "collapse": (K.COST_OVERRUN, K.CVR_ANOMALY, K.CPA_ANOMALY),
    "cpa": (K.OVER_DELIVERY,),
    "invalid": (K.UNDER_DELIVERY, K.COST_OVERRUN, K.CPA_ANOMALY, K.EXPECTED_UNDER_DELIVERY),
    "over_delivery": (K.EXHAUSTED, K.BUDGET_LADDER, K.CONVERSIONS_COLLAPSED),
    "exhausted_early": (K.OVER_DELIVERY, K.BUDGET_LADDER),
}
"""What an incident also really causes."""


class Injected(NamedTuple):
    """An incident and its truth."""

    kind: str
    campaign: int
    start_ms: int
    end_ms: int
