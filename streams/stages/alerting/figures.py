"""Numbers as people read them: money with its currency, percent, durations, local times. The digits are the same in
both languages; only units and the order of a date differ.
"""

from datetime import datetime
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from streams.rules import HOUR_MS, MINUTE_MS
from streams.signals import Text

SYMBOLS: Final = {"CNY": "¥", "USD": "$", "EUR": "€", "GBP": "£"}
"""Currencies whose sign stands for them alone; others are told by their code."""
WHOLE: Final = frozenset({"JPY", "KRW", "VND", "CLP", "ISK", "UGX", "XAF", "XOF", "PYG", "RWF"})
"""Currencies without a minor unit (ISO 4217)."""
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Place(NamedTuple):
    """In whose terms numbers are told."""

    currency: str
    time_zone: str
    now_ms: int


def same(shown: str) -> Text:
    """Reads alike in both languages."""
    return Text(shown, shown)


def money(micros: float, place: Place) -> Text:
    """`¥1,234`, below a thousand `¥56.70`, below a tenth with two significant digits; `SEK 56.70`."""
    amount = micros / 1e6
    digits = 0 if abs(amount) >= 1_000 or place.currency in WHOLE else 2
    if 0 < abs(amount) < 0.1 and place.currency not in WHOLE:
        digits = 4
    sign, symbol = "-" if amount < 0 else "", SYMBOLS.get(place.currency, place.currency + " ")
    return same(f"{sign}{symbol}{abs(amount):,.{digits}f}")


def count(number: float) -> Text:
    """`12,345`."""
    return same(f"{number:,.0f}")


def percent(share: float) -> Text:
    """A ratio: `62%`, below ten percent `1.23%`, below a thousandth `0.045%`."""
    value = share * 100
    if value >= 10 or value == 0:
        return same(f"{value:.0f}%")
    return same(f"{value:.2f}%" if value >= 0.1 else f"{value:.3f}%")


def duration(ms: float) -> Text:
    """Minutes up to two hours, then hours, with one digit below ten, and days from a hundred hours on."""
    if ms < 2 * HOUR_MS:
        minutes = max(1, round(ms / MINUTE_MS))
        return Text(f"{minutes} minute" + ("s" if minutes != 1 else ""), f"{minutes}分钟")
    hours = ms / HOUR_MS
    if hours >= 100:
        days = round(hours / 24)
        return Text(f"{days} days", f"{days}天")
    shown = f"{hours:.1f}".removesuffix(".0") if hours < 10 else f"{hours:,.0f}"
    return Text(f"{shown} hours", f"{shown}小时")


def moment(at_ms: float, place: Place) -> Text:
    """`14:05`, on another day than now with its date: `24 Nov 14:05`, `11月24日14:05`."""
    zone = ZoneInfo(place.time_zone)
    at, now = (datetime.fromtimestamp(ms / 1000, zone) for ms in (at_ms, place.now_ms))
    clock = f"{at:%H:%M}"
    if at.date() == now.date():
        return same(clock)
    return Text(f"{at.day} {MONTHS[at.month - 1]} {clock}", f"{at.month}月{at.day}日{clock}")
