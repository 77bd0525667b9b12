"""Where links lead: the dashboards' uids, and the ids of panels that others point at. Both stay once published."""

from typing import Final, NamedTuple

CAMPAIGNS: Final = "campaign-streams-campaigns"
PACING: Final = "campaign-streams-pacing"
INVALID: Final = "campaign-streams-invalid"
HEALTH: Final = "campaign-streams-health"
REPLAYS: Final = "campaign-streams-replays"

CTR_OVER_TIME: Final = 7
CVR_OVER_TIME: Final = 8
SPEND_OVER_TIME: Final = 10
SPEND_AND_PLAN: Final = 5
OFF_PLAN: Final = 6
RATE_OVER_TIME: Final = 7
FORECAST: Final = 8
INVALID_SHARE: Final = 6
WATERMARK: Final = 14


class Place(NamedTuple):
    """A panel of a dashboard."""

    uid: str
    panel: int

    def url(self) -> str:
        """The panel alone; a time range and variables may be added with `&`."""
        return f"/d/{self.uid}?viewPanel={self.panel}"


OF_KIND: Final = {
    "exhausted": Place(PACING, SPEND_AND_PLAN),
    "exhausted_early": Place(PACING, SPEND_AND_PLAN),
    "stalled": Place(CAMPAIGNS, SPEND_OVER_TIME),
    "balance_low": Place(PACING, SPEND_AND_PLAN),
    "cost_overrun": Place(CAMPAIGNS, SPEND_OVER_TIME),
    "over_delivery": Place(PACING, OFF_PLAN),
    "under_delivery": Place(PACING, OFF_PLAN),
    "expected_under_delivery": Place(PACING, FORECAST),
    "budget_ladder": Place(PACING, SPEND_AND_PLAN),
    "ctr_anomaly": Place(CAMPAIGNS, CTR_OVER_TIME),
    "cvr_anomaly": Place(CAMPAIGNS, CVR_OVER_TIME),
    "cpa_anomaly": Place(CAMPAIGNS, CVR_OVER_TIME),
    "conversions_collapsed": Place(CAMPAIGNS, CVR_OVER_TIME),
    "invalid_traffic": Place(INVALID, INVALID_SHARE),
    "input_silent": Place(HEALTH, WATERMARK),
}
"""Where an alert of each kind (streams.terms.AlertKind) is explained; a test keeps the kinds complete."""
