"""Quiet campaigns for many weeks, in which every alert is false."""

from collections import Counter
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from bench.alerts_judge import A_RECEIVER, messages
from streams.campaigns import CampaignSettings
from streams.rules import DAY_MS, HOUR_MS, MINUTE_MS
from streams.signals import Alert, AlertState, Allowance, PoolKind
from streams.stages.alerting.campaign import CampaignAlerts
from streams.stages.alerting.facts import AlertFacts, InvalidCounts
from streams.stages.pacing.facts import Added
from streams.terms import Billing, BillingModel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
WEEK_MS: Final = 7 * DAY_MS
STEP_MS: Final = 20 * MINUTE_MS
LEARN_WEEKS: Final = 3
JUDGED_WEEKS: Final = 10


def quiet_weeks(seed: int, count: int) -> dict[str, Any]:
    """Quiet campaigns for ten judged weeks: whatever fires is false."""
    fired: list[Alert] = []
    told: list[Alert] = []
    for index in range(count):
        changes = _quiet_campaign(np.random.default_rng([seed, 41, index]), index)
        told += changes
        fired += [alert for alert in changes if alert.state is AlertState.FIRING]
    receiver_days = count / A_RECEIVER * JUDGED_WEEKS * 7
    return {
        "campaign_weeks": count * JUDGED_WEEKS,
        "false": Counter(alert.kind.value for alert in fired),
        "examples": [(a.kind.value, a.campaign_id, a.changed_ms, a.text.en) for a in fired],
        **messages(told, fired, receiver_days),
    }


def _quiet_campaign(rng: np.random.Generator, index: int) -> list[Alert]:
    """One campaign's 13 weeks. Sizes: 200 to 2 million impressions a day."""
    daily = 10 ** rng.uniform(2.3, 6.3)
    ctr, cvr, early = rng.uniform(0.005, 0.03), rng.uniform(0.01, 0.08), rng.uniform(0.35, 0.75)
    price = float(rng.uniform(1e8, 1e9))  # millimicros a click
    settings = CampaignSettings(
        campaign_id=f"c-{index}",
        advertiser_id=f"a-{index // A_RECEIVER}",
        currency="USD",
        time_zone=("UTC", "Asia/Shanghai", "America/New_York", "Europe/Berlin")[index % 4],
        billing=Billing(model=BillingModel.CPC, price_micros=int(price / 1_000)),
    )
    steps, a_day = (LEARN_WEEKS + JUDGED_WEEKS) * WEEK_MS // STEP_MS, DAY_MS // STEP_MS
    start = 1_772_928_000_000 - (LEARN_WEEKS + JUDGED_WEEKS) * WEEK_MS
    at = np.arange(steps)
    traffic = daily / a_day * _cycle(rng, at, a_day, 0.6) * _drift(rng, steps, a_day, 0.10, 0.20, 0.03)
    clicked = ctr * _cycle(rng, at, a_day, 0.15) * _drift(rng, steps, a_day, 0.05, 0.08, 0.03)
    converted = cvr * _cycle(rng, at, a_day, 0.25) * _drift(rng, steps, a_day, 0.07, 0.10, 0.03)
    # the true cost of no day is more than 1.25 times the target
    clicks_a_day = (traffic * clicked).reshape(-1, a_day).sum(axis=1)
    conversions_a_day = (traffic * clicked * converted).reshape(-1, a_day).sum(axis=1)
    dearest = price / 1_000 * float((clicks_a_day / conversions_a_day).max())
    billing = msgspec.structs.replace(settings.billing, target_cost_micros=int(dearest / rng.uniform(0.8, 1.25)))
    settings = msgspec.structs.replace(settings, billing=billing)
    impressions = rng.poisson(traffic * rng.gamma(20, 1 / 20, steps))
    clicks = rng.binomial(impressions, np.clip(clicked, 0, 0.5))
    conversions = rng.binomial(clicks, np.clip(converted, 0, 0.9))
    soon = rng.binomial(conversions, early)
    later = np.zeros(steps, dtype=np.int64)
    for delay, share in ((2, 0.3), (9, 0.3), (36, 0.25), (108, 0.15)):
        part = rng.binomial(conversions - soon, share)
        later[delay:] += part[: steps - delay]
    alerts, told = CampaignAlerts(settings.campaign_id), []
    left, burns = 5.0 * daily * ctr * price, traffic * clicked * price
    for step in range(steps):
        begin = start + step * STEP_MS
        spend = int(clicks[step] * price)
        shown, clicked_now = int(impressions[step]), int(clicks[step])
        alerts.add(Added(begin, shown, 0, clicked_now, int(soon[step] + later[step]), spend))
        alerts.add_cohort(begin - begin % HOUR_MS, 0, int(soon[step]))
        left -= spend
        a_day_costs = float(burns[step : step + a_day].sum())
        if left < 2.5 * a_day_costs:  # topped up in time
            left += rng.uniform(3, 7) * a_day_costs
        hourly = int(clicks[max(0, step - 2) : step + 1].sum() * price / 1_000)
        facts = _quiet_facts(begin + STEP_MS - 1, index, int(left / 1_000), hourly, shown, clicked_now)
        changes = alerts.evaluate(settings, facts)
        if begin >= start + LEARN_WEEKS * WEEK_MS:
            told += changes
    return told


def _quiet_facts(now_ms: int, index: int, left: int, burn: int, shown: int, clicks: int) -> AlertFacts:
    allowance = Allowance(
        campaign_id=f"c-{index}",
        pool=PoolKind.BALANCE,
        pool_id=f"acc-{index}",
        currency="USD",
        limit_micros=10**15,
        left_micros=left,
        burn_micros_per_h=burn,
        sequence=0,
    )
    invalid = InvalidCounts(clicks=(3 * clicks // 50, 3 * clicks), impressions=(3 * shown // 50, 3 * shown))
    return AlertFacts(now_ms, now_ms, allowances=(allowance,), invalid=invalid)


def _cycle(rng: np.random.Generator, at: Ints, a_day: int, swing: float) -> Floats:
    """By hour and weekday, mean about 1."""
    hours = 2 * np.pi * (at % a_day) / a_day
    day = 1 + swing * np.cos(hours - rng.uniform(0, 6.3)) + swing / 3 * np.cos(2 * hours - rng.uniform(0, 6.3))
    weekdays = rng.lognormal(0, 0.1, 7)
    return np.asarray(np.maximum(0.05, day) * weekdays[at // a_day % 7])


def _drift(rng: np.random.Generator, steps: int, a_day: int, days: float, hours: float, weekly: float) -> Floats:
    """Log-normal: a trend and a random walk by the week, days that differ, and heavy-tailed noise over some hours."""
    count = steps // a_day
    walk = np.cumsum(rng.normal(rng.normal(0, weekly) / 7, weekly / np.sqrt(7), count))
    daily = rng.normal(0, days, count)
    keep, noise, state = np.exp(-1 / 6), np.zeros(steps), 0.0
    shocks = rng.standard_t(6, steps) / np.sqrt(1.5) * hours * np.sqrt(1 - keep * keep)
    for step in range(steps):
        state = noise[step] = keep * state + shocks[step]
    return np.asarray(np.exp(np.repeat(walk + daily, a_day)[:steps] + noise))
