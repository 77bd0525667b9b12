"""Since when a budget is spent: the period's, and the total of the flight, which no new period brings back."""

from typing import Final

from streams.campaigns import CampaignSettings
from streams.stages.pacing.control import Look, least_room
from streams.stages.pacing.facts import Total
from streams.terms import PPM, PacingPeriod

AGAIN_SHARE: Final = 0.01
"""Of a budget: with so much left there is something to spend again. Less is crumbs, or a correction."""


class Exhaustion:
    """Of one campaign. Event time, ms; None: it is not spent."""

    def __init__(self) -> None:
        self.period_ms: int | None = None
        self.total_ms: int | None = None

    def note(self, settings: CampaignSettings, look: Look, flight_spend: int) -> None:
        """At a look; `flight_spend` is in millimicros."""
        if look.budget > 0 and look.budget - look.spent < least_room(look):
            self.period_ms = look.now_ms if self.period_ms is None else self.period_ms
        elif self.period_ms is not None and look.spent < (1.0 - AGAIN_SHARE) * look.budget:
            self.period_ms = None
        self._note_total(settings, look, flight_spend)

    def _note_total(self, settings: CampaignSettings, look: Look, flight_spend: int) -> None:
        """Where the total is what limits the period, the look's budget ends where the total does.

        What a day's pacing cannot steer is left over: the next day finds crumbs for a budget, and calls them one. So a
        total counts as spent where it leaves a day or a session that begins, or the one after this, hardly anything.
        """
        total = settings.budget.total_micros
        if total is None:
            self.total_ms = None
            return
        left, own = total * 1_000 - flight_spend, _own_of_period(settings)
        most = min(total * 1_000, own or total * 1_000)
        drawn = 0 if self.period_ms is not None else max(0, look.spent)
        is_crumbs = own is not None and left + drawn < AGAIN_SHARE * most
        if is_crumbs or left < max(1.0, least_room(look)):
            self.total_ms = look.now_ms if self.total_ms is None else self.total_ms
        elif left >= max(min(look.unit, most), AGAIN_SHARE * most):
            self.total_ms = None

    def total(self, settings: CampaignSettings, flight_spend: int) -> Total | None:
        """None: the campaign has no total budget."""
        micros = settings.budget.total_micros
        return None if micros is None else Total(micros, flight_spend, self.total_ms)


def _own_of_period(settings: CampaignSettings) -> int | None:
    """What a day or a session might spend if the flight had plenty left, millimicros; None: only the total says."""
    budget, found = settings.budget, []
    if settings.pacing.period is PacingPeriod.LIVE_SESSION and budget.session_micros is not None:
        found.append(budget.session_micros)
    if budget.daily_micros is not None:
        found.append(budget.daily_micros * settings.pacing.over_delivery.daily_multiplier_ppm // PPM)
    return min(found) * 1_000 if found else None
