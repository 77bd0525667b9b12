"""Honest traffic with attackers and oddities mixed in, in order of delivery, and the truth beside it.

The truth is `GeneratedEvent.attack`: it is written next to the stream (`truth_line`), and never in a document. The
same profile and seed give the same events, and the honest ones among them are the same with and without attackers.
"""

from collections.abc import Iterator
from random import Random
from typing import Final

import msgspec

from streams.events import Input
from streams.jobs.attacks_bots import Botnet, Crawler, DataCentre
from streams.jobs.attacks_fraud import ClickFarm, DoubleClick, Flooding, Injection, Replay
from streams.jobs.attacks_stage import Ingredient, Stage, World, world_of
from streams.jobs.traffic_catalogue import catalogue_of
from streams.jobs.traffic_documents import event_id_of
from streams.jobs.traffic_oddities import FlashSale, LateConversion, OneTap, ViralBurst
from streams.jobs.traffic_profile import Attack, Oddity, TrafficProfile
from streams.jobs.traffic_simulation import RESTAMPED_DUPLICATES, GeneratedEvent, Simulation, restamped

ATTACKERS: Final[dict[Attack, type[Ingredient]]] = {
    Attack.CRAWLER: Crawler,
    Attack.DATA_CENTRE: DataCentre,
    Attack.CLICK_FARM: ClickFarm,
    Attack.FLOODING: Flooding,
    Attack.INJECTION: Injection,
    Attack.REPLAY: Replay,
    Attack.BOTNET: Botnet,
    Attack.DOUBLE_CLICK: DoubleClick,
}
ODDITIES: Final[dict[Oddity, type[Ingredient]]] = {
    Oddity.VIRAL_BURST: ViralBurst,
    Oddity.FLASH_SALE: FlashSale,
    Oddity.ONE_TAP: OneTap,
    Oddity.LATE_CONVERSION: LateConversion,
}
"""Those that are further events."""


class MixedTraffic:
    """One run of the traffic with what its profile asks for besides honest events."""

    def __init__(self, profile: TrafficProfile, seed: int) -> None:
        self._honest = Simulation(profile, seed)
        self._disorder = Disorder(profile, seed)
        self._world = world_of(profile, seed, catalogue_of(profile)) if _asks_for_more(profile) else None
        self._ingredients = [] if self._world is None else list(_ingredients(self._world))

    @property
    def cut(self) -> int:
        """Events that were not scheduled because `max_pending` were waiting."""
        return self._honest.cut + (self._world.agenda.cut if self._world else 0)

    def events(self) -> Iterator[GeneratedEvent]:
        """Every event that is delivered before the end, in order of delivery."""
        return self._honest.events() if self._world is None else self._mixed(self._world)

    def _mixed(self, world: World) -> Iterator[GeneratedEvent]:
        agenda, disturbed = world.agenda, self._disorder
        watching = [ingredient for ingredient in self._ingredients if ingredient.watches]
        for ingredient in self._ingredients:
            ingredient.begin()
        for event in self._honest.events():
            for added in agenda.until(event.deliver_at_ms):
                yield from disturbed(added, world)
            yield event
            if event.input is Input.CLICKS and not event.duplicate:
                for ingredient in watching:
                    ingredient.watch(event)
        for added in agenda.until(world.profile.end_ms):
            yield from disturbed(added, world)


class Disorder:
    """Delivers what is added as honest events are: some of it late, some of it twice."""

    def __init__(self, profile: TrafficProfile, seed: int) -> None:
        self._profile = profile
        self._draw = Random(f"disorder {seed}").random

    def __call__(self, event: GeneratedEvent, world: World) -> Iterator[GeneratedEvent]:
        """The event now, or later; and perhaps once more."""
        chance, profile = self._draw(), self._profile
        if event.duplicate or event.deliver_at_ms > event.event_time_ms:
            yield event  # it has been disturbed already
        elif chance < profile.out_of_order_share:
            late_at = event.deliver_at_ms + 1 + int(profile.max_disorder_ms * self._draw())
            world.agenda.later(late_at, _delivered, event)
        elif chance < profile.out_of_order_share + profile.duplicate_share:
            again_at = event.deliver_at_ms + 1 + int(profile.max_redelivery_ms * self._draw())
            again = event._replace(duplicate=True)
            if self._draw() < RESTAMPED_DUPLICATES:
                again = restamped(again, min(1 + int(2_000 * self._draw()), again_at - event.deliver_at_ms))
            world.agenda.later(again_at, _delivered, again)
            yield event
        else:
            yield event


def _delivered(at_ms: int, event: GeneratedEvent) -> GeneratedEvent:
    return event._replace(deliver_at_ms=at_ms)


def _asks_for_more(profile: TrafficProfile) -> bool:
    return any(profile.attacks.values()) or any(profile.oddities.get(kind) for kind in ODDITIES)


def _ingredients(world: World) -> Iterator[Ingredient]:
    """Shares of attackers are of all clicks, so each is more of the honest ones."""
    profile = world.profile
    honest = 1 - sum(profile.attacks.values())
    for oddity, made_by in ODDITIES.items():
        if share := profile.oddities.get(oddity, 0.0):
            yield made_by(Stage(world, oddity.value), share)
    for attack, attacker in ATTACKERS.items():
        if share := profile.attacks.get(attack, 0.0):
            yield attacker(Stage(world, attack.value, attack.value), share / honest)


def truth_line(event: GeneratedEvent) -> bytes:
    """One line (NDJSON) of the truth about an event of an attacker."""
    truth = {"event_id": event_id_of(event.value), "input": event.input.value, "attack": event.attack}
    return msgspec.json.encode(truth) + b"\n"
