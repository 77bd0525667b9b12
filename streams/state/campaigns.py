"""Campaign settings as the pipeline knows them: read as an input, in force from a tick on.

A record of ads.campaigns is staged when it is applied and takes effect at the next tick, so that what a setting
changes is a function of the journal. Of two versions that of the later time holds, whichever was appended first: what
paces a campaign is what bills it. A campaign has one currency, that of its first version; a later version with
another is refused as a value.
"""

from typing import Any, NamedTuple

import msgspec

from streams.campaigns import CampaignSettings
from streams.records import Row
from streams.state.prices import PriceBook

MAX_CAMPAIGNS = 100_000
"""Campaigns whose settings are kept per partition; beyond it a new campaign's settings are refused."""

MAX_UPCOMING = 10_000
"""Versions that wait for their time; beyond it a new one is refused."""


class Version(msgspec.Struct, frozen=True):
    """One version of a campaign's settings and when its record was appended."""

    settings: CampaignSettings
    valid_from_ms: int
    """When it holds from: at first its append time, or later where it says so; in force, rounded up to a pane."""
    order: tuple[int, int] = (0, 0)
    """Event time from which it bills, and its place among those accepted: of two versions the higher holds."""


class Change(NamedTuple):
    """Another version of a campaign's settings is in force."""

    before: Version | None
    after: Version


class CampaignBook:
    """Settings of one partition's campaigns."""

    def __init__(self) -> None:
        self.current: dict[str, Version] = {}
        self.currencies: dict[str, str] = {}
        self.prices = PriceBook()
        self.refused = 0
        self._staged: list[Version] = []
        self._upcoming: list[Version] = []
        self._places = 0

    def stage(self, settings: CampaignSettings, appended_ms: int) -> None:
        """A record was applied; it waits for the next tick."""
        self._staged.append(Version(settings, max(appended_ms, settings.valid_from_ms or 0)))

    def activate(
        self, pane_ms: int, now_ms: int, newest_ms: int, new_ms: int = -1
    ) -> tuple[list[Version], list[Change]]:
        """At a tick: returns the versions accepted, and what changes from now on, at most once a campaign.

        A version that names a time after `now_ms` waits until the pane from which it bills; the others hold from the
        next pane. `newest_ms` is the newest event time (-1: there was no event): prices hold
        from a pane behind it. `new_ms` is the time for campaigns of which no version is in force, if it is later.
        """
        staged, self._staged = self._staged, []
        unreached_ms = newest_ms - newest_ms % pane_ms + pane_ms if newest_ms >= 0 else 0
        accepted = []
        for version in staged:
            if self._accept(version.settings):
                from_ms = _rounded(version.valid_from_ms, pane_ms)
                self._places += 1
                order = (max(from_ms, unreached_ms), self._places)
                self.prices.add(version.settings, order[0], unreached_ms)
                accepted.append(Version(version.settings, from_ms, order))
        before, waiting, self._upcoming = dict[str, Version | None](), self._upcoming, []
        for version in waiting:
            self._take_waiting(version, self._time_for(version, now_ms, new_ms), before)
        for version in accepted:
            if _rounded(version.settings.valid_from_ms or 0, pane_ms) > self._time_for(version, now_ms, new_ms):
                self._upcoming.append(version)
            else:
                self._take_new(version, before)
        return accepted, [Change(held, self.current[campaign]) for campaign, held in before.items()]

    def _time_for(self, version: Version, now_ms: int, new_ms: int) -> int:
        return now_ms if version.settings.campaign_id in self.current else max(now_ms, new_ms)

    def _take_waiting(self, version: Version, now_ms: int, before: dict[str, Version | None]) -> None:
        held = self.current.get(version.settings.campaign_id)
        if version.order[0] > now_ms:
            self._upcoming.append(version)
        elif held is None or version.order > held.order:
            self._put_in_force(version, before)

    def _take_new(self, version: Version, before: dict[str, Version | None]) -> None:
        """What was put last holds at once. What held before its time (by another clock) waits for it again."""
        held = self.current.get(version.settings.campaign_id)
        if held is not None and held.order > version.order:
            self._upcoming.append(held)
        self._put_in_force(version, before)

    def _put_in_force(self, version: Version, before: dict[str, Version | None]) -> None:
        campaign = version.settings.campaign_id
        before.setdefault(campaign, self.current.get(campaign))
        self.current[campaign] = version

    def _accept(self, settings: CampaignSettings) -> bool:
        campaign = settings.campaign_id
        known = self.currencies.get(campaign)
        is_full = len(self._upcoming) >= MAX_UPCOMING or (known is None and len(self.currencies) >= MAX_CAMPAIGNS)
        if is_full or (known is not None and known != settings.currency):
            self.refused += 1
            return False
        self.currencies[campaign] = settings.currency
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
            "upcoming": [msgspec.to_builtins(v) for v in self._upcoming],
            "currencies": self.currencies,
            "prices": self.prices.snapshot(),
            "refused": self.refused,
            "places": self._places,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        versions = msgspec.convert(snapshot["current"], list[Version])
        self.current = {v.settings.campaign_id: v for v in versions}
        self.currencies = snapshot["currencies"]
        self.prices.restore(snapshot["prices"])
        self._upcoming = msgspec.convert(snapshot["upcoming"], list[Version])
        self._staged = msgspec.convert(snapshot["staged"], list[Version])
        self.refused = snapshot["refused"]
        self._places = snapshot["places"]


def _rounded(at_ms: int, pane_ms: int) -> int:
    """The begin of the pane that begins then, or next."""
    return -(-at_ms // pane_ms) * pane_ms
