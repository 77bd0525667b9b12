"""Machines that click: crawlers that say so, browsers in data centres, and a botnet that is slow and everywhere."""

from typing import Final

from streams.jobs.attacks_stage import Ingredient, Person, Stage
from streams.jobs.traffic_agents import CRAWLERS, DESKTOPS, PHONES
from streams.jobs.traffic_catalogue import fragment
from streams.jobs.traffic_networks import address_fragment, data_centre_networks, network_within
from streams.jobs.traffic_simulation import GeneratedEvent, Visit

BOTNET_RANKS: Final = 3
MINUTE_MS: Final = 60_000


class Crawler(Ingredient):
    """Declared bots: they follow what they find, at a machine's pace, without an account or a device."""

    def __init__(self, stage: Stage, clicks: float) -> None:
        super().__init__(stage, clicks)
        self._agents = stage.random.sample(CRAWLERS, stage.between(3, 8))
        self._machines = stage.between(5, 40)
        self._wait_ms = stage.between(400, 5_000)

    def acts_per_s(self) -> float:
        """One page each."""
        return self.clicks_per_s

    def act(self, at_ms: int) -> GeneratedEvent:
        """A page is loaded, and its link followed."""
        stage = self.stage
        machine = stage.between(0, self._machines)
        agent = self._agents[machine % len(self._agents)]
        place = address_fragment(f"crawler {stage.world.seed} {machine}")
        traits = fragment({"region": "US-CA", "device_class": "other"}) + place
        visit = stage.visit(stage.creative(is_uniform=True), Person(traits, fragment({"user_agent": agent})))
        stage.later(at_ms + 50 + stage.between(0, self._wait_ms), stage.click, visit)
        return stage.impression(at_ms, visit, viewable=None)


class DataCentre(Ingredient):
    """Browsers that run on rented machines: sessions of several clicks, each with a new account and device."""

    def __init__(self, stage: Stage, clicks: float) -> None:
        super().__init__(stage, clicks)
        self._networks = stage.random.sample(data_centre_networks(stage.profile), stage.between(3, 9))
        self._most = stage.between(4, 14)

    def acts_per_s(self) -> float:
        """One session each."""
        return self.clicks_per_s / ((1 + self._most) / 2)

    def act(self, at_ms: int) -> GeneratedEvent:
        """A session begins."""
        stage = self.stage
        name = stage.next_id()
        agent: str = stage.pick(DESKTOPS if stage.draw() < 0.7 else PHONES)
        network = network_within(stage.pick(self._networks), stage.between(0, 256))
        fields = {"user_id": f"u{stage.stranger(1, stage.between(0, 1_000_000))}", "region": "CN-GD"}
        fields |= {"device_class": "phone" if agent in PHONES else "desktop", "device_id": f"d{name:0>13}"}
        fields |= {"address_id": f"a{stage.random.getrandbits(48):012x}", "network": network}
        person = Person(fragment(fields), fragment({"user_agent": agent}))
        return self._show(at_ms, person, 1 + stage.between(0, self._most))

    def _show(self, at_ms: int, person: Person, left: int) -> GeneratedEvent:
        stage = self.stage
        visit = stage.visit(stage.creative(), person)
        stage.later(at_ms + stage.between(400, 4_000), stage.click, visit)
        if left > 1:
            stage.later(at_ms + stage.between(5_000, 90_000), self._show, person, left - 1)
        return stage.impression(at_ms, visit, stage.draw() < 0.8)


class Botnet(Ingredient):
    """Thousands of people's devices, each a few clicks a day with a person's pauses; nobody ever buys."""

    def __init__(self, stage: Stage, clicks: float) -> None:
        super().__init__(stage, clicks)
        self._daily = stage.random.uniform(2, 5)
        self._devices = max(1_000, int(self.clicks_per_s * 86_400 / self._daily))
        self._shown = stage.random.uniform(2, 5)  # impressions for each click
        publishers = stage.catalogue.placements
        self._publishers = stage.random.sample(publishers, stage.between(6, 15))  # whom it pays

    def acts_per_s(self) -> float:
        """One impression each."""
        return self.clicks_per_s * self._shown

    def act(self, at_ms: int) -> GeneratedEvent:
        """An ad is shown on one of the devices, and perhaps clicked."""
        stage = self.stage
        rank = stage.stranger(BOTNET_RANKS, stage.between(0, self._devices))
        visit = stage.visit(stage.creative(), stage.person(at_ms, rank), stage.pick(self._publishers))
        if stage.draw() * self._shown < 1:
            stage.later(at_ms + _looked_ms(stage), self._click, visit)
        return stage.impression(at_ms, visit, stage.draw() < 0.7)

    def _click(self, at_ms: int, visit: Visit) -> GeneratedEvent:
        return self.stage.click(at_ms, visit)


def _looked_ms(stage: Stage) -> int:
    """As long as people look."""
    return 500 + int(14_000 * stage.draw() * stage.draw())
