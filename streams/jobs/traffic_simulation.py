"""What follows from a request: impression, plays, click, engagement, conversion, payment, refund, in delivery order.

Arrivals come in time order; whatever follows later waits in one heap, ordered by delivery. A step draws only what it
needs and schedules the next, so what waits is small. Everything is drawn from one seeded `random.Random`.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import xxhash

from streams.events import AdjustmentType, ConversionType, EngagementType, Input
from streams.jobs.traffic_catalogue import Audience, Catalogue, Creative, catalogue_of
from streams.jobs.traffic_documents import (
    Correction,
    Purchase,
    Touch,
    attribution_json,
    click_json,
    correction_json,
    price_json,
    purchase_json,
)
from streams.jobs.traffic_profile import Oddity, TrafficProfile
from streams.jobs.traffic_shape import (
    DAY_MS,
    HOUR_MS,
    arrivals,
    chooser,
    conversion_delay_ms,
    log_uniform,
    rank_drawer,
    scaled,
    zipf_weights,
)

MAX_LOOPS: Final = 5
UNMEASURED_SHARE: Final = 0.1
VIEW_THROUGH_RATE: Final = 0.0004  # conversions per impression that was viewable and not clicked
PLAY_THROUGH_RATE: Final = 0.001  # conversions per completed play
ORGANIC_ORDER_RATE: Final = 0.0005  # orders that no ad led to, per organic impression
RESTAMPED_DUPLICATES: Final = 1 / 3
REJECTED_LEADS: Final = 0.1
PAID_ORDERS: Final = 0.9
CHARGEBACKS: Final = 0.05  # of refunds
LIFT: Final = (0.93, 1.07)  # of CTR, by arm
SOONEST_MS: Final = {ConversionType.LEAD: 3_000, ConversionType.INSTALL: 5_000}
"""Nobody fills in a form or installs within less, however compressed the delays."""

_MILESTONES: Final = ("start", "3s", "5s", "complete")
_ENGAGEMENTS: Final = (*[EngagementType.LIKE] * 6, *EngagementType)


class GeneratedEvent(NamedTuple):
    """An event as it is delivered; the order of iteration is the order of delivery."""

    input: Input
    key: str
    value: bytes
    event_time_ms: int
    deliver_at_ms: int
    """When it reaches the broker, epoch ms; never decreases."""
    duplicate: bool = False
    """Its id was delivered before."""
    attack: str = ""
    """The truth, kept aside of the document: who made it; empty: it is honest."""


class Visit(NamedTuple):
    """An impression and what its later events share."""

    impression_id: str
    creative: Creative
    context: str
    agent: str


T = TypeVar("T")
Step = Callable[[int, Visit, Any], GeneratedEvent | None]


class Simulation:
    """One run of the traffic. Its state is the heap of what is to come."""

    def __init__(self, profile: TrafficProfile, seed: int) -> None:
        self._profile = profile
        self._random = random = Random(f"traffic {seed}")
        self._draw = random.random
        self._catalogue = catalogue_of(profile)
        self._audience = Audience(profile)
        self._campaign = chooser(zipf_weights(profile.campaigns, profile.campaign_skew), random)
        self._user = rank_drawer(profile.users, profile.user_skew, random)
        self._publisher = chooser(zipf_weights(len(self._catalogue.placements), 0.8), random)
        # A longer run begins with the events of a shorter one, ids and all.
        run = f"{seed} {msgspec.structs.replace(profile, duration_ms=None, attacks={}, oddities={})}"
        self._run = xxhash.xxh3_64_hexdigest(run.encode())[:9]
        self._sent = 0
        self._scheduled = 0
        self._pending: list[tuple[int, int, Step, Visit, Any]] = []
        self._end_ms = profile.end_ms
        self._prefetched = profile.oddities.get(Oddity.PREFETCH, 0.0)
        self._disturbed = profile.out_of_order_share + profile.duplicate_share
        self.cut = 0
        """Events that were not scheduled because `max_pending` were waiting."""

    def events(self) -> Iterator[GeneratedEvent]:
        """Every event that is delivered before the end."""
        pending, pop = self._pending, heapq.heappop
        per_s = self._profile.rate / events_per_request(self._profile, self._catalogue)
        for at, live in arrivals(self._profile, per_s, self._random):
            while pending and pending[0][0] <= at:
                due, _, step, visit, more = pop(pending)
                if (event := step(due, visit, more)) is not None:
                    yield event
            if (event := self._impression(at, live)) is not None:
                yield event
        while pending:
            due, _, step, visit, more = pop(pending)
            if (event := step(due, visit, more)) is not None:
                yield event

    def _impression(self, at: int, live: bool) -> GeneratedEvent | None:
        draw = self._draw
        creative, placement = self._request(live)
        user = self._user()
        traits, agent = self._audience.fragments(user, at)
        arm = user & 1
        context = creative.fragment + placement + traits + (creative.arms[arm] if creative.arms else "")
        event_id = self._next_id()
        visit = Visit(event_id, creative, context, agent)
        measured = draw()
        attention = creative.attention
        viewable = UNMEASURED_SHARE <= measured < UNMEASURED_SHARE + attention.viewable_rate * (1 - UNMEASURED_SHARE)
        if attention.video_ms and draw() < attention.play_rates[0]:
            self._later(at + 50 + int(700 * draw()), self._play, visit, (0, 1, viewable))
        if draw() < creative.ctr * (LIFT[arm] if creative.arms else 1.0):
            self._later(at + 500 + int(14_000 * draw() * draw()), self._click, visit, None)
        elif draw() < (VIEW_THROUGH_RATE if creative.offer else ORGANIC_ORDER_RATE) and viewable:
            self._converts(visit, at, Touch("view", event_id, at) if creative.offer else None)
        if draw() < attention.engagement_rate:
            self._later(at + 1_000 + int(20_000 * draw()), self._engagement, visit, None)
        return self._send(
            Input.IMPRESSIONS,
            at,
            visit,
            event_id,
            ("" if measured < UNMEASURED_SHARE else f',"viewable":{"true" if viewable else "false"}')
            + (',"prefetch":true' if viewable and self._prefetched and draw() < self._prefetched else "")
            + self._price(creative.offer.impression_price_millimicros if creative.offer else 0)
            + agent,
        )

    def _request(self, live: bool) -> tuple[Creative, str]:
        """What is shown, and where."""
        draw, catalogue = self._draw, self._catalogue
        if live and draw() < self._profile.live_share:
            return _pick(catalogue.live, draw()), catalogue.live_placements[self._publisher()]
        organic = draw() < self._profile.organic_share
        creatives = catalogue.organic if organic else catalogue.campaigns[self._campaign()]
        return _pick(creatives, draw()), catalogue.placements[self._publisher()]

    def _play(self, at: int, visit: Visit, more: tuple[int, int, bool]) -> GeneratedEvent | None:
        reached, loop, viewable = more
        attention, draw = visit.creative.attention, self._draw
        event_id = self._next_id()
        # Watched since the milestone before; a video is viewable once, when it has been seen for two seconds.
        rest_ms = attention.video_ms - 5_000
        watched = (0, 3_000, 2_000, rest_ms)[reached]
        if reached < 3:
            if draw() < attention.play_rates[reached + 1]:
                self._later(at + (3_000, 2_000, rest_ms)[reached], self._play, visit, (reached + 1, loop, viewable))
        else:
            if loop < MAX_LOOPS and draw() < attention.loop_rate:
                self._later(at + 200, self._play, visit, (0, loop + 1, False))
            if visit.creative.offer and draw() < PLAY_THROUGH_RATE:
                self._converts(visit, at, Touch("play", event_id, at))
        return self._send(
            Input.PLAYS,
            at,
            visit,
            event_id,
            f',"impression_id":"{visit.impression_id}","milestone":"{_MILESTONES[reached]}","watched_ms":{watched}'
            f',"video_ms":{attention.video_ms},"loop":{loop}'
            + (',"viewable":true' if viewable and reached == 1 and loop == 1 else ""),
        )

    def _click(self, at: int, visit: Visit, _: None) -> GeneratedEvent | None:
        offer, draw = visit.creative.offer, self._draw
        event_id = self._next_id()
        if offer and draw() < offer.cvr:
            self._converts(visit, at, Touch("click", event_id, at))
        return self._send(
            Input.CLICKS,
            at,
            visit,
            event_id,
            click_json(visit.impression_id, visit.creative.click_type, at - 1_500 + int(3_000 * draw()))
            + self._price(offer.click_price_millimicros if offer else 0)
            + visit.agent,
        )

    def _engagement(self, at: int, visit: Visit, _: None) -> GeneratedEvent | None:
        kind = _pick(_ENGAGEMENTS, self._draw())
        more = f',"impression_id":"{visit.impression_id}","engagement_type":"{kind.value}"'
        return self._send(Input.ENGAGEMENTS, at, visit, self._next_id(), more)

    def _converts(self, visit: Visit, now: int, touch: Touch | None) -> None:
        """Someone will convert; without a touch it is an order that no ad is credited with."""
        offer = visit.creative.offer
        goal = offer.goal if offer else ConversionType.ORDER
        delay = conversion_delay_ms(self._random, self._profile.compress)
        if goal is ConversionType.ORDER:
            self._later(now + delay // 2, self._conversion, visit, (ConversionType.ADD_TO_CART, touch))
            self._later(now + delay, self._order, visit, touch)
        else:
            self._later(now + max(delay, SOONEST_MS.get(goal, 0)), self._conversion, visit, (goal, touch))

    def _conversion(self, at: int, visit: Visit, more: tuple[ConversionType, Touch | None]) -> GeneratedEvent | None:
        kind, touch = more
        event_id = self._next_id()
        if kind is ConversionType.LEAD and self._draw() < REJECTED_LEADS:
            correction = Correction(AdjustmentType.REJECTED_LEAD, event_id, at, 0, "")
            self._later(at + self._days(0.2, 3), self._adjustment, visit, correction)
        more_json = f',"conversion_type":"{kind.value}"{attribution_json(touch)}'
        return self._send(Input.CONVERSIONS, at, visit, event_id, more_json)

    def _order(self, at: int, visit: Visit, touch: Touch | None) -> GeneratedEvent | None:
        draw, offer = self._draw, visit.creative.offer
        event_id = self._next_id()
        quantity = 1 + int(3 * draw() * draw())
        value = quantity * offer.value_micros if offer else 0
        purchase = Purchase(
            f"o{event_id}", f"product-{visit.creative.key}", quantity, value, int(value * 0.1 * draw()), touch
        )
        if draw() < PAID_ORDERS:
            self._later(
                at + scaled(log_uniform(self._random, 10_000, HOUR_MS), self._profile.compress),
                self._payment,
                visit,
                purchase,
            )
        elif draw() < 0.5:
            cancel = Correction(AdjustmentType.CANCEL, event_id, at, -value, purchase.order_id)
            self._later(at + self._days(0.02, 1), self._adjustment, visit, cancel)
        return self._send(Input.CONVERSIONS, at, visit, event_id, purchase_json(ConversionType.ORDER, purchase))

    def _payment(self, at: int, visit: Visit, purchase: Purchase) -> GeneratedEvent | None:
        draw, event_id = self._draw, self._next_id()
        if draw() < self._profile.refund_share:
            kind = AdjustmentType.CHARGEBACK if draw() < CHARGEBACKS else AdjustmentType.REFUND
            amount = -purchase.value_micros if draw() < 0.6 else -purchase.value_micros // (2 * purchase.quantity)
            refund = Correction(kind, event_id, at, amount, purchase.order_id)
            self._later(at + self._days(0.2, 14), self._adjustment, visit, refund)
        return self._send(Input.CONVERSIONS, at, visit, event_id, purchase_json(ConversionType.PAID, purchase))

    def _adjustment(self, at: int, visit: Visit, correction: Correction) -> GeneratedEvent | None:
        return self._send(Input.ADJUSTMENTS, at, visit, self._next_id(), correction_json(correction))

    def _days(self, low: float, high: float) -> int:
        return scaled(log_uniform(self._random, low * DAY_MS, high * DAY_MS), self._profile.compress)

    def _price(self, price_millimicros: int) -> str:
        return price_json(price_millimicros, self._draw()) if price_millimicros else ""

    def _next_id(self) -> str:
        self._sent += 1
        return f"{self._run}-{self._sent:x}"

    def _send(self, source: Input, at: int, visit: Visit, event_id: str, more: str) -> GeneratedEvent | None:
        """The event, or None if it will come later than it happened."""
        value = f'{{"event_id":"{event_id}","event_time_ms":{at}{more}{visit.context}}}'.encode()
        event = GeneratedEvent(source, visit.creative.key, value, at, at)
        chance = self._draw()
        if chance < self._disturbed:
            return self._disturb(event, visit, chance)
        return event

    def _disturb(self, event: GeneratedEvent, visit: Visit, chance: float) -> GeneratedEvent | None:
        """Delivers out of order, or twice."""
        profile, draw = self._profile, self._draw
        if chance < profile.out_of_order_share:
            late_at = event.deliver_at_ms + 1 + int(profile.max_disorder_ms * draw())
            self._later(late_at, self._deliver, visit, event)
            return None
        again_at = event.deliver_at_ms + 1 + int(profile.max_redelivery_ms * draw())
        again = event._replace(duplicate=True)
        if draw() < RESTAMPED_DUPLICATES:
            again = restamped(again, min(1 + int(2_000 * draw()), again_at - event.deliver_at_ms))
        self._later(again_at, self._deliver, visit, again)
        return event

    def _deliver(self, at: int, _: Visit, event: GeneratedEvent) -> GeneratedEvent | None:
        return event._replace(deliver_at_ms=at)

    def _later(self, at: int, step: Step, visit: Visit, more: object) -> None:
        if at >= self._end_ms:
            return
        if len(self._pending) >= self._profile.max_pending:
            self.cut += 1
            return
        self._scheduled += 1
        heapq.heappush(self._pending, (at, self._scheduled, step, visit, more))


def events_per_request(profile: TrafficProfile, catalogue: Catalogue) -> float:
    """Expected deliveries that follow from one request, duplicates included, outside the live shop's hours."""
    weights = zipf_weights(profile.campaigns, profile.campaign_skew)
    paid = sum(w * _mean_events(c) for w, c in zip(weights, catalogue.campaigns, strict=True)) / sum(weights)
    share = profile.organic_share
    return (share * _mean_events(catalogue.organic) + (1 - share) * paid) * (1 + profile.duplicate_share)


