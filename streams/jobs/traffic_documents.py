"""Fragments of generated documents that conversions and adjustments carry: `,"name":value,…`."""

from typing import Final, NamedTuple

from streams.events import AdjustmentType, ConversionType
from streams.jobs.traffic_shape import DAY_MS

ATTRIBUTION_WINDOW_MS: Final = 30 * DAY_MS


class Touch(NamedTuple):
    """What a conversion is credited to."""

    kind: str
    touch_id: str
    time_ms: int


class Purchase(NamedTuple):
    """An order, which may be paid later; no value: an organic order."""

    order_id: str
    product_id: str
    quantity: int
    value_micros: int
    discount_micros: int
    touch: Touch | None


class Correction(NamedTuple):
    """What is taken back, and of which event."""

    kind: AdjustmentType
    event_id: str
    time_ms: int
    amount_micros: int
    order_id: str


def price_json(price_millimicros: int, share: float) -> str:
    """The auction's price, within a half and one and a half of the creative's, by a share of 1."""
    return f',"clearing_price_millimicros":{int(price_millimicros * (0.5 + share))}' if price_millimicros else ""


def click_json(impression_id: str, click_type: str, client_time_ms: int) -> str:
    """What a click has beyond any event; no impression: it names none."""
    shown = f',"impression_id":"{impression_id}"' if impression_id else ""
    return f'{shown},"click_type":"{click_type}","client_time_ms":{client_time_ms}'


def event_id_of(value: bytes) -> str:
    """Of a generated document: the id is what it begins with."""
    return value[len('{"event_id":"') : value.index(b'"', len('{"event_id":"'))].decode()


def attribution_json(touch: Touch | None) -> str:
    """`,"attribution":{…}`, or nothing for a conversion that no touch is credited with."""
    if touch is None:
        return ""
    return (
        f',"attribution":{{"touch_type":"{touch.kind}","touch_id":"{touch.touch_id}","touch_time_ms":{touch.time_ms}'
        f',"model":"last_touch","window_ms":{ATTRIBUTION_WINDOW_MS}}}'
    )


def purchase_json(kind: ConversionType, purchase: Purchase) -> str:
    """What an order, or its payment, has beyond any event; money only where it has a value."""
    head = f',"conversion_type":"{kind.value}","order_id":"{purchase.order_id}","quantity":{purchase.quantity}'
    value = purchase.value_micros
    if not value:
        return head + attribution_json(purchase.touch)
    return (
        f'{head},"value_micros":{value},"cost_of_goods_micros":{value * 3 // 5}'
        f',"discount_micros":{purchase.discount_micros}'
        f',"items":[{{"product_id":"{purchase.product_id}","quantity":{purchase.quantity},"value_micros":{value}}}]'
        + attribution_json(purchase.touch)
    )


def correction_json(correction: Correction) -> str:
    """What an adjustment has beyond any event."""
    order = f',"order_id":"{correction.order_id}"' if correction.order_id else ""
    return (
        f',"adjustment_type":"{correction.kind.value}","adjusted_event_id":"{correction.event_id}"'
        f',"adjusted_event_time_ms":{correction.time_ms},"amount_micros":{correction.amount_micros}{order}'
    )
