"""Rules about what a campaign's money brings: click-through, conversions, their cost, and invalid traffic."""

from collections.abc import Mapping
from math import exp, log, sqrt
from typing import Any, Final

from streams.campaigns import CampaignSettings
from streams.rules import DAY_MS, HOUR_MS
from streams.stages.alerting.evidence import natural_evidence
from streams.stages.alerting.facts import BETWEEN, CLEAR, UNKNOWN, Condition, Figures, InvalidCounts, Signal
from streams.stages.alerting.hours import (
    CLICKS,
    CONVERSIONS,
    EARLY,
    IMPRESSIONS,
    SPEND,
    TAINT_CLICKS,
    TAINT_CONVERSIONS,
    TAINT_IMPRESSIONS,
    Hours,
    local_date,
)
from streams.stages.alerting.ratios import EVIDENCE, HIGH, LOW, Measure, RatioWatch, Window, current, news, telling
from streams.stages.rates import wilson
from streams.terms import PPM, AlertKind, BillingModel

_SPENT: Final = TAINT_IMPRESSIONS | TAINT_CLICKS | TAINT_CONVERSIONS
CTR: Final = Measure("ctr", CLICKS, IMPRESSIONS, False, TAINT_IMPRESSIONS | TAINT_CLICKS)
CVR: Final = Measure("cvr", EARLY, CLICKS, True, TAINT_CLICKS | TAINT_CONVERSIONS)
CPA: Final = Measure("cpa", EARLY, SPEND, True, _SPENT)
RETURN: Final = Measure("return", CONVERSIONS, SPEND, False, _SPENT)
"""Conversions by their own time per spend: tells of a collapse before a cohort is an hour old."""

CALM_LOW: Final = LOW**0.5
CALM_HIGH: Final = HIGH**0.5
"""Half of the material change, in logarithms, is how far a ratio must come back."""
COLLAPSED: Final = 0.25
RECOVERED: Final = 0.5
NOT_COLLAPSED: Final = sqrt(COLLAPSED * RECOVERED)
COLLAPSE_EVIDENCE: Final = log(24 * 20)
"""That there is something at all is certain by then. This is evidence against a share half-way (in logarithms) to what
has recovered: of days with that many conversions, in one of 20 at most chance makes a collapse."""
FLAT_SPEND: Final = 0.5
"""Share of the usual spend that still counts as spending as usual."""
COST_AGE_MS: Final = 7 * DAY_MS
"""Half of the conversions come later than a day after their click (Criteo, FACTS): before a week of history, a cost
per conversion says more about waiting than about cost."""
COST_RESOLVED: Final = 0.8
"""Resolved when the cost is below 0.8 of the threshold."""
INVALID_LEAST: Final = 200
INVALID_Z: Final = 4.0
"""Instead of 1.96: the window slides and is looked at all day long."""
INVALID_RESOLVED: Final = 0.7


_NO_COST: Final = {
    AlertKind.CPA_ANOMALY: CLEAR,
    AlertKind.CONVERSIONS_COLLAPSED: CLEAR,
    AlertKind.COST_OVERRUN: CLEAR,
}
"""Where conversions are paid for, their cost is the contract's, and spend comes with late conversions of earlier
clicks: beside the clicks of the hour it says nothing, and all the less after a pause."""


