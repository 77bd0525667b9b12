"""A simulated market: campaigns, their traffic, an ad server that obeys controls, and incidents whose truth is known.

It steps in panes of 10 s. Unthrottled demand is fixed by the seed alone (a daily cycle in the campaign's own time
zone, weekdays, slow and fast noise, bursts, outages, live evenings); what is served of it is drawn at the rate in
force. Clicks, plays and conversions follow with delays. A step yields what the pipeline would fold: `Added` by origin
pane, a part of each pane one step later, credits a quarter of an hour later.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bench.market_campaigns import Truth, make_campaigns
from bench.market_demand import PANE_MS, PANES_A_DAY, daily_demand, usual_day
from streams.campaigns import CampaignSettings
from streams.events import Input
from streams.rules import DAY_MS, HOUR_MS
from streams.signals import LiveSession, SessionState
from streams.stages.pacing.facts import Added
from streams.state.windows import day_bounds
from streams.terms import BillingModel, PacingMode

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
START_MS: Final = int(datetime(2026, 3, 7, tzinfo=UTC).timestamp() * 1000)
"""A Saturday; the clocks of America change on the Sunday."""
APPLIED_LATE: Final = 0.2
"""Share of a pane in which the control before still holds: 2 s."""
SEEN_AT_ONCE: Final = 0.7
"""Share of a pane's events that is seen at its end; the rest is on its way, 3 s."""
CREDIT_PANES: Final = 90
"""A credit comes a quarter of an hour after its event."""
USUAL_INVALID: Final = 0.01
CLICK, PLAY, CONVERSION = 0, 1, 2


class Incident(NamedTuple):
    """What goes wrong for one campaign (or, with campaign -1, for all), from one pane to another, epoch ms.

    Kinds: `demand` (× factor: a burst above 1, a stalled campaign at 0), `ctr`, `cvr`, `price` (of auctions), `invalid`
    (share of spend that is given back later), and for topics `dead_impressions`, `dead_clicks`, `dead_conversions`:
    nothing is seen of them until the end, and then everything at once.
    """

    kind: str
    campaign: int
    start_ms: int
    end_ms: int
    factor: float = 1.0


class Change(NamedTuple):
    """New settings of one campaign."""

    campaign: int
    before: CampaignSettings
    after: CampaignSettings


class Planned(NamedTuple):
    """The plan that a period is judged by, micros."""

    micros: int
    """The budget at the end, or what had been spent when it was lowered below that."""
    budget: int
    """The budget at the end."""
    before: int
    """The budget before the last change."""


class Step(NamedTuple):
    """What one pane brought, as the pipeline would see it at its end."""

    now_ms: int
    added: list[list[Added]]
    """By campaign."""
    unknown: frozenset[Input]
    changes: list[Change]
    """Settings that hold from `now_ms` on."""
    sessions: list[LiveSession | None]
    """Each campaign's latest record."""
    counts: dict[str, Ints]
    """What truly happened in this pane, by campaign: impressions, clicks, plays, conversions, spend_millimicros."""


_DEAD: Final = {
    "dead_impressions": Input.IMPRESSIONS,
    "dead_clicks": Input.CLICKS,
    "dead_conversions": Input.CONVERSIONS,
}


