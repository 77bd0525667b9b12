"""Honest traffic that looks strange: a viral burst, a flash sale, orders at one tap, conversions of older clicks.

The other oddities (offices, carriers, what is rendered ahead) are ways of ordinary events, and made with them.
"""

from typing import Final

from streams.events import ConversionType
from streams.jobs.attacks_stage import Ingredient, Person, Stage
from streams.jobs.traffic_catalogue import Creative
from streams.jobs.traffic_documents import ATTRIBUTION_WINDOW_MS, Touch, event_id_of
from streams.jobs.traffic_shape import DAY_MS, HOUR_MS, conversion_delay_ms, zipf_weights
from streams.jobs.traffic_simulation import SOONEST_MS, GeneratedEvent, Visit

MINUTE_MS: Final = 60_000
VIRAL_FACTOR: Final = 30
VIRAL_MS: Final = 4 * MINUTE_MS
LEAST_GAP_MS: Final = 10 * MINUTE_MS
"""Between two bursts, or two sales, so that each stands out."""
SALE_MS: Final = 5 * MINUTE_MS
TAPS: Final = (12, 26)
"""Cards that one user taps in a sale."""
ONE_TAP_MS: Final = (2_000, 8_000)


class ViralBurst(Ingredient):
    """Within minutes one creative is clicked thirty times as often, by ordinary people of whom as many buy as ever."""

    def __init__(self, stage: Stage, clicks: float) -> None:
        super().__init__(stage, clicks)
        weights = zipf_weights(stage.profile.campaigns, stage.profile.campaign_skew)
        self._shares = [weight / sum(weights) for weight in weights]

    def begin(self) -> None:
        """The first comes soon: a short run is to have one."""
        if self.clicks_per_s > 0:
            self.stage.later(self.stage.profile.first_ms + self.stage.between(0, LEAST_GAP_MS), self._burst)

    def _burst(self, at_ms: int) -> None:
        stage = self.stage
        campaign = stage.between(0, len(self._shares))
        creatives = stage.catalogue.campaigns[campaign]
        creative: Creative = stage.pick(creatives)
        usual_per_s = stage.world.honest_per_s * self._shares[campaign] / len(creatives)
        extra = max(1, round((VIRAL_FACTOR - 1) * usual_per_s * VIRAL_MS / 1_000))
        for _ in range(extra):
            stage.later(at_ms + stage.between(0, VIRAL_MS), self._show, creative)
        gap_ms = extra / self.clicks_per_s * 1_000  # so that the share holds in the mean
        stage.later(at_ms + max(LEAST_GAP_MS, int(gap_ms)), self._burst)

    def _show(self, at_ms: int, creative: Creative) -> GeneratedEvent:
        stage = self.stage
        visit = stage.visit(creative, stage.person(at_ms))
        stage.later(at_ms + _looked_ms(stage), self._click, visit)
        return stage.impression(at_ms, visit)

    def _click(self, at_ms: int, visit: Visit) -> GeneratedEvent:
        stage, offer, event_id = self.stage, visit.creative.offer, self.stage.next_id()
        if offer and stage.draw() < offer.cvr:
            delay = max(conversion_delay_ms(stage.random, stage.profile.compress), SOONEST_MS.get(offer.goal, 0))
            stage.later(at_ms + delay, stage.conversion, visit, offer.goal, Touch("click", event_id, at_ms))
        return stage.click(at_ms, visit, event_id)


