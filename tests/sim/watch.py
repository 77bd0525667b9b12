"""What controls and alerts must be whatever happens, tick by tick of an undisturbed run; and which of them came."""

from typing import Final

from streams.records import Table
from streams.signals import Alert, AlertState, Audience, Control, RateReason
from streams.stages.pacing.control import START_RATE
from streams.state.journal import Tick
from streams.state.partition import Output, PartitionState
from streams.terms import AlertKind
from tests.sim.world import Broken

IMPRESSIONS: Final = "ads.impressions"
_FAR: Final = frozenset({"ctr_anomaly", "cvr_anomaly", "cpa_anomaly", "conversions_collapsed", "cost_overrun"})
"""Kinds that want days of hundreds of events each, more than a run has."""
_ENDED: Final = (
    "budget_ladder",
    "exhausted",
    "exhausted_early",
    "stalled",
    "balance_low",
    "over_delivery",
    "input_silent",
)
REACHED: Final = frozenset(
    {
        *(f"alert {kind} firing" for kind in AlertKind if kind not in _FAR),
        *(f"alert {kind} resolved" for kind in _ENDED),
        *(f"control {reason}" for reason in RateReason),
        *("history", "lull", "a day begun in a lull"),
    }
)
"""What two hundred seeds reach together."""


class Watch:
    """Sees every tick of one partition. What it knows of the state is only whether it is in a lull."""

    def __init__(self) -> None:
        self.reached: set[str] = set()
        """Kinds of alerts by state, reasons of controls, and what else a run is to reach."""
        self.firing: set[str] = set()
        self._rates: dict[str, float] = {}

    def see(self, tick: Tick, output: Output, state: PartitionState) -> None:
        """Raises `Broken` where a control or an alert is wrong by itself."""
        is_silent = IMPRESSIONS in tick.silent and tick.applied[IMPRESSIONS] > 0 and self._has_begun(state)
        is_lull = state.desk._lull.is_on
        self.reached |= {name for name, holds in (("lull", is_lull), ("history", tick.is_catching_up)) if holds}
        for signal in output.signals:
            if isinstance(signal, Control):
                self._control(signal, tick, is_silent, is_lull)
                if not tick.is_catching_up:
                    self._pools(signal.campaign_id, state)
            elif isinstance(signal, Alert):
                self._alert(signal, is_silent or tick.is_catching_up)
        if Table.ALERTS in output.rows and self.firing != state.desk.firing.keys():
            raise Broken(f"the desk lists {sorted(state.desk.firing)} as firing; told were {sorted(self.firing)}")

    @staticmethod
    def _pools(campaign: str, state: PartitionState) -> None:
        """A campaign that was looked at has no alert about a pool that it does not draw on."""
        settings = state.campaigns.current[campaign].settings
        drawn = {f"account:{settings.account_id}", f"shared:{settings.budget.shared_budget_id}", f"campaign:{campaign}"}
        for alert in state.desk.firing.values():
            if alert.campaign_id == campaign and alert.cause not in drawn:
                raise Broken(f"{campaign} has left what still fires: {alert}")

    @staticmethod
    def _has_begun(state: PartitionState) -> bool:
        return any(source.consumed() for source in state.inputs.values() if source.source == "impressions")

    def _control(self, control: Control, tick: Tick, is_silent: bool, is_lull: bool) -> None:
        """On what is unknown no rate rises; in a lull only from nothing, and to a slow start at most.

        But for what nothing limits any more: that is known from its settings.
        """
        campaign, before = control.campaign_id, self._rates.get(control.campaign_id, 0.0)
        is_blind = (is_silent and control.reason is not RateReason.UNPACED) or tick.is_catching_up
        most = max(before, START_RATE) if is_lull and before == 0.0 else before
        if is_blind and control.rate > most:
            raise Broken(f"tick {tick.seq}: nothing is known, and {campaign} goes from {before} to {control.rate}")
        if not 0.0 <= control.rate_when_stale <= control.rate <= 1.0:
            raise Broken(f"tick {tick.seq}: {control}")
        self.reached.add(f"control {control.reason}")
        if is_lull and control.rate > before:
            self.reached.add("a day begun in a lull")
        self._rates[campaign] = control.rate

    def _alert(self, alert: Alert, is_blind: bool) -> None:
        """Each occurrence fires, then is over, once; and advertisers hear nothing new while nothing is known."""
        self.reached.add(f"alert {alert.kind} {alert.state}")
        is_known = alert.alert_id in self.firing
        if alert.state is AlertState.RESOLVED:
            if not is_known:
                raise Broken(f"over, but never told: {alert}")
            self.firing.remove(alert.alert_id)
            return
        if is_known and alert.kind is not AlertKind.INPUT_SILENT:
            raise Broken(f"told twice: {alert}")
        if is_blind and alert.audience is Audience.ADVERTISER:
            raise Broken(f"told though nothing is known: {alert}")
        self.firing.add(alert.alert_id)
