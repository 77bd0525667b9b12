"""What one event adds to the measures: one small function per input.

`values` is a list in the order `COMMON` + the input's own measures (streams.records). The inputs that make up most of
the traffic have a form for whole batches as well (`streams.stages.measure`), which must agree with these.
"""

from bisect import bisect_right
from collections.abc import Callable
from typing import Final

from streams.events import (
    Adjustment,
    AdjustmentType,
    Click,
    ClickType,
    Conversion,
    ConversionType,
    Engagement,
    EngagementType,
    Event,
    Impression,
    Input,
    Milestone,
    Play,
    TouchType,
)
from streams.records import COMMON, MEASURES_OF
from streams.rules import DAY_MS, HOUR_MS, MINUTE_MS, Rules

Count = Callable[[Event, list[int]], None]
DUPLICATES, LATE, MONEY_REJECTED, SPEND, CREDITED, JUDGED, UNDECIDED = range(7)
BASE: Final = len(COMMON)


def index_of(source: Input, measure: str) -> int:
    """Where a measure stands in the values of its input."""
    return BASE + MEASURES_OF[source].index(measure)


def _impressions(_rules: Rules) -> Count:
    def count(event: Event, values: list[int]) -> None:
        assert type(event) is Impression
        values[BASE] += 1
        if event.viewable is not None:
            values[BASE + 2] += 1
            if event.viewable:
                values[BASE + 1] += 1

    return count


def _plays(_rules: Rules) -> Count:
    of = {
        Milestone.START: index_of(Input.PLAYS, "plays_started"),
        Milestone.THREE_SECONDS: index_of(Input.PLAYS, "plays_3s"),
        Milestone.FIVE_SECONDS: index_of(Input.PLAYS, "plays_5s"),
        Milestone.COMPLETE: index_of(Input.PLAYS, "plays_completed"),
    }
    viewable, loops, watched = (index_of(Input.PLAYS, m) for m in ("viewable_plays", "loop_plays", "watched_ms"))

    def count(event: Event, values: list[int]) -> None:
        assert type(event) is Play
        at = of[event.milestone]
        if event.loop > 1:  # only the first loop counts towards rates
            if event.milestone is not Milestone.START:
                return
            at = loops
        values[at] += 1
        values[watched] += event.watched_ms
        if event.viewable and event.loop == 1:
            values[viewable] += 1

    return count


def _clicks(rules: Rules) -> Count:
    of = {kind: index_of(Input.CLICKS, f"clicks_{kind.value}") for kind in ClickType}
    counting = frozenset(rules.ctr_click_types)
    clicks = index_of(Input.CLICKS, "clicks")

    def count(event: Event, values: list[int]) -> None:
        assert type(event) is Click
        at = of[event.click_type]
        values[at] += 1
        if event.click_type in counting:
            values[clicks] += 1

    return count


_CONVERSION_MEASURE: Final = {
    ConversionType.LEAD: "leads",
    ConversionType.ADD_TO_CART: "add_to_carts",
    ConversionType.ORDER: "orders",
    ConversionType.PAID: "paid_orders",
    ConversionType.INSTALL: "installs",
    ConversionType.OTHER: "other_conversions",
}
_TOUCH_MEASURE: Final = {
    TouchType.CLICK: "conversions",
    TouchType.VIEW: "view_through_conversions",
    TouchType.PLAY: "play_through_conversions",
    TouchType.NONE: "unattributed_conversions",
}


def _conversions(rules: Rules) -> Count:
    source = Input.CONVERSIONS
    of = {kind: index_of(source, measure) for kind, measure in _CONVERSION_MEASURE.items()}
    by_touch = {touch: index_of(source, measure) for touch, measure in _TOUCH_MEASURE.items()}
    counting = frozenset(rules.cvr_conversion_types)
    quantity, weight = index_of(source, "quantity"), index_of(source, "attributed_weight_ppm")

    def count(event: Event, values: list[int]) -> None:
        assert type(event) is Conversion
        attribution = event.attribution
        added = [(of[event.conversion_type], 1), (quantity, event.quantity)]
        if event.conversion_type in counting:
            touch = attribution.touch_type if attribution else TouchType.NONE
            added.append((by_touch[touch], 1))
            if attribution and touch is TouchType.CLICK:
                added.append((weight, attribution.weight_ppm))
        _add(added, values)

    return count


