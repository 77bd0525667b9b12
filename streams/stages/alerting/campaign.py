"""Thin start of the campaign's alerts: overwrite me with the real one (same interface)."""

from typing import Any

from streams.campaigns import CampaignSettings
from streams.signals import Alert
from streams.stages.alerting.facts import AlertFacts
from streams.stages.pacing.facts import Added


class CampaignAlerts:
    def __init__(self, campaign_id: str) -> None:
        self.campaign_id = campaign_id

    def add(self, added: Added) -> None: ...

    def add_cohort(self, click_hour_ms: int, age_bucket_ms: int, conversions: int) -> None: ...

    def evaluate(self, settings: CampaignSettings, facts: AlertFacts) -> list[Alert]:
        return []

    def snapshot(self) -> Any:
        return None

    def restore(self, snapshot: Any) -> None: ...
