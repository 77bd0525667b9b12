"""The pacing desk of a partition: its campaigns' spend, plans, controls and alerts, looked at in turn at ticks.

Everything here is a function of the logs and of the journal's ticks: recovery and replay give the same controls,
alerts and ids. A campaign is looked at every `LOOK_MS` of the ticks' wall time, many campaigns in turns.
"""

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from streams.campaigns import CampaignSettings
from streams.events import Input
from streams.records import Row, Table
from streams.rules import HOUR_MS
from streams.signals import (
    Alert,
    AlertState,
    Allowance,
    Control,
    LiveSession,
    PoolKind,
    RateReason,
    SpendReport,
)
from streams.stages.alerting.campaign import CampaignAlerts
from streams.stages.alerting.facts import AlertFacts, InvalidCounts, PartitionFacts
from streams.stages.alerting.partition import PartitionAlerts
from streams.stages.pacing.amounts import is_paced
from streams.stages.pacing.campaign import CampaignPacer
from streams.stages.pacing.facts import Added, Decision, Facts
from streams.stages.pacing.shape import TrafficShape
from streams.state.campaigns import Version
from streams.state.live_sessions import LiveSessions
from streams.state.lull import Lull, Shown
from streams.state.pacing_rows import alert_row, pacing_row
from streams.state.windows import DAY, WINDOW_INDEX, Windows, day_bounds

LOOK_MS: Final = 3_000
"""Wall time between two looks at a campaign: a control reflects a record within this, a tick and an append."""
SLOT_MS: Final = 500
"""Many campaigns take turns: in slots of about a tick, so that no tick has to look at all and tell all."""
SLOT_CAMPAIGNS: Final = 50
"""So many share a slot before there is another; few are looked at together, for each slot wakes an idle partition."""
MAX_LOOKS: Final = 400
"""Campaigns looked at in one tick, so that no tick takes long; beyond it looks become rarer, and a metric says so."""
REPORT_MS: Final = 5_000
"""Wall time between two reports of a campaign's spend, at least."""
ROW_MS: Final = 15_000
"""Wall time between two rows of a campaign's minute, where only its spend has changed."""
CONTROL_VALID_MS: Final = 30_000
"""How long a control holds: several looks, so that one lost is no harm."""
MAX_CAMPAIGNS: Final = 10_000
"""Campaigns with settings that are looked at, in one partition; beyond it a campaign is measured only, and counted."""
ENDED_MS: Final = 30 * 24 * HOUR_MS
"""At that bound campaigns give way whose flight ended longer ago, event time: credits and late spend are over by then.
One whose flight is prolonged even later begins anew, as if it had spent nothing."""
_NEVER: Final = 2**62
MAX_POOLS: Final = 4
"""Pools that a campaign draws on; an allowance of a further one is not taken, and counted."""
MAX_FIRING: Final = 20_000
"""Firing alerts that are listed; one beyond it is told all the same, and counted."""
_SPEND: Final = WINDOW_INDEX["spend_millimicros"]


class World(NamedTuple):
    """What a tick lets the desk see."""

    now_ms: int
    """Newest event time of the partition; -1: no event yet."""
    wall_ms: int
    unknown: frozenset[Input]
    alarming: frozenset[Input]
    """Of these, what operations should hear of."""
    last_heard: Mapping[Input, int]
    """Newest event time by input."""
    is_catching_up: bool
    settings: Mapping[str, Version]
    windows: Windows


class Looked(msgspec.Struct):
    """What a tick's looks give out: rows without their version, and messages without their sequence."""

    rows: dict[Table, list[Row]] = msgspec.field(default_factory=lambda: {Table.PACING: [], Table.ALERTS: []})
    controls: list[Control] = msgspec.field(default_factory=list)
    alerts: list[Alert] = msgspec.field(default_factory=list)
    reports: list[SpendReport] = msgspec.field(default_factory=list)


class Told(NamedTuple):
    """What the last row said, and the wall time at which it did."""

    minute: int = -1
    reason: str = ""
    spend: int = 0
    wall_ms: int = 0

    def is_outdated(self, minute: int, reason: str, spend: int, wall_ms: int) -> bool:
        """Whether another row is due: at once for another minute or reason, a little later for what was spent since."""
        if (minute, reason) != (self.minute, self.reason):
            return True
        return spend != self.spend and wall_ms >= self.wall_ms + ROW_MS


