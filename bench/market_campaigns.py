"""The campaigns of a simulated market: budgets of three orders of magnitude, mixed billing, modes and time zones."""

from typing import Final, NamedTuple

import numpy as np

from streams.campaigns import CampaignSettings
from streams.events import ConversionType
from streams.rules import DAY_MS, HOUR_MS
from streams.state.windows import day_bounds
from streams.terms import Billing, BillingModel, Budget, Pacing, PacingMode, PacingPeriod

ZONES: Final = (
    *("UTC", "Asia/Shanghai", "America/New_York", "Europe/Berlin"),
    *("Asia/Kolkata", "America/Los_Angeles", "Australia/Sydney", "America/Sao_Paulo"),
)
MODELS: Final = (BillingModel.CPM, BillingModel.CPC, BillingModel.CPA, BillingModel.PAID_PLAY, BillingModel.OCPM)
MODEL_SHARES: Final = (0.3, 0.3, 0.12, 0.13, 0.15)
UNIT: Final = 1_000_000
LEAST_EVENTS: Final = 150
"""A day's budget pays so many billable events at least: with fewer, one event is more than the error asked for."""
SCARCE_SHARE: Final = 0.2
SESSION_EVERY: Final = 25
CHANGED_SHARE: Final = 0.25

Delays = tuple[tuple[float, ...], tuple[float, ...]]


class Truth(NamedTuple):
    """What a campaign really is; a controller knows only its settings."""

    settings: CampaignSettings
    abundance: float
    """Spend of an average day at rate 1, over the daily budget."""
    daily_impressions: float
    value_millimicros: float
    price_millimicros: float
    ctr: float
    play_rate: float
    cvr: float
    delays: tuple[Delays, Delays, Delays]
    """Of click, play and conversion: shares and mean delays (ms) of the parts."""
    invalid_share: float
    swing: float
    shift_hours: float
    weekend: float
    live_evening: tuple[float, float, float] | None
    """Local hours, and what traffic is multiplied by."""
    session_hours: tuple[float, float] | None
    """Local hours of a live session every day, for campaigns whose period that is."""
    changes: tuple[tuple[int, int, float], ...]
    """When, campaign, and what the daily budget is multiplied by."""

    def session_bounds(self, at_ms: int) -> tuple[int, int] | None:
        """The live session of the local day."""
        if self.session_hours is None:
            return None
        start = day_bounds(at_ms, self.settings.time_zone)[0]
        return start + int(self.session_hours[0] * HOUR_MS), start + int(self.session_hours[1] * HOUR_MS)


def make_campaigns(count: int, seed: int, start_ms: int) -> list[Truth]:
    """A function of its arguments alone."""
    rng = np.random.default_rng([seed, 3])
    return [_campaign(rng, index, start_ms) for index in range(count)]


def _campaign(rng: np.random.Generator, index: int, start_ms: int) -> Truth:
    model = MODELS[int(rng.choice(len(MODELS), p=MODEL_SHARES))]
    is_session = index % SESSION_EVERY == SESSION_EVERY - 1
    daily = float(10 ** rng.uniform(1.3, 4.3)) * UNIT
    if model is BillingModel.CPA:
        daily = float(10 ** rng.uniform(2.5, 4.3)) * UNIT
    ctr, play_rate, cvr = rng.uniform(0.005, 0.03), rng.uniform(0.3, 0.6), rng.uniform(0.01, 0.08)
    price, value = _price(rng, model, daily, float(ctr), float(play_rate), float(cvr))
    scarce = rng.random() < SCARCE_SHARE
    abundance = float(rng.uniform(0.4, 0.95)) if scarce else float(np.exp(rng.uniform(np.log(1.4), np.log(20))))
    hours = _session_hours(rng) if is_session else None
    share = (hours[1] - hours[0]) / 24 if hours is not None else 1.0
    live = (20.0, 22.0, float(rng.uniform(2, 5))) if rng.random() < 0.15 else None
    click, convert = float(rng.lognormal(0, 0.3)), float(rng.lognormal(0, 0.4))
    return Truth(
        settings=_settings(rng, index, model, int(daily), price, is_session),
        abundance=abundance,
        daily_impressions=daily * 1_000 / value * abundance / share,
        value_millimicros=value,
        price_millimicros=value if model in (BillingModel.CPM, BillingModel.OCPM) else price * 1_000.0,
        ctr=float(ctr),
        play_rate=float(play_rate),
        cvr=float(cvr),
        delays=(
            ((0.8, 0.2), (12_000 * click, 90_000 * click)),
            ((1.0,), (7_000 * click,)),
            ((0.5, 0.3, 0.2), (500_000 * convert, 3_000_000 * convert, 36_000_000 * convert)),
        ),
        invalid_share=float(rng.uniform(0.005, 0.03)) if rng.random() < 0.3 else 0.0,
        swing=float(rng.uniform(0.3, 0.7)),
        shift_hours=float(rng.normal(0, 1.2)),
        weekend=float(rng.uniform(0.8, 1.3)),
        live_evening=live,
        session_hours=hours,
        changes=() if is_session else _changes(rng, index, start_ms),
    )


def _price(
    rng: np.random.Generator, model: BillingModel, daily: float, ctr: float, play_rate: float, cvr: float
) -> tuple[int, float]:
    """Micros of a billable event (per mille for impressions), and millimicros that an impression is worth."""
    if model in (BillingModel.CPM, BillingModel.OCPM):
        mille = int(rng.uniform(1, 8) * UNIT)
        return mille, float(mille)
    usual = {BillingModel.CPC: (0.1, 1.0), BillingModel.CPA: (2.0, 30.0), BillingModel.PAID_PLAY: (0.005, 0.03)}
    price = int(min(rng.uniform(*usual[model]) * UNIT, daily / LEAST_EVENTS))
    share = {BillingModel.CPC: ctr, BillingModel.CPA: ctr * cvr, BillingModel.PAID_PLAY: play_rate}[model]
    return price, price * 1_000.0 * share


def _session_hours(rng: np.random.Generator) -> tuple[float, float]:
    begins = 18.0 + float(rng.integers(0, 8)) / 4
    return begins, begins + 3.0


def _settings(
    rng: np.random.Generator, index: int, model: BillingModel, daily: int, price: int, is_session: bool
) -> CampaignSettings:
    mode = (None, PacingMode.EVEN, PacingMode.AS_SOON_AS_POSSIBLE)[int(rng.choice(3, p=(0.6, 0.32, 0.08)))]
    is_optimised = model is BillingModel.OCPM
    return CampaignSettings(
        campaign_id=f"c-{index}",
        advertiser_id=f"a-{index // 10}",
        currency="USD",
        time_zone=ZONES[int(rng.integers(len(ZONES)))],
        goal=ConversionType.ORDER,
        billing=Billing(
            model=model,
            price_micros=None if is_optimised else price,
            target_cost_micros=10 * UNIT if is_optimised else None,
        ),
        budget=Budget(session_micros=daily) if is_session else Budget(daily_micros=daily),
        pacing=Pacing(mode=mode, period=PacingPeriod.LIVE_SESSION if is_session else PacingPeriod.DAY),
    )


def _changes(rng: np.random.Generator, index: int, start_ms: int) -> tuple[tuple[int, int, float], ...]:
    if rng.random() >= CHANGED_SHARE:
        return ()
    days = rng.choice(6, size=2, replace=False)
    return tuple(
        (start_ms + int(day) * DAY_MS + int(rng.integers(0, 8640)) * 10_000, index, float(rng.uniform(0.8, 1.5)))
        for day in sorted(days)
    )
