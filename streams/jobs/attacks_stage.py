"""What attackers and oddities share: a clock of their own, people, documents such as honest events have.

Each kind draws from its own seeded `random.Random`, so that asking for one more changes neither the honest events nor
those of the others. What an ingredient will do waits in one heap of the whole mixture.
"""

import heapq
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final, NamedTuple

import msgspec
import xxhash

from streams.events import ConversionType, Input
from streams.jobs.traffic_catalogue import Audience, Catalogue, Creative, fragment
from streams.jobs.traffic_documents import Purchase, Touch, attribution_json, click_json, price_json, purchase_json
from streams.jobs.traffic_profile import TrafficProfile
from streams.jobs.traffic_shape import arrivals, chooser, rank_drawer, zipf_weights
from streams.jobs.traffic_simulation import GeneratedEvent, Visit, clicks_per_s

Step = Callable[..., GeneratedEvent | None]
STRANGERS: Final = 1_000_000
"""Ranks apart of the accounts of each kind of attacker; honest users have lower ones."""


class Agenda:
    """What is to come, by time. Bounded: beyond the bound it is cut, and counted."""

    def __init__(self, end_ms: float, max_pending: int) -> None:
        self._end_ms, self._max = end_ms, max_pending
        self._pending: list[tuple[int, int, Step, tuple[Any, ...]]] = []
        self._scheduled = 0
        self.cut = 0

    def later(self, at_ms: int, step: Step, *more: Any) -> None:
        """At that time `step(at_ms, *more)` gives an event, or None."""
        if at_ms >= self._end_ms:
            return
        if len(self._pending) >= self._max:
            self.cut += 1
            return
        self._scheduled += 1
        heapq.heappush(self._pending, (at_ms, self._scheduled, step, more))

    def until(self, at_ms: float) -> Iterator[GeneratedEvent]:
        """What is due by then, in order; what comes of it as well."""
        pending = self._pending
        while pending and pending[0][0] <= at_ms:
            due, _, step, more = heapq.heappop(pending)
            if (event := step(due, *more)) is not None:
                yield event


class Person(NamedTuple):
    """Who acts: fragments for every event, and for those that carry the agent."""

    traits: str
    agent: str
    arm: int = 0


class World(NamedTuple):
    """What honest traffic is made of."""

    profile: TrafficProfile
    seed: int
    catalogue: Catalogue
    audience: Audience
    agenda: Agenda
    honest_per_s: float
    """Clicks, in the mean."""


def world_of(profile: TrafficProfile, seed: int, catalogue: Catalogue) -> World:
    """The world that a profile describes."""
    agenda = Agenda(profile.end_ms, profile.max_pending)
    return World(profile, seed, catalogue, Audience(profile), agenda, clicks_per_s(profile, catalogue))