class QualityWatch:
    """The four ratios of one campaign, and the rules that ask them."""

    __slots__ = ("ratios",)

    def __init__(self) -> None:
        self.ratios = tuple(RatioWatch(measure) for measure in (CTR, CVR, CPA, RETURN))

    def learn(self, hours: Hours, start_ms: int, zone: str, excused: frozenset[str]) -> None:
        """Takes a complete hour, before it becomes part of the baseline."""
        date = local_date(start_ms, zone)
        for ratio in self.ratios:
            ratio.learn(hours, start_ms, zone, date, ratio.measure.name in excused)

    def fix(self, hours: Hours, start_ms: int, zone: str) -> None:
        """Fixes what is expected of an hour that begins."""
        for ratio in self.ratios:
            ratio.ratio(hours, start_ms, zone)

    def forget(self, before_ms: int) -> None:
        """Drops what is known of hours before a time."""
        for ratio in self.ratios:
            ratio.forget(before_ms)

    def look(
        self, settings: CampaignSettings, hours: Hours, now_ms: int, told: Mapping[AlertKind, int]
    ) -> dict[AlertKind, Signal]:
        """What every rule sees; a kind with too little to judge by is UNKNOWN.

        `told`: epoch ms until which a kind's hours have been told; a window that begins before is no news.
        """
        zone, alerting = settings.time_zone, settings.alerts
        ctr, cvr, cpa, collapse = (ratio.windows(hours, now_ms, zone) for ratio in self.ratios)
        clicks, conversions = float(alerting.anomaly_min_clicks), float(alerting.anomaly_min_conversions)
        date = local_date(now_ms, zone)
        signals = {
            AlertKind.CTR_ANOMALY: _anomaly(ctr, clicks, HIGH, date, told[AlertKind.CTR_ANOMALY]),
            AlertKind.CVR_ANOMALY: _anomaly(cvr, conversions, HIGH, date, told[AlertKind.CVR_ANOMALY]),
            AlertKind.CPA_ANOMALY: _anomaly(cpa, conversions, float("inf"), date, told[AlertKind.CPA_ANOMALY], 1_000.0),
            AlertKind.CONVERSIONS_COLLAPSED: self._collapse(
                hours, (collapse, cpa), conversions, zone, told[AlertKind.CONVERSIONS_COLLAPSED]
            ),
            AlertKind.COST_OVERRUN: self._overrun(
                settings, hours, cpa, conversions, now_ms, told[AlertKind.COST_OVERRUN]
            ),
        }
        return signals | _NO_COST if settings.billing.model is BillingModel.CPA else signals

    def _collapse(
        self, hours: Hours, judged: tuple[list[Window], ...], least: float, zone: str, told_ms: int
    ) -> Signal:
        """By conversions as they come, or by those of clicks' first hour: late conversions of earlier clicks keep
        coming for hours and days, and hide a collapse from the former.
        """
        now = [window for windows in judged if (window := current(windows, least)) is not None]
        if not now:
            return UNKNOWN
        if all(window.ratio >= RECOVERED for window in now):
            return CLEAR
        found = [telling(news(windows, told_ms), least, COLLAPSED, float("inf")) for windows in judged]
        told = [window for window in found if window is not None and _has_collapsed(hours, window, zone)]
        if not told:
            return BETWEEN
        window = told[0]
        figures = (
            ("since", window.start_ms),
            ("seen", int(window.events)),
            ("expected", round(window.expected)),
            ("spend", int(window.exposure) // 1_000),
        )
        return Signal(Condition.MET, window.events, window.expected, "conversions", figures, began_ms=window.start_ms)

    def _overrun(
        self, settings: CampaignSettings, hours: Hours, windows: list[Window], least: float, now_ms: int, told_ms: int
    ) -> Signal:
        """Cost per conversion of the goal against its target.

        Conversions of clicks' first hour are compared with how many there would be at the target cost: as many as
        usual at this hour, scaled by usual cost over target. So neither the time of day nor waiting for conversions
        looks like cost. Told where the cost that was seen is severe, and where chance and natural variation do not
        explain it by a cost half-way (in logarithms) to that.
        """
        target, overall = settings.billing.target_cost_micros, hours.overall()
        if target is None or overall is None or overall.conversions <= 0 or overall.spend <= 0:
            return UNKNOWN
        if hours.since_ms < 0 or now_ms - hours.since_ms < COST_AGE_MS:
            return UNKNOWN
        level = exp(self.ratios[2].level)
        scale = overall.spend / overall.conversions / (target * 1_000) / level
        severe = settings.alerts.cost_overrun_ppm / PPM
        tolerated = sqrt(severe)
        now, best, most = None, None, EVIDENCE
        for window in windows:
            expected = window.expected * scale
            if expected < least:
                continue
            ratio = window.events / expected
            now = ratio if now is None else now
            if ratio >= 1 / severe or window.start_ms < told_ms:
                continue
            evidence = natural_evidence(window.events, expected / tolerated, window.spread)
            if evidence >= most:
                best, most = window, evidence
        if now is None:
            return UNKNOWN
        if now * severe * COST_RESOLVED >= 1:
            return CLEAR
        if best is None:
            return BETWEEN
        ratio = best.events / (best.expected * scale)
        cost = target / ratio if ratio > 0 else None
        figures = (
            ("since", best.start_ms),
            ("cost", int(cost) if cost is not None else None),
            ("target", target),
            ("times", round(1 / ratio, 1) if ratio > 0 else None),
            ("spend", int(best.exposure) // 1_000),
        )
        return Signal(
            Condition.MET, cost, float(target), "micros", figures, began_ms=best.start_ms, form="" if cost else "none"
        )

    def snapshot(self) -> list[object]:
        """Builtin values."""
        return [ratio.snapshot() for ratio in self.ratios]

    def restore(self, snapshot: list[Any]) -> None:
        """Takes back what `snapshot` gave."""
        for ratio, held in zip(self.ratios, snapshot, strict=True):
            ratio.restore(held)


def _anomaly(
    windows: list[Window], least: float, high: float, date: str, told_ms: int, scale: float | None = None
) -> Signal:
    """`scale`: of money, to micros; None: a ratio.

    What is over by now is no news: where the latest window is calm, earlier ones are not asked."""
    now = current(windows, least)
    if now is not None and CALM_LOW <= now.ratio <= (CALM_HIGH if high == HIGH else high):
        return CLEAR
    window = telling(news(windows, told_ms), least, LOW, high)
    if window is None:
        return UNKNOWN if now is None else BETWEEN
    usual = window.expected / window.exposure
    rate = window.events / window.exposure
    if scale is not None:
        seen = 1 / rate / scale if rate > 0 else None
        expected = 1 / usual / scale
    else:
        seen, expected = rate, usual
    figures: Figures = (
        ("since", window.start_ms),
        ("seen", seen),
        ("expected", expected),
        ("change", abs(round((window.ratio - 1) * 100))),
        ("events", int(window.events)),
    )
    form = ("up" if window.ratio > 1 else "down") + ("" if window.is_same_weekday else "_other_days")
    unit = "ratio" if scale is None else "micros"
    return Signal(Condition.MET, seen, expected, unit, figures, window.start_ms, date, form)


def _has_collapsed(hours: Hours, window: Window, zone: str) -> bool:
    """Also by evidence of its own, and at flat spend: a price that triples is no collapse, by whatever chance."""
    evidence = natural_evidence(window.events, NOT_COLLAPSED * window.expected, window.spread)
    return evidence >= COLLAPSE_EVIDENCE and _spends_as_usual(hours, window, zone)


def _spends_as_usual(hours: Hours, window: Window, zone: str) -> bool:
    usual = 0.0
    for start in range(window.start_ms, window.end_ms, HOUR_MS):
        found = hours.usual(start, zone)
        if found is not None and start in hours.recent:
            usual += found.spend / found.visits * min(1.0, (window.end_ms - start) / HOUR_MS)
    return window.exposure >= FLAT_SPEND * usual


def invalid_share(settings: CampaignSettings, counted: InvalidCounts, told: str) -> Signal:
    """The worse of the share of invalid clicks and that of impressions, each judged by itself.

    `told`: of which of them an alert that fires tells (clicks, impressions; empty: none does). It stays while the other
    is over the limit, and is over when what it tells of is.
    """
    limit = settings.alerts.invalid_share_ppm / PPM
    signals = {name: _share_of(name, pair, limit) for name, pair in counted._asdict().items()}
    over = [signal for signal in signals.values() if signal.condition is Condition.MET]
    if over:
        return max(over, key=lambda signal: signal.seen or 0.0)
    return signals.get(told) or max(signals.values(), key=lambda signal: signal.condition)


def _share_of(name: str, pair: tuple[int, int], limit: float) -> Signal:
    """Over its limit where its Wilson bound at four sigma is."""
    invalid, gross = pair
    if gross < INVALID_LEAST:
        return UNKNOWN
    rate = wilson(invalid, gross, z=INVALID_Z)
    assert rate is not None
    if rate.low <= limit:
        return CLEAR if rate.value <= INVALID_RESOLVED * limit else BETWEEN
    figures = (("inputs", name), ("invalid", invalid), ("gross", gross), ("seen", rate.value), ("limit", limit))
    return Signal(Condition.MET, rate.value, limit, "ratio", figures)