_ADJUSTMENT_MEASURE: Final = {
    AdjustmentType.CANCEL: "cancels",
    AdjustmentType.REFUND: "refunds",
    AdjustmentType.CHARGEBACK: "chargebacks",
    AdjustmentType.REJECTED_LEAD: "rejected_leads",
}


def _adjustments(_rules: Rules) -> Count:
    of = {kind: index_of(Input.ADJUSTMENTS, measure) for kind, measure in _ADJUSTMENT_MEASURE.items()}

    def count(event: Event, values: list[int]) -> None:
        assert type(event) is Adjustment
        at = of[event.adjustment_type]
        values[at] += 1

    return count


def _engagements(_rules: Rules) -> Count:
    of = {kind: BASE + at for at, kind in enumerate(EngagementType)}

    def count(event: Event, values: list[int]) -> None:
        assert type(event) is Engagement
        at = of[event.engagement_type]
        values[at] += 1

    return count


_MAKERS: Final[dict[Input, Callable[[Rules], Count]]] = {
    Input.IMPRESSIONS: _impressions,
    Input.PLAYS: _plays,
    Input.CLICKS: _clicks,
    Input.CONVERSIONS: _conversions,
    Input.ADJUSTMENTS: _adjustments,
    Input.ENGAGEMENTS: _engagements,
}


def make_count(source: Input, rules: Rules) -> Count:
    """The counting function of an input under these rules."""
    return _MAKERS[source](rules)


PRICED: Final = frozenset({Input.IMPRESSIONS, Input.PLAYS, Input.CLICKS})
"""Inputs whose events may carry a clearing price, and no other money."""


def has_money(event: Event) -> bool:
    """Whether an event of an input that is not priced carries an amount, and so needs a currency."""
    if type(event) is Conversion:
        return bool(event.value_micros or event.cost_of_goods_micros or event.discount_micros)
    return type(event) is Adjustment and event.amount_micros != 0


_ORDERED, _PAID, _GOODS, _DISCOUNT = (
    index_of(Input.CONVERSIONS, m)
    for m in ("ordered_value_micros", "paid_value_micros", "cost_of_goods_micros", "discount_micros")
)
_ADJUSTED: Final = index_of(Input.ADJUSTMENTS, "adjusted_micros")
ADJUSTED_BY_ORDER: Final = index_of(Input.ADJUSTMENTS, "adjusted_by_order_micros")
_VALUE_OF: Final = {ConversionType.ORDER: _ORDERED, ConversionType.PAID: _PAID}


def count_money(event: Event, values: list[int]) -> None:
    """Adds the amounts of a conversion or an adjustment (by its own date)."""
    if type(event) is Conversion:
        added = [(_GOODS, event.cost_of_goods_micros or 0), (_DISCOUNT, event.discount_micros or 0)]
        if event.conversion_type in _VALUE_OF:
            added.append((_VALUE_OF[event.conversion_type], event.value_micros or 0))
        _add(added, values)
    elif type(event) is Adjustment:
        _add([(_ADJUSTED, event.amount_micros)], values)


def _add(added: list[tuple[int, int]], values: list[int]) -> None:
    for at, amount in added:
        values[at] += amount


AGE_BUCKETS_MS: Final = (
    0,
    5 * MINUTE_MS,
    HOUR_MS,
    3 * HOUR_MS,
    6 * HOUR_MS,
    12 * HOUR_MS,
    DAY_MS,
    2 * DAY_MS,
    3 * DAY_MS,
    7 * DAY_MS,
    14 * DAY_MS,
    30 * DAY_MS,
)
"""Lower bounds of a conversion's age since its click."""


def age_bucket_ms(age_ms: int) -> int:
    """The lower bound of the bucket that an age falls into; a negative age counts as none."""
    return AGE_BUCKETS_MS[max(0, bisect_right(AGE_BUCKETS_MS, age_ms) - 1)]