class Market:
    """`step(controls)` moves it by one pane. The same seed gives the same campaigns, demand and incidents."""

    def __init__(
        self, count: int = 200, seed: int = 1, incidents: Sequence[Incident] = (), start_ms: int = START_MS
    ) -> None:
        self.seed, self.start_ms, self.now_ms, self.pane = seed, start_ms, start_ms, 0
        self.truths: list[Truth] = make_campaigns(count, seed, start_ms)
        self.settings = [truth.settings for truth in self.truths]
        self.incidents = list(incidents)
        self.count = count
        self._rng = np.random.default_rng([seed, 7])
        self._in_force: Floats = np.ones(count)
        self._pools: list[tuple[Floats, Floats, Ints]] = []
        for kind in (CLICK, PLAY, CONVERSION):
            shares = _of_what_is_left(np.array([truth.delays[kind][0] for truth in self.truths]).T)
            hazards = 1 - np.exp(-PANE_MS / np.array([truth.delays[kind][1] for truth in self.truths]).T)
            self._pools.append((shares, hazards, np.zeros(shares.shape, dtype=np.int64)))
        self._rates = np.array([[t.ctr, t.play_rate, t.cvr] for t in self.truths]).T
        self._prices()
        self._invalid = np.array([truth.invalid_share for truth in self.truths])
        self._spends: Ints = np.zeros((CREDIT_PANES + 1, count), dtype=np.int64)
        self._shares: Floats = np.zeros((CREDIT_PANES + 1, count))
        self._carry: Ints = np.zeros((5, count), dtype=np.int64)
        self._held: list[list[Added]] = [[] for _ in range(count)]
        self._latest: list[LiveSession | None] = [None] * count
        self._day = -1
        self._demand: Floats = np.zeros((count, 0))
        self._changes = sorted((c for t in self.truths for c in t.changes), key=lambda c: (c[0], c[1]))
        self.spent: list[dict[int, list[int]]] = [{} for _ in range(count)]
        """Truth: start of the period (local day, or session) to gross and credited, millimicros, by campaign."""
        self.supply: list[dict[int, list[float]]] = [{} for _ in range(count)]
        """Truth: start of the period to the spend that rate 1 would have brought: whole, and after the last change."""
        self._budgets = [
            [(0, settings.budget.session_micros or settings.budget.daily_micros or 0, 0)] for settings in self.settings
        ]

    def _prices(self) -> None:
        models = [settings.billing.model for settings in self.settings]
        self._by = {
            "impressions": np.array([m in (BillingModel.CPM, BillingModel.OCPM) for m in models]),
            "clicks": np.array([m in (BillingModel.CPC, BillingModel.OCPC) for m in models]),
            "plays": np.array([m is BillingModel.PAID_PLAY for m in models]),
            "conversions": np.array([m is BillingModel.CPA for m in models]),
        }
        self._price = np.array([truth.price_millimicros for truth in self.truths])
        self._is_auction = np.array([settings.billing.price_micros is None for settings in self.settings])
        self.value: Floats = np.array([truth.value_millimicros for truth in self.truths])
        """Expected spend of an impression, millimicros."""

    def step(self, controls: Floats) -> Step:
        """One pane at the rates that were decided at its begin."""
        begin = self.now_ms
        demand = self._demand_now()
        factors, dead = self._troubles(begin)
        demand = demand * factors["demand"]
        rates = APPLIED_LATE * self._in_force + (1 - APPLIED_LATE) * controls
        self._in_force = np.array(controls, dtype=np.float64)
        counts = self._draw(demand * np.clip(rates, 0, 1), factors)
        self._account(begin, demand * factors["ctr"] * self.value, counts["spend_millimicros"])
        self.now_ms, self.pane = begin + PANE_MS, self.pane + 1
        added = self._seen(begin, counts, factors["invalid"], dead)
        changes, sessions = self._changed(), self._sessions()
        return Step(self.now_ms - 1, added, frozenset(dead), changes, sessions, counts)

    def _demand_now(self) -> Floats:
        day, pane = divmod(self.pane, PANES_A_DAY)
        if day != self._day:
            self._day = day
            self._demand = daily_demand(self.truths, self.seed, self.start_ms + day * DAY_MS, day)
        return self._demand[:, pane]

    def _troubles(self, at_ms: int) -> tuple[dict[str, Floats], set[Input]]:
        factors = {kind: np.ones(self.count) for kind in ("demand", "ctr", "cvr", "price")}
        factors["invalid"] = self._invalid.copy()
        dead: set[Input] = set()
        for incident in self.incidents:
            if not incident.start_ms <= at_ms < incident.end_ms:
                continue
            if incident.kind in _DEAD:
                dead.add(_DEAD[incident.kind])
                continue
            where = slice(None) if incident.campaign < 0 else incident.campaign
            if incident.kind == "invalid":
                factors["invalid"][where] = incident.factor
            else:
                factors[incident.kind][where] *= incident.factor
        return factors, dead

    def _draw(self, expected: Floats, factors: dict[str, Floats]) -> dict[str, Ints]:
        rng = self._rng
        impressions = rng.poisson(expected)
        clicks = self._ripen(CLICK, rng.binomial(impressions, np.clip(self._rates[0] * factors["ctr"], 0, 1)))
        plays = self._ripen(PLAY, rng.binomial(impressions, self._rates[1]))
        conversions = self._ripen(CONVERSION, rng.binomial(clicks, np.clip(self._rates[2] * factors["cvr"], 0, 1)))
        noise = np.where(self._is_auction, rng.lognormal(-0.02, 0.2, self.count) * factors["price"], 1.0)
        billed = (
            self._by["impressions"] * impressions
            + self._by["clicks"] * clicks
            + self._by["plays"] * plays
            + self._by["conversions"] * conversions
        )
        spend = (billed * np.rint(self._price * noise)).astype(np.int64)
        return {
            "impressions": impressions,
            "clicks": clicks,
            "plays": plays,
            "conversions": conversions,
            "spend_millimicros": spend,
        }

    def _ripen(self, kind: int, arriving: Ints) -> Ints:
        """Puts events into the parts of the delay's mixture, and takes out what comes in this pane."""
        shares, hazards, waiting = self._pools[kind]
        rng, left = self._rng, arriving
        for part in range(len(shares) - 1):
            taken = rng.binomial(left, shares[part])
            waiting[part] += taken
            left = left - taken
        waiting[-1] += left
        come = rng.binomial(waiting, hazards)
        waiting -= come
        return np.asarray(come.sum(axis=0), dtype=np.int64)

    def _seen(self, begin: int, counts: dict[str, Ints], invalid: Floats, dead: set[Input]) -> list[list[Added]]:
        names = ("impressions", "plays", "clicks", "conversions", "spend_millimicros")
        whole = np.array([counts[name] for name in names])
        now = (whole * SEEN_AT_ONCE).astype(np.int64)
        late, self._carry = self._carry, whole - now
        at = self.pane % (CREDIT_PANES + 1)
        credited = np.rint(self._spends[at] * self._shares[at]).astype(np.int64)
        self._spends[at], self._shares[at] = counts["spend_millimicros"], invalid
        origin = begin - (CREDIT_PANES + 1) * PANE_MS
        self._give_back(origin, credited)
        found: list[list[Added]] = []
        fresh, older, back = now.T.tolist(), late.T.tolist(), credited.tolist()
        for index in range(self.count):
            rows = [Added(begin, *fresh[index])] if any(fresh[index]) else []
            if any(older[index]):
                rows.append(Added(begin - PANE_MS, *older[index]))
            if back[index]:
                rows.append(Added(origin, 0, 0, 0, 0, 0, back[index]))
            found.append(rows)
        return self._silenced(found, dead)

    def _silenced(self, found: list[list[Added]], dead: set[Input]) -> list[list[Added]]:
        """Keeps back what dead producers would have told; tells everything once none is dead."""
        if not dead:
            if any(self._held):
                found = [held + rows for held, rows in zip(self._held, found, strict=True)]
                self._held = [[] for _ in range(self.count)]
            return found
        for index, rows in enumerate(found):
            parts = [_parted(row, dead, self._billed_input(index)) for row in rows]
            found[index] = [told for told, _ in parts if any(told[1:])]
            self._held[index] += [kept for _, kept in parts if any(kept[1:])]
        return found

    def _billed_input(self, index: int) -> Input:
        for name, is_it in self._by.items():
            if is_it[index]:
                return Input(name)
        return Input.IMPRESSIONS

    # Truth

    def period_of(self, index: int, at_ms: int) -> int | None:
        """Start of the period that a pane belongs to; None: outside of any live session."""
        truth = self.truths[index]
        if truth.session_hours is None:
            return day_bounds(at_ms, truth.settings.time_zone)[0]
        bounds = truth.session_bounds(at_ms)
        return bounds[0] if bounds is not None and bounds[0] <= at_ms < bounds[1] else None

    def bounds_of(self, index: int, at_ms: int) -> tuple[int, int] | None:
        """Of the period that a moment belongs to."""
        truth = self.truths[index]
        if truth.session_hours is None:
            return day_bounds(at_ms, truth.settings.time_zone)
        bounds = truth.session_bounds(at_ms)
        return bounds if bounds is not None and bounds[0] <= at_ms < bounds[1] else None

    def plan_of(self, index: int, start_ms: int) -> Planned:
        """Of a period that has begun."""
        budgets = self._budgets[index]
        known = [entry for entry in budgets if entry[0] < (self.bounds_of(index, start_ms) or (0, 0))[1]]
        at, budget, spent = known[-1]
        before = known[-2][1] if at > start_ms else budget
        return Planned(max(budget, spent) if at > start_ms else budget, budget, before)

    def planned_share(self, index: int, at_ms: int) -> float:
        """Share of the day's plan by a moment: of time for an even plan, else of the usual traffic."""
        start, end = day_bounds(at_ms - 1, self.truths[index].settings.time_zone)
        even = (at_ms - start) / (end - start)
        if self.settings[index].pacing.mode is PacingMode.EVEN:
            return even
        usual = usual_day(self.truths[index])
        place = min(even, 0.999999) * len(usual)
        sums = np.concatenate([[0.0], np.cumsum(usual)])
        return float(np.interp(place, np.arange(len(sums)), sums) / sums[-1])

    def _account(self, begin: int, supply: Floats, spends: Ints) -> None:
        if begin % HOUR_MS % (HOUR_MS // 4) == 0 or self.pane == 0:
            self._periods = [self.period_of(index, begin) for index in range(self.count)]
        supplies, amounts = supply.tolist(), spends.tolist()
        for index, period in enumerate(self._periods):
            if period is None:
                continue
            entry = self.supply[index].setdefault(period, [0.0, 0.0])
            entry[0] += supplies[index]
            entry[1] += supplies[index]
            if amounts[index]:
                self.spent[index].setdefault(period, [0, 0])[0] += amounts[index]

    def _give_back(self, origin: int, credited: Ints) -> None:
        for index in np.nonzero(credited)[0].tolist():
            period = self.period_of(index, origin)
            if period is not None and self.period_of(index, self.now_ms - 1) == period:
                self.spent[index].setdefault(period, [0, 0])[1] += int(credited[index])

    def _changed(self) -> list[Change]:
        changes = []
        while self._changes and self._changes[0][0] <= self.now_ms:
            _, index, factor = self._changes.pop(0)
            before = self.settings[index]
            daily = before.budget.daily_micros
            assert daily is not None
            budget = msgspec.structs.replace(before.budget, daily_micros=int(daily * factor))
            self.settings[index] = msgspec.structs.replace(before, budget=budget)
            period = self.period_of(index, self.now_ms - 1)
            spent = [0, 0]
            if period is not None and period in self.supply[index]:
                self.supply[index][period][1] = 0.0
                spent = self.spent[index].get(period, spent)
            self._budgets[index].append((self.now_ms, int(daily * factor), (spent[0] - spent[1]) // 1_000))
            changes.append(Change(index, before, self.settings[index]))
        return changes

    def _sessions(self) -> list[LiveSession | None]:
        for index, truth in enumerate(self.truths):
            if truth.session_hours is None:
                continue
            bounds = truth.session_bounds(self.now_ms - 1)
            if bounds is None or self.now_ms - 1 < bounds[0]:
                continue
            is_over = self.now_ms - 1 >= bounds[1]
            latest, session_id = self._latest[index], f"live-{index}-{bounds[0]}"
            state = SessionState.ENDED if is_over else SessionState.STARTED
            if latest is None or latest.live_session_id != session_id or latest.state is not state:
                self._latest[index] = LiveSession(
                    campaign_id=truth.settings.campaign_id,
                    live_session_id=session_id,
                    creator_id=f"host-{index}",
                    state=state,
                    event_time_ms=bounds[1] if is_over else bounds[0],
                    planned_end_ms=bounds[1],
                )
        return list(self._latest)


def _of_what_is_left(shares: Floats) -> Floats:
    """Each part's share of what the parts before it leave."""
    before = np.cumsum(shares, axis=0) - shares
    return np.asarray(np.clip(shares / (1 - before), 0, 1))


def _parted(row: Added, dead: set[Input], billed: Input) -> tuple[Added, Added]:
    """What is told of a pane, and what is kept back."""
    kept = Added(
        row.origin_ms,
        impressions=row.impressions if Input.IMPRESSIONS in dead else 0,
        plays=row.plays if Input.PLAYS in dead else 0,
        clicks=row.clicks if Input.CLICKS in dead else 0,
        conversions=row.conversions if Input.CONVERSIONS in dead else 0,
        spend_millimicros=row.spend_millimicros if billed in dead else 0,
    )
    told = Added(
        row.origin_ms,
        row.impressions - kept.impressions,
        row.plays - kept.plays,
        row.clicks - kept.clicks,
        row.conversions - kept.conversions,
        row.spend_millimicros - kept.spend_millimicros,
        row.credited_millimicros,
    )
    return told, kept