class FlashSale(Ingredient):
    """For some minutes people tap a dozen or two of one shop's cards each, and some order at once."""

    def begin(self) -> None:
        """The first comes soon: a short run is to have one."""
        if self.clicks_per_s > 0:
            self.stage.later(self.stage.profile.first_ms + self.stage.between(0, LEAST_GAP_MS), self._sale)

    def _sale(self, at_ms: int) -> None:
        stage = self.stage
        gap_ms = stage.between(LEAST_GAP_MS, 3 * LEAST_GAP_MS)
        campaign = stage.between(0, stage.profile.campaigns)
        for _ in range(max(1, round(self.clicks_per_s * gap_ms / 1_000 / (sum(TAPS) / 2)))):
            begins_ms = at_ms + stage.between(0, SALE_MS // 2)
            stage.later(begins_ms, self._browse, campaign, stage.person(begins_ms), stage.between(*TAPS))
        stage.later(at_ms + gap_ms, self._sale)

    def _browse(self, at_ms: int, campaign: int, person: Person, left: int) -> GeneratedEvent:
        stage = self.stage
        visit = stage.visit(stage.pick(stage.catalogue.campaigns[campaign]), person)
        tapped_ms = at_ms + stage.between(600, 3_000)
        stage.later(tapped_ms, self._tap, visit)
        if left > 1:
            stage.later(tapped_ms + stage.between(1_500, 12_000), self._browse, campaign, person, left - 1)
        return stage.impression(at_ms, visit)

    def _tap(self, at_ms: int, visit: Visit) -> GeneratedEvent:
        stage, event_id = self.stage, self.stage.next_id()
        if stage.draw() < 0.05:
            touch = Touch("click", event_id, at_ms)
            stage.later(at_ms + stage.between(*ONE_TAP_MS), stage.conversion, visit, ConversionType.ORDER, touch)
        return stage.click(at_ms, visit, event_id)


class OneTap(Ingredient):
    """The address and the card are on file: the order comes seconds after the click."""

    watches = True

    def watch(self, click: GeneratedEvent) -> None:
        """Some clicks lead to an order at once."""
        if self.stage.draw() < self.clicks and b'"campaign_id"' in click.value:
            at_ms = click.event_time_ms + self.stage.between(*ONE_TAP_MS)
            self.stage.later(max(at_ms, click.deliver_at_ms), self._order, click, at_ms)

    def _order(self, at_ms: int, click: GeneratedEvent, ordered_ms: int) -> GeneratedEvent:
        touch = Touch("click", "", click.event_time_ms)
        return converted(self.stage, click, ordered_ms, touch)._replace(deliver_at_ms=at_ms)


class LateConversion(Ingredient):
    """Conversions of the days after a click: here, of clicks before the start."""

    watches = True

    def watch(self, click: GeneratedEvent) -> None:
        """For some clicks, somebody converts who clicked long ago."""
        if self.stage.draw() < self.clicks and b'"campaign_id"' in click.value:
            ago_ms = self.stage.between(HOUR_MS, 6 * DAY_MS)
            touch = Touch("click", self.stage.next_id(), max(0, self.stage.profile.first_ms - ago_ms))
            at_ms = click.deliver_at_ms + self.stage.between(1_000, MINUTE_MS)
            self.stage.later(at_ms, self._convert, click, touch)

    def _convert(self, at_ms: int, click: GeneratedEvent, touch: Touch) -> GeneratedEvent:
        return converted(self.stage, click, at_ms, touch)


def converted(stage: Stage, click: GeneratedEvent, at_ms: int, touch: Touch) -> GeneratedEvent:
    """An order by whoever clicked, credited to a touch; without a touch id, to this click."""
    own_id = event_id_of(click.value)
    order_id = stage.next_id()
    gone = dict.fromkeys(("click_type", "client_time_ms", "clearing_price_millimicros", "user_agent", "impression_id"))
    return stage.again(
        click,
        at_ms,
        **gone,
        conversion_type=ConversionType.ORDER.value,
        order_id=f"o{order_id}",
        attribution={
            "touch_type": touch.kind,
            "touch_id": touch.touch_id or own_id,
            "touch_time_ms": touch.time_ms,
            "model": "last_touch",
            "window_ms": ATTRIBUTION_WINDOW_MS,
        },
    )


def _looked_ms(stage: Stage) -> int:
    return 500 + int(14_000 * stage.draw() * stage.draw())