def clicks_per_s(profile: TrafficProfile, catalogue: Catalogue) -> float:
    """Expected honest clicks, outside the live shop's hours."""
    weights = zipf_weights(profile.campaigns, profile.campaign_skew)
    paid = sum(w * _mean_ctr(c) for w, c in zip(weights, catalogue.campaigns, strict=True)) / sum(weights)
    share = profile.organic_share
    ctr = share * _mean_ctr(catalogue.organic) + (1 - share) * paid
    return ctr * profile.rate / events_per_request(profile, catalogue)


def _mean_ctr(creatives: tuple[Creative, ...]) -> float:
    return sum(creative.ctr for creative in creatives) / len(creatives)


def _mean_events(creatives: tuple[Creative, ...]) -> float:
    return sum(creative.events_per_impression for creative in creatives) / len(creatives)


def _pick(choices: Sequence[T], share: float) -> T:
    return choices[int(len(choices) * share)]


def restamped(event: GeneratedEvent, by_ms: int) -> GeneratedEvent:
    """The same id with a later event time, as when a collector stamps a repeated request anew."""
    stamp = b'"event_time_ms":%d'
    value = event.value.replace(stamp % event.event_time_ms, stamp % (event.event_time_ms + by_ms), 1)
    return event._replace(value=value, event_time_ms=event.event_time_ms + by_ms)
