"""A world of one campaign: an ad server that obeys at once, and traffic that is told in so many words."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from streams.campaigns import CampaignSettings
from streams.events import Input
from streams.signals import Allowance, LiveSession, PoolKind, SessionState
from streams.stages.pacing.campaign import CampaignPacer
from streams.stages.pacing.facts import Added, Decision, Facts
from streams.stages.pacing.shape import TrafficShape
from streams.terms import Billing, BillingModel, Budget, Pacing

PANE = 10_000
MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
CENT = 10_000
UNIT = 1_000_000
MONDAY = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp() * 1000)


def at(text: str) -> int:
    """Epoch ms of an ISO time with its offset."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def campaign(**changes: Any) -> CampaignSettings:
    """2.00 a thousand impressions, 100.00 a day; `daily`, `total` and `session` are units of money."""
    daily, total, session = (
        changes.pop(name, default) for name, default in zip(BUDGETS, (100, None, None), strict=True)
    )
    amounts = {
        f"{name}_micros": value and int(value * UNIT)
        for name, value in zip(BUDGETS, (daily, total, session), strict=True)
    }
    shared = changes.pop("shared", None)
    usual: dict[str, Any] = {
        "campaign_id": "c-1",
        "currency": "USD",
        "billing": Billing(model=BillingModel.CPM, price_micros=2 * UNIT),
        "budget": Budget(**amounts, shared_budget_id=shared),
        "pacing": Pacing(),
    }
    return CampaignSettings(**{**usual, **changes})


BUDGETS = ("daily", "total", "session")


def spent(origin_ms: int, micros: int, credited: int = 0, **counts: int) -> Added:
    """Money in micros."""
    zeros = {"impressions": 0, "plays": 0, "clicks": 0, "conversions": 0}
    return Added(
        origin_ms=origin_ms,
        **{**zeros, **counts},
        spend_millimicros=micros * 1_000,
        credited_millimicros=credited * 1_000,
    )


def facts(now_ms: int, *unknown: Input, **more: Any) -> Facts:
    """All is well unless told otherwise. `session` is told once it has happened."""
    session = more.pop("session", None)
    if session is not None and session.event_time_ms <= now_ms:
        more["sessions"] = (session,)
    return Facts(now_ms, now_ms, frozenset(unknown), more.pop("is_catching_up", False), **more)


def allowance(limit: float, day_start_ms: int | None = None) -> Allowance:
    """Units of money."""
    pool = PoolKind.BALANCE if day_start_ms is None else PoolKind.SHARED_BUDGET
    micros = int(limit * UNIT)
    return Allowance(
        campaign_id="c-1",
        pool=pool,
        pool_id="p",
        currency="USD",
        limit_micros=micros,
        day_start_ms=day_start_ms,
        left_micros=micros,
        sequence=1,
    )


def live(start_ms: int, end_ms: int | None = None, is_over: bool = False, name: str = "live-1") -> LiveSession:
    """A session of the host h-1."""
    return LiveSession(
        campaign_id="c-1",
        live_session_id=name,
        creator_id="h-1",
        state=SessionState.ENDED if is_over else SessionState.STARTED,
        event_time_ms=(end_ms or start_ms) if is_over else start_ms,
        planned_end_ms=end_ms,
    )


class Loop:
    """Steps in panes; `supply` are impressions of a pane at rate 1."""

    def __init__(
        self, settings: CampaignSettings, start_ms: int = MONDAY, supply: float | Callable[[int], float] = 20
    ) -> None:
        self.settings, self.now = settings, start_ms
        self.supply = supply if callable(supply) else (lambda _at: supply)
        self.pacer, self.shape = CampaignPacer("c-1"), TrafficShape()
        self.rates: list[float] = []
        self.decisions: list[Decision] = []
        self.more: dict[str, Any] = {}
        self.unknown: tuple[Input, ...] = ()
        self.is_mute = False
        self._rest = 0.0

    def served(self) -> int:
        """Whole impressions of a pane at the rate in force."""
        rate = self.rates[-1] if self.rates else 0.0
        self._rest += rate * self.supply(self.now)
        whole = int(self._rest)
        self._rest -= whole
        return whole

    def step(self) -> Decision:
        """One pane and one look at its end."""
        impressions = self.served()
        if impressions and not self.is_mute:
            price = self.settings.billing.price_micros or 0
            self.pacer.add(self.settings, spent(self.now, impressions * price // 1_000, impressions=impressions))
        self.now += PANE
        return self.look()

    def look(self) -> Decision:
        decision = self.pacer.evaluate(self.settings, facts(self.now - 1, *self.unknown, **self.more), self.shape)
        self.rates.append(decision.rate)
        self.decisions.append(decision)
        return decision

    def run(self, duration_ms: int) -> Decision:
        """The last decision."""
        for _ in range(duration_ms // PANE):
            decision = self.step()
        return decision

    def change(self, after: CampaignSettings) -> None:
        """Other settings from now on."""
        self.pacer.settings_changed(self.settings, after, self.now)
        self.settings = after

    def twin(self) -> "Loop":
        """The same, from its snapshot as msgpack carries it."""
        other = Loop(self.settings, self.now, self.supply)
        other.pacer.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(self.pacer.snapshot())))
        other.shape.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(self.shape.snapshot())))
        other.rates, other.more, other.unknown, other._rest = (
            list(self.rates),
            dict(self.more),
            self.unknown,
            self._rest,
        )
        other.is_mute = self.is_mute
        return other
