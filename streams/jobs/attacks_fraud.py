"""Fraud with a purse behind it: a click farm, a publisher that floods, injected clicks, clicks sent again."""

from typing import Final

import msgspec

from streams.events import ConversionType
from streams.jobs.attacks_stage import Ingredient, Person, Stage, placement_of
from streams.jobs.traffic_agents import PHONES
from streams.jobs.traffic_catalogue import PUBLISHERS, Creative, fragment
from streams.jobs.traffic_documents import Touch
from streams.jobs.traffic_networks import address_fragment
from streams.jobs.traffic_shape import HOUR_MS, scaled
from streams.jobs.traffic_simulation import GeneratedEvent, Visit

MINUTE_MS: Final = 60_000
FARM_RANKS: Final = 2
FASTEST: Final = {ConversionType.INSTALL: (50, 1_900), ConversionType.LEAD: (50, 950)}
"""From the injected click to the conversion that it takes the credit for, ms: the click is sent when the install is
noticed (AppsFlyer: under 2 s), or when the form is sent (under a second)."""


class ClickFarm(Ingredient):
    """Tens of devices behind a few addresses, each clicking hundreds of ads over many campaigns and accounts."""

    def __init__(self, stage: Stage, clicks: float) -> None:
        super().__init__(stage, clicks)
        pause_s = stage.random.uniform(15, 28)  # of one device
        self._devices = max(4, round(self.clicks_per_s * pause_s))
        self._addresses = stage.between(2, 6)
        self._accounts = stage.between(10, 31)
        """Of each device."""
        self._turn_ms = stage.between(2 * MINUTE_MS, 5 * MINUTE_MS)
        """How long an account is used before the next."""

    def acts_per_s(self) -> float:
        """One ad each."""
        return self.clicks_per_s

    def act(self, at_ms: int) -> GeneratedEvent:
        """A device shows an ad, and it is tapped."""
        stage, device = self.stage, self.stage.between(0, self._devices)
        turn = (at_ms // self._turn_ms * 7 + device) % self._accounts
        account = stage.stranger(FARM_RANKS, device * self._accounts + turn)
        name = f"farm {stage.world.seed}"
        fields = {"user_id": f"u{account}", "region": "CN-HN", "device_class": "phone"}
        fields["device_id"] = f"d{stage.world.seed & 0xFFFFFFFF:08x}{device:05x}"
        traits = fragment(fields) + address_fragment(f"{name} {device % self._addresses}")
        person = Person(traits, fragment({"user_agent": PHONES[device % len(PHONES)]}), account & 1)
        visit = stage.visit(stage.creative(is_uniform=True), person)
        stage.later(at_ms + stage.between(400, 3_000), self._click, visit)
        return stage.impression(at_ms, visit)

    def _click(self, at_ms: int, visit: Visit) -> GeneratedEvent:
        return self.stage.click(at_ms, visit)


class Flooding(Ingredient):
    """A publisher's app sends clicks in the names of its users, most without an ad that was shown; few ever buy.

    What is bought after all is spread flatly over the following hours (AppsFlyer on click flooding).
    """

    def __init__(self, stage: Stage, clicks: float) -> None:
        super().__init__(stage, clicks)
        self._publishers = [
            placement_of(
                stage.profile,
                publisher_id=f"pub-{PUBLISHERS + 1 + number}",
                channel="exchange-1",
                placement="app-banner",
                placement_width_px=320,
                placement_height_px=50,
            )
            for number in range(stage.between(1, 3))
        ]
        self._unseen = stage.random.uniform(0.5, 0.9)
        """Share of its clicks that name an impression that nobody was shown."""
        self._bought = stage.random.uniform(0.02, 0.08)
        """Conversions, of what honest clicks lead to."""

    def acts_per_s(self) -> float:
        """One click each."""
        return self.clicks_per_s

    def act(self, at_ms: int) -> GeneratedEvent:
        """A click, or an ad that is clicked later."""
        stage = self.stage
        visit = stage.visit(stage.creative(), stage.person(at_ms), stage.pick(self._publishers))
        if stage.draw() < self._unseen:
            return self._click(at_ms, visit)
        stage.later(at_ms + stage.between(500, 9_000), self._click, visit)
        return stage.impression(at_ms, visit, stage.draw() < 0.2)

    def _click(self, at_ms: int, visit: Visit) -> GeneratedEvent:
        stage, offer, event_id = self.stage, visit.creative.offer, self.stage.next_id()
        if offer and stage.draw() < offer.cvr * self._bought:
            after_ms = scaled(stage.between(HOUR_MS // 6, 24 * HOUR_MS), stage.profile.compress)
            touch = Touch("click", event_id, at_ms)
            stage.later(at_ms + max(after_ms, 5_000), stage.conversion, visit, offer.goal, touch)
        return stage.click(at_ms, visit, event_id)


class Injection(Ingredient):
    """An app that notices an install or a form, and sends a click just before it: the credit is stolen."""

    def __init__(self, stage: Stage, clicks: float) -> None:
        super().__init__(stage, clicks)
        found = [c for c in stage.catalogue.campaigns if c[0].offer and c[0].offer.goal in FASTEST]
        self._campaigns = found or list(stage.catalogue.campaigns)
        self._publishers = stage.random.sample(stage.catalogue.placements, stage.between(2, 6))
        self._invents = stage.random.uniform(0.3, 1.0)
        """Share of its clicks that name an impression; there was none."""

    def acts_per_s(self) -> float:
        """One click each."""
        return self.clicks_per_s

    def act(self, at_ms: int) -> GeneratedEvent:
        """The click; the conversion follows at once."""
        stage = self.stage
        creative: Creative = stage.pick(stage.pick(self._campaigns))
        invented = stage.next_id() if stage.draw() < self._invents else ""
        visit = stage.visit(creative, stage.person(at_ms), stage.pick(self._publishers), invented)
        goal = creative.offer.goal if creative.offer else ConversionType.INSTALL
        kind = goal if goal in FASTEST else ConversionType.INSTALL
        event_id = stage.next_id()
        after_ms = stage.between(*FASTEST[kind])
        stage.later(at_ms + after_ms, stage.conversion, visit, kind, Touch("click", event_id, at_ms))
        return stage.click(at_ms, visit, event_id)


class Replay(Ingredient):
    """A real click that is sent again and again, under new ids and from elsewhere, minutes to hours later."""

    watches = True

    def __init__(self, stage: Stage, clicks: float) -> None:
        super().__init__(stage, clicks)
        self._times_each = stage.between(40, 90)
        self._first_ms = stage.between(MINUTE_MS, 10 * MINUTE_MS)
        self._spread_ms = stage.between(20 * MINUTE_MS, 100 * MINUTE_MS)
        self._addresses = stage.between(3, 30)

    def watch(self, click: GeneratedEvent) -> None:
        """Some are recorded, and will be replayed."""
        stage = self.stage
        if stage.draw() * self._times_each >= self.clicks or b'"campaign_id"' not in click.value:
            return
        for _ in range(self._times_each):
            at_ms = click.event_time_ms + self._first_ms + stage.between(0, self._spread_ms)
            stage.later(max(at_ms, click.deliver_at_ms + 1), self._send, click)

    def _send(self, at_ms: int, click: GeneratedEvent) -> GeneratedEvent:
        stage = self.stage
        changes: dict[str, object] = {}
        if stage.profile.detail == "full":
            name = f"replay {stage.world.seed} {stage.between(0, self._addresses)}"
            changes = msgspec.json.decode("{" + address_fragment(name)[1:] + "}")
        return stage.again(click, at_ms, **changes)


class DoubleClick(Ingredient):
    """An accidental second tap within a second. Nobody's attack; its second click is invalid (MRC)."""

    watches = True

    def watch(self, click: GeneratedEvent) -> None:
        """Some are tapped twice."""
        if self.stage.draw() < self.clicks:
            again_ms = click.event_time_ms + self.stage.between(80, 700)
            self.stage.later(max(again_ms, click.deliver_at_ms), self._tap, click, again_ms)

    def _tap(self, at_ms: int, click: GeneratedEvent, again_ms: int) -> GeneratedEvent:
        return self.stage.again(click, again_ms)._replace(deliver_at_ms=at_ms)