class Held(msgspec.Struct):
    """One campaign at the desk."""

    pacer: CampaignPacer
    alerts: CampaignAlerts
    decision: Decision | None = None
    told: Told = Told()
    reported_ms: int = 0
    """When its spend was last reported to its pools, wall time."""
    shown: Shown = msgspec.field(default_factory=Shown)


class PacingDesk:
    """One partition's campaigns. Feed it (`add`, `add_cohort`), then `look` at every tick."""

    def __init__(self, partition: int, log_epoch: int) -> None:
        self.partition = partition
        self.log_epoch = log_epoch
        self.shape = TrafficShape()
        self.held: dict[str, Held] = {}
        self.firing: dict[str, Alert] = {}
        """Alerts that fire now, by id."""
        self.told: dict[tuple[str, str], int] = {}
        """Alerts told so far, by kind and state."""
        self.untracked = 0
        self.overdue_ms = 0
        """How much later than planned the last look came."""
        self._partition_alerts = PartitionAlerts(partition)
        self._lull = Lull()
        self._turns: list[tuple[int, str]] = []
        """When each campaign is due, wall time: a heap."""
        self._allowances: dict[str, dict[str, Allowance]] = {}
        self._sessions = LiveSessions()
        self._staged: list[LiveSession | Allowance] = []
        self._ended_from_ms = 0
        """No campaign gives way before this event time, so none is looked for. Not kept: it spares work only."""

    # What comes in

    def stage_session(self, session: LiveSession, _appended_ms: int) -> None:
        """A record was applied; it waits for the next tick."""
        self._staged.append(session)

    def stage_allowance(self, allowance: Allowance, _appended_ms: int) -> None:
        """A record was applied; it waits for the next tick."""
        self._staged.append(allowance)

    def take_staged(self) -> None:
        """At a tick: sessions and allowances take effect, in the order of their logs."""
        staged, self._staged = self._staged, []
        for notice in staged:
            if isinstance(notice, LiveSession):
                self.untracked += not self._sessions.take(notice)
            else:
                self._take_allowance(notice)

    def _take_allowance(self, allowance: Allowance) -> None:
        pools = self._allowances.get(allowance.campaign_id, {})
        name = _name(allowance.pool, allowance.pool_id)
        is_full = name not in pools and len(pools) >= MAX_POOLS
        if is_full or (not pools and len(self._allowances) >= MAX_CAMPAIGNS):
            self.untracked += 1
        elif name not in pools or allowance.sequence >= pools[name].sequence:
            self._allowances.setdefault(allowance.campaign_id, pools)[name] = allowance

    def time_ms(self, now_ms: int, wall_ms: int, unknown: frozenset[Input], is_catching_up: bool) -> int:
        """At a tick, before anything is added: event time, or in a lull the time by which that goes."""
        return self._lull.time_ms(now_ms, wall_ms, Input.IMPRESSIONS in unknown, is_catching_up)

    def settings_changed(
        self, before: Version | None, after: Version, now_ms: int, wall_ms: int, settings: Mapping[str, Version]
    ) -> None:
        """A version of a campaign's settings is in force from this tick on; `settings` are those of all campaigns."""
        campaign = after.settings.campaign_id
        held = self.held.get(campaign)
        if held is None:
            if len(self.held) >= MAX_CAMPAIGNS and now_ms >= self._ended_from_ms:
                self._forget_ended(now_ms, settings)
            if len(self.held) >= MAX_CAMPAIGNS:
                self.untracked += 1
                return
            held = self.held[campaign] = Held(CampaignPacer(campaign), CampaignAlerts(campaign))
            heappush(self._turns, (wall_ms, campaign))
        self._ended_from_ms = min(self._ended_from_ms, _gives_way_ms(after.settings))
        held.pacer.settings_changed(before.settings if before else None, after.settings, now_ms)
        used = _pools(after.settings)
        kept = {name: a for name, a in self._allowances.pop(campaign, {}).items() if name in used}
        if kept:
            self._allowances[campaign] = kept

    def _forget_ended(self, now_ms: int, settings: Mapping[str, Version]) -> None:
        """Everything about the campaigns that give way."""
        until = {campaign: _gives_way_ms(settings[campaign].settings) for campaign in self.held}
        ended = {campaign for campaign, at_ms in until.items() if at_ms <= now_ms}
        for campaign in ended:
            del self.held[campaign]
            self._allowances.pop(campaign, None)
            self._sessions.forget(campaign)
        self._turns = [turn for turn in self._turns if turn[1] not in ended]
        heapify(self._turns)
        self.firing = {name: alert for name, alert in self.firing.items() if alert.campaign_id not in ended}
        self._ended_from_ms = min((at_ms for campaign, at_ms in until.items() if campaign not in ended), default=_NEVER)

    def add(self, campaign: str, added: Added, settings: Mapping[str, Version]) -> None:
        """What this tick adds to one campaign's origin pane."""
        held = self.held.get(campaign)
        if held is not None:
            held.pacer.add(settings[campaign].settings, added)
            held.alerts.add(added)

    def add_traffic(self, campaign: str, origin_ms: int, impressions: int, settings: Mapping[str, Version]) -> None:
        """Impressions that this tick adds to an origin pane of a campaign that is held; '': of all that are not.

        The shape learns what they would have been unthrottled: from what the desk let through it would learn itself.
        """
        if impressions <= 0:
            return
        held = self.held.get(campaign)
        if held is not None and is_paced(settings[campaign].settings):
            self.shape.add(origin_ms, held.pacer.unthrottled(impressions))
            held.shown.at_ms = max(held.shown.at_ms, origin_ms)
        else:
            self.shape.add(origin_ms, impressions)
            self._lull.free_ms = max(self._lull.free_ms, origin_ms)

    def add_cohort(self, campaign: str, click_hour_ms: int, age_bucket_ms: int, conversions: int) -> None:
        """Conversions by the hour of their click and their age."""
        held = self.held.get(campaign)
        if held is not None:
            held.alerts.add_cohort(click_hour_ms, age_bucket_ms, conversions)

    # Looks

    def look(self, world: World) -> Looked:
        """At a tick, after everything was added: looks at the campaigns whose turn it is."""
        looked = Looked()
        if world.now_ms < 0:
            return looked
        is_silent = Input.IMPRESSIONS in world.unknown
        paced = (held.shown for held in self.held.values())
        now_ms = self._lull.look(world.now_ms, world.wall_ms, is_silent, world.is_catching_up, paced)
        missed = frozenset[Input]() if self._lull.is_on else world.alarming
        silent = {source: world.last_heard[source] for source in Input if source in missed}
        facts = PartitionFacts(world.now_ms, world.wall_ms, self.partition, silent, world.is_catching_up)
        self._tell(self._partition_alerts.evaluate(facts), looked)
        due = self._due(world.wall_ms)
        self.overdue_ms = world.wall_ms - due[0][0] if due else 0
        for _, campaign in due:
            self._look_at(campaign, world, now_ms, looked)
            heappush(self._turns, (self._next_turn(campaign, world.wall_ms), campaign))
        return looked

    def _next_turn(self, campaign: str, wall_ms: int) -> int:
        """The next begin of the campaign's slot: within `LOOK_MS`, and that often however late this look came."""
        slots = min(LOOK_MS // SLOT_MS, 1 + len(self.held) // SLOT_CAMPAIGNS)
        begins = crc32(campaign.encode()) % slots * SLOT_MS
        return wall_ms + LOOK_MS - (wall_ms - begins) % LOOK_MS

    def _due(self, wall_ms: int) -> list[tuple[int, str]]:
        due: list[tuple[int, str]] = []
        while self._turns and self._turns[0][0] <= wall_ms and len(due) < MAX_LOOKS:
            due.append(heappop(self._turns))
        return due

    def has_look_due(self, wall_ms: int) -> bool:
        """Whether a tick at this time would look at a campaign."""
        return bool(self._turns) and self._turns[0][0] <= wall_ms

    def _look_at(self, campaign: str, world: World, now_ms: int, looked: Looked) -> None:
        held, settings = self.held[campaign], world.settings[campaign].settings
        known = self._allowances.get(campaign, {})
        allowances = tuple(known[name] for name in _pools(settings) if name in known)
        decision = None
        unknown = world.unknown | {Input.IMPRESSIONS} if world.is_catching_up else world.unknown
        report_ms = now_ms  # in a lull of whoever has begun again, too: a pool's day does not go back
        is_lull = self._lull.is_on and held.pacer.rate == 0.0
        if is_lull:
            unknown = frozenset()  # nothing comes because nothing is let through: what is 0 may begin again
        else:
            now_ms = world.now_ms
        if is_paced(settings):
            sessions = self._sessions.happened(campaign, now_ms)
            facts = Facts(now_ms, world.wall_ms, unknown, world.is_catching_up, allowances, sessions, is_lull)
            decision = held.pacer.evaluate(settings, facts, self.shape)
            held.shown.decided(decision.rate, now_ms)
            self._tell_decision(held, settings, decision, now_ms, world.wall_ms, looked)
        elif held.told.reason not in ("", RateReason.UNPACED) and not world.is_catching_up:
            self._lull.free_ms = max(self._lull.free_ms, held.shown.at_ms)  # it is let through like who never had one
            last = held.pacer.release(settings, now_ms)
            self._tell_decision(held, settings, last, now_ms, world.wall_ms, looked)
        held.decision = decision
        is_alive = Input.IMPRESSIONS not in world.unknown
        told = AlertFacts(
            now_ms=world.now_ms,
            wall_ms=world.wall_ms,
            partition=self.partition,
            unknown=world.unknown,
            is_catching_up=world.is_catching_up,
            decision=decision,
            allowances=allowances,
            partition_is_alive=is_alive,
            invalid=_invalid(world.windows.totals(campaign, "1h")),
        )
        self._tell(held.alerts.evaluate(settings, told), looked)
        if world.wall_ms >= held.reported_ms + REPORT_MS:
            held.reported_ms = world.wall_ms
            looked.reports.extend(self._reports(campaign, held, world, report_ms))

    def _tell_decision(
        self, held: Held, settings: CampaignSettings, decision: Decision, now_ms: int, wall_ms: int, looked: Looked
    ) -> None:
        looked.controls.append(self._control(settings.campaign_id, decision, wall_ms))
        now = (now_ms // 60_000, decision.reason.value, decision.spend.valid, wall_ms)
        if held.told.is_outdated(*now):
            held.told = Told(*now)
            row = pacing_row(self.log_epoch, self.partition, settings, now_ms, decision)
            looked.rows[Table.PACING].append(row)

    def _tell(self, alerts: list[Alert], looked: Looked) -> None:
        for alert in alerts:
            change = (alert.kind.value, alert.state.value)
            self.told[change] = self.told.get(change, 0) + 1
            if alert.state is not AlertState.FIRING:
                self.firing.pop(alert.alert_id, None)
            elif len(self.firing) < MAX_FIRING:
                self.firing[alert.alert_id] = alert
            else:
                self.untracked += 1
        looked.alerts.extend(alerts)
        looked.rows[Table.ALERTS].extend(alert_row(self.log_epoch, self.partition, alert) for alert in alerts)

    def _control(self, campaign: str, decision: Decision, wall_ms: int) -> Control:
        return Control(
            campaign_id=campaign,
            rate=decision.rate,
            reason=decision.reason,
            valid_until_ms=wall_ms + CONTROL_VALID_MS,
            rate_when_stale=decision.rate_when_stale,
            spend_micros=decision.spend.valid // 1000,
            period_start_ms=decision.period_start_ms,
            decided_ms=wall_ms,
        )

    def _reports(self, campaign: str, held: Held, world: World, now_ms: int) -> list[SpendReport]:
        """One for each pool that the campaign draws on."""
        settings = world.settings[campaign].settings
        pools = _pools(settings)
        if not pools:
            return []
        decision = held.decision
        in_flight = decision.in_flight_millimicros if decision else 0
        day_start, _ = day_bounds(now_ms, settings.time_zone)
        is_of_events = world.now_ms >= day_start  # in a lull time goes on, and no event has told of the day yet
        day, hour = (world.windows.totals(campaign, name)[_SPEND] if is_of_events else 0 for name in (DAY, "1h"))
        known = self._allowances.get(campaign, {})
        found = []
        for name, (kind, pool) in pools.items():
            allowance = known.get(name)
            found.append(
                SpendReport(
                    campaign_id=campaign,
                    advertiser_id=settings.advertiser_id or "",
                    currency=settings.currency,
                    pool=kind,
                    pool_id=pool,
                    spend_micros=(held.pacer.ledger.paced + in_flight) // 1000,
                    day_start_ms=day_start,
                    day_spend_micros=(day + in_flight) // 1000,
                    demand_micros_per_h=decision.demand_micros_per_h if decision else 0,
                    spend_last_hour_micros=max(0, hour // 1000),
                    baseline_micros=allowance.baseline_micros if allowance else 0,
                    baseline_as_of_ms=allowance.as_of_ms if allowance else 0,
                    at_ms=now_ms,
                )
            )
        return found

    # Checkpoints

    def snapshot(self) -> dict[str, Any]:
        """The desk as plain values, without the campaigns."""
        return {
            "shape": self.shape.snapshot(),
            "untracked": self.untracked,
            "firing": [msgspec.to_builtins(alert) for alert in self.firing.values()],
            "told": list(self.told.items()),
            "partition_alerts": self._partition_alerts.snapshot(),
            "lull": self._lull.snapshot(),
            "turns": sorted(self._turns),
            "allowances": [[msgspec.to_builtins(a) for a in pools.values()] for pools in self._allowances.values()],
            "sessions": self._sessions.snapshot(),
            "staged": [(type(n) is LiveSession, msgspec.to_builtins(n)) for n in self._staged],
            "campaigns": [
                (campaign, h.shown.snapshot(), h.told, h.reported_ms, h.pacer.snapshot(), h.alerts.snapshot())
                for campaign, h in self.held.items()
            ],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.shape.restore(snapshot["shape"])
        self.untracked = snapshot["untracked"]
        self._ended_from_ms = 0
        self.firing = {alert.alert_id: alert for alert in msgspec.convert(snapshot["firing"], list[Alert])}
        self.told = {(kind, state): count for (kind, state), count in snapshot["told"]}
        self._partition_alerts.restore(snapshot["partition_alerts"])
        self._lull.restore(snapshot["lull"])
        self._turns = [(due, campaign) for due, campaign in snapshot["turns"]]
        pools = [msgspec.convert(pools, list[Allowance]) for pools in snapshot["allowances"]]
        self._allowances = {p[0].campaign_id: {_name(a.pool, a.pool_id): a for a in p} for p in pools}
        self._sessions.restore(snapshot["sessions"])
        self._staged = [
            msgspec.convert(notice, LiveSession) if is_session else msgspec.convert(notice, Allowance)
            for is_session, notice in snapshot["staged"]
        ]
        self.held = {}
        for campaign, shown, told, reported_ms, pacer, alerts in snapshot["campaigns"]:
            held = self.held[campaign] = Held(CampaignPacer(campaign), CampaignAlerts(campaign))
            held.told, held.reported_ms, held.shown = Told(*told), reported_ms, Shown(*shown)
            held.pacer.restore(pacer)
            held.alerts.restore(alerts)


def _gives_way_ms(settings: CampaignSettings) -> int:
    """From when on a campaign gives way to others, event time."""
    return _NEVER if settings.flight_end_ms is None else settings.flight_end_ms + ENDED_MS


def _pools(settings: CampaignSettings) -> dict[str, tuple[PoolKind, str]]:
    """The pools that a campaign draws on, by name."""
    pools = [(PoolKind.BALANCE, settings.account_id), (PoolKind.SHARED_BUDGET, settings.budget.shared_budget_id)]
    return {_name(kind, pool): (kind, pool) for kind, pool in pools if pool}


def _name(kind: PoolKind, pool: str) -> str:
    return f"{kind}:{pool}"


def _invalid(hour: Sequence[int]) -> InvalidCounts:
    return InvalidCounts(clicks=_invalid_of(hour, "clicks"), impressions=_invalid_of(hour, "impressions"))


def _invalid_of(hour: Sequence[int], name: str) -> tuple[int, int]:
    """(invalid, gross) of the last hour."""
    valid, gross = hour[WINDOW_INDEX[name]], hour[WINDOW_INDEX[f"gross_{name}"]]
    return min(gross, max(0, gross - valid)), gross