class Stage:
    """What one kind acts on. `truth` is written beside its events, never into them."""

    def __init__(self, world: World, name: str, truth: str = "") -> None:
        self.world, self.name, self.truth = world, name, truth
        self.profile, self.catalogue = world.profile, world.catalogue
        self.random = random = Random(f"{name} {world.seed}")
        self.draw = random.random
        self.later = world.agenda.later
        plain = msgspec.structs.replace(world.profile, duration_ms=None, attacks={}, oddities={})
        self._run = xxhash.xxh3_64_hexdigest(f"{name} {world.seed} {plain}".encode())[:9]
        self._sent = 0
        self._user = rank_drawer(world.profile.users, world.profile.user_skew, random)
        self._publisher = chooser(zipf_weights(len(world.catalogue.placements), 0.8), random)
        self._campaign = chooser(zipf_weights(world.profile.campaigns, world.profile.campaign_skew), random)

    def arrivals(self, per_s: float) -> Iterator[int]:
        """Times with the daily cycle of all traffic, a Poisson process."""
        return (at for at, _ in arrivals(self.profile, per_s, self.random)) if per_s > 0 else iter(())

    def next_id(self) -> str:
        """Of an event; no event of another kind has it."""
        self._sent += 1
        return f"{self._run}-{self._sent:x}"

    def between(self, low: float, high: float) -> int:
        """A whole number, every one as likely."""
        return int(low + (high - low) * self.draw())

    def pick(self, choices: Any) -> Any:
        """One of them."""
        return choices[int(len(choices) * self.draw())]

    def person(self, at_ms: int, user: int | None = None) -> Person:
        """The user at a rank, or one as honest traffic has them."""
        rank = self._user() if user is None else user
        return Person(*self.world.audience.fragments(rank, at_ms), rank & 1)

    def stranger(self, kind: int, number: int) -> int:
        """A rank beyond the honest users'."""
        return self.profile.users + kind * STRANGERS + number

    def creative(self, is_uniform: bool = False) -> Creative:
        """Of campaigns as honest traffic has them, or each campaign as likely."""
        campaigns = self.catalogue.campaigns
        creative: Creative = self.pick(self.pick(campaigns) if is_uniform else campaigns[self._campaign()])
        return creative

    def visit(self, creative: Creative, person: Person, placement: str = "", impression_id: str | None = None) -> Visit:
        """What its events share. With an impression id of '' clicks name none."""
        arms = creative.arms[person.arm] if creative.arms else ""
        place = placement or self.catalogue.placements[self._publisher()]
        shown = self.next_id() if impression_id is None else impression_id
        return Visit(shown, creative, creative.fragment + place + person.traits + arms, person.agent)

    def impression(self, at_ms: int, visit: Visit, viewable: bool | None = True) -> GeneratedEvent:
        """The ad is shown."""
        seen = "" if viewable is None else f',"viewable":{"true" if viewable else "false"}'
        offer = visit.creative.offer
        price = price_json(offer.impression_price_millimicros, self.draw()) if offer else ""
        return self.event(Input.IMPRESSIONS, at_ms, visit, visit.impression_id, seen + price + visit.agent)

    def click(self, at_ms: int, visit: Visit, event_id: str | None = None) -> GeneratedEvent:
        """And is clicked."""
        more = click_json(visit.impression_id, visit.creative.click_type, at_ms - 1_500 + self.between(0, 3_000))
        offer = visit.creative.offer
        price = price_json(offer.click_price_millimicros, self.draw()) if offer else ""
        return self.event(Input.CLICKS, at_ms, visit, event_id or self.next_id(), more + price + visit.agent)

    def conversion(self, at_ms: int, visit: Visit, kind: ConversionType, touch: Touch | None) -> GeneratedEvent:
        """And leads to what the advertiser wants; an order has a value."""
        event_id, offer = self.next_id(), visit.creative.offer
        if kind is ConversionType.ORDER and offer:
            product = f"product-{visit.creative.key}"
            more = purchase_json(kind, Purchase(f"o{event_id}", product, 1, offer.value_micros, 0, touch))
        else:
            more = f',"conversion_type":"{kind.value}"{attribution_json(touch)}'
        return self.event(Input.CONVERSIONS, at_ms, visit, event_id, more)

    def event(self, source: Input, at_ms: int, visit: Visit, event_id: str, more: str) -> GeneratedEvent:
        """A document as honest ones are written."""
        value = f'{{"event_id":"{event_id}","event_time_ms":{at_ms}{more}{visit.context}}}'.encode()
        return GeneratedEvent(source, visit.creative.key, value, at_ms, at_ms, attack=self.truth)

    def again(self, original: GeneratedEvent, at_ms: int, **changes: object) -> GeneratedEvent:
        """The same document with another id and time, and other changes (None: the field goes)."""
        document = msgspec.json.decode(original.value)
        document |= {"event_id": self.next_id(), "event_time_ms": at_ms, **changes}
        value = msgspec.json.encode({name: value for name, value in document.items() if value is not None})
        source = Input.CONVERSIONS if "conversion_type" in changes else original.input
        return GeneratedEvent(source, original.key, value, at_ms, at_ms, attack=self.truth)


class Ingredient:
    """Something that is mixed into the honest traffic; `act` is called at the times of its own arrivals."""

    watches = False
    """Whether it is shown the honest clicks."""

    def __init__(self, stage: Stage, clicks: float) -> None:
        """`clicks` for each honest click, in the mean."""
        self.stage = stage
        self.clicks = clicks
        self.clicks_per_s = clicks * stage.world.honest_per_s
        self._times: Iterator[int] = iter(())

    def acts_per_s(self) -> float:
        """Arrivals; 0: it only watches."""
        return 0.0

    def begin(self) -> None:
        """Puts its first act on the agenda."""
        self._times = self.stage.arrivals(self.acts_per_s())
        self._next()

    def _next(self) -> None:
        at_ms = next(self._times, None)
        if at_ms is not None:
            self.stage.later(at_ms, self._arrive)

    def _arrive(self, at_ms: int) -> GeneratedEvent | None:
        self._next()
        return self.act(at_ms)

    def act(self, at_ms: int) -> GeneratedEvent | None:
        """Its first event now, and the others later."""
        raise NotImplementedError

    def watch(self, click: GeneratedEvent) -> None:
        """An honest click was delivered."""


def placement_of(profile: TrafficProfile, **fields: object) -> str:
    """`,"publisher_id":…` of a place of its own."""
    if profile.detail == "lean":
        fields = {name: value for name, value in fields.items() if name in ("publisher_id", "channel")}
    return fragment(fields)
