"""A partition at work: events, settings and notices of a paced campaign, and a tick every ten seconds."""

from typing import Any

from streams.events import Input
from streams.signals import Alert, Control, SpendReport
from streams.state.journal import Tick
from streams.state.partition import Output, PartitionState
from streams.topics import INPUT_TOPICS
from tests.unit.given import SECOND, T0, Document, Fed, batch, document, quick_rules

STEP = 10 * SECOND
BUDGET: Document = {"billing": {"model": "cpc", "price_micros": 1_000}, "budget": {"daily_micros": 10_000_000}}


class Evening:
    """A partition that is fed and ticked every ten seconds, event time and wall time alike."""

    def __init__(self, campaign: str = "c1", **settings: Any) -> None:
        self.fed = Fed(quick_rules())
        self.at_ms = T0
        self.controls: list[Control] = []
        self.alerts: list[Alert] = []
        self.reports: list[SpendReport] = []
        self._serial = 0
        self.campaign = campaign
        self.settle(campaign, **{**BUDGET, **settings})

    @property
    def state(self) -> PartitionState:
        return self.fed.state

    def settle(self, campaign: str, **settings: Any) -> None:
        self.fed.settle(campaign, appended_ms=self.at_ms, **settings)

    def notice(self, topic: str, *documents: Document) -> None:
        self.state.apply(batch(topic, self.state.position(topic), documents))

    def step(self, impressions: int = 20, clicks: int = 2, campaign: str = "") -> Output:
        """Ten seconds: events, then a tick that says which inputs were silent."""
        self.at_ms += STEP
        for source, count in ((Input.IMPRESSIONS, impressions), (Input.CLICKS, clicks)):
            self._serial += 1
            events = [
                document(source, f"e{self._serial}-{n}", self.at_ms + n * 100, campaign_id=campaign or self.campaign)
                for n in range(count)
            ]
            self.fed.feed(source, *events)
        counts = {Input.IMPRESSIONS: impressions, Input.CLICKS: clicks}
        silent = tuple(topic for source, topic in INPUT_TOPICS.items() if not counts.get(source))
        tick = Tick("claim", self.state.seq + 1, self.at_ms, self.state.positions(), silent=silent)
        output = self.state.tick(tick)
        self.take(output)
        return output

    def take(self, output: Output) -> None:
        for signal in output.signals:
            kinds: dict[type, list[Any]] = {
                Control: self.controls,
                Alert: self.alerts,
                SpendReport: self.reports,
            }
            kinds.get(type(signal), []).append(signal)


def rate_of(evening: Evening, campaign: str = "c1") -> float:
    return next((c.rate for c in reversed(evening.controls) if c.campaign_id == campaign), 1.0)
