"""Campaign settings as the pipeline knows them: read as an input, in force from a tick on.

A record of ads.campaigns is staged when it is applied and takes effect at the next tick, so that what a setting
changes is a function of the journal. A campaign has one currency, that of its first version; a later version with
another is refused as a value.
"""

from typing import Any

import msgspec

from streams.campaigns import CampaignSettings
from streams.records import Row

MAX_CAMPAIGNS = 100_000
"""Campaigns whose settings are kept per partition; beyond it a new campaign's settings are refused."""


class Version(msgspec.Struct, frozen=True):
    """One version of a campaign's settings and when its record was appended."""

    settings: CampaignSettings
    valid_from_ms: int
    """When it holds from: at first its append time, or later where it says so; in force, rounded up to a pane."""


class CampaignBook:
    """Settings of one partition's campaigns."""

    def __init__(self) -> None:
        self.current: dict[str, Version] = {}
        self.currencies: dict[str, str] = {}
        self.refused = 0
        self._staged: list[Version] = []

    def stage(self, settings: CampaignSettings, appended_ms: int) -> None:
        """A record was applied; it waits for the next tick."""
        self._staged.append(Version(settings, max(appended_ms, settings.valid_from_ms or 0)))

    def activate(self, pane_ms: int) -> list[Version]:
        """At a tick: what has been staged takes effect, from the next pane on; returns the versions accepted."""
        staged, self._staged = self._staged, []
        rounded = [Version(v.settings, -(-v.valid_from_ms // pane_ms) * pane_ms) for v in staged]
        return [version for version in rounded if self._accept(version)]

    def _accept(self, version: Version) -> bool:
        campaign = version.settings.campaign_id
        known = self.currencies.get(campaign)
        full = known is None and len(self.current) >= MAX_CAMPAIGNS
        if full or (known is not None and known != version.settings.currency):
            self.refused += 1
            return False
        self.currencies[campaign] = version.settings.currency
        self.current[campaign] = version
        return True

    @staticmethod
    def row(version: Version) -> Row:
        """A row of campaign_rows, without its version."""
        settings = version.settings
        return (
            settings.campaign_id,
            settings.name or "",
            settings.advertiser_id or "",
            settings.agency_id or "",
            settings.account_id or "",
            settings.currency,
            settings.time_zone,
            msgspec.json.encode(settings).decode(),
            version.valid_from_ms,
        )

    @property
    def zones(self) -> dict[str, str]:
        """Time zone by campaign."""
        return {campaign: version.settings.time_zone for campaign, version in self.current.items()}

    def snapshot(self) -> dict[str, object]:
        """The book as plain values."""
        return {
            "current": [msgspec.to_builtins(v) for v in self.current.values()],
            "staged": [msgspec.to_builtins(v) for v in self._staged],
            "refused": self.refused,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        versions = msgspec.convert(snapshot["current"], list[Version])
        self.current = {v.settings.campaign_id: v for v in versions}
        self.currencies = {campaign: v.settings.currency for campaign, v in self.current.items()}
        self._staged = msgspec.convert(snapshot["staged"], list[Version])
        self.refused = snapshot["refused"]
