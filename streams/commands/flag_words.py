"""Rules and flags in words: what a rule looks for under given thresholds, and what a flag's evidence says."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from streams.commands.options import length_text, time_text
from streams.events import ClickType
from streams.invalid import FanOut, InvalidRules, Rule, Velocity
from streams.stages.invalid.catalogue import DESCRIPTIONS

_TIME_FROM: Final = 10**11
"""A number of ms from here on is a time since 1970, not a length."""
_DIGEST: Final = re.compile(r"[0-9a-f]{32}")


def thresholds_of(rule: Rule) -> tuple[str, ...]:
    """Settings below rules.invalid that the rule goes by; what lists say of themselves is left out."""
    return tuple(name for name in DESCRIPTIONS[rule].thresholds if "." not in name)


def rule_text(rule: Rule, rules: InvalidRules) -> str:
    """What the rule looks for under these thresholds, in words."""
    return _TEXTS[rule](rules)


def _others(by_type: Mapping[ClickType, int], form: Callable[[int], str] = "{:,}".format) -> str:
    """What holds for click types that differ: ` (card 120, live_room_entry 30)`."""
    told = ", ".join(f"{kind} {form(amount)}" for kind, amount in by_type.items())
    return f" ({told})" if told else ""


def _velocity(what: str, limit: Velocity) -> str:
    return f"{limit.clicks:,}{_others(limit.clicks_by_type)} clicks of one {what} within {length_text(limit.window_ms)}"


def _fan_out(what: str, limit: FanOut) -> str:
    users = f" and {limit.users:,} users" if limit.users else ""
    alone = f", or on {limit.campaigns_alone:,} campaigns," if limit.campaigns_alone else ""
    alone += f" or as {limit.users_alone:,} users" if limit.users_alone else ""
    return f"one {what} on {limit.campaigns:,} campaigns{users}{alone} within {length_text(limit.window_ms)}"


def _too_soon(rules: InvalidRules) -> str:
    bounds = [f"{kind} within {length_text(delay_ms)}" for kind, delay_ms in rules.conversion_after_ms.items()]
    return f"after its click: {', '.join(bounds) or 'no type has a bound'}"


def _click_too_soon(rules: InvalidRules) -> str:
    others = _others(rules.click_after_by_type_ms, length_text)
    return f"a click within {length_text(rules.click_after_ms)}{others} of its impression"


def _double_click(rules: InvalidRules) -> str:
    others = _others(rules.double_click_by_type_ms, length_text)
    return f"the same click of one user again within {length_text(rules.double_click_ms)}{others}"


def _activity_cap(rules: InvalidRules) -> str:
    others = _others(rules.activity_clicks_by_type)
    return f"beyond {rules.activity_clicks:,}{others} clicks of one user on one campaign in a clock hour"


def _repeated_click(rules: InvalidRules) -> str:
    others = _others(rules.max_clicks_per_impression_by_type)
    return f"beyond {rules.max_clicks_per_impression:,}{others} clicks on one impression"


_TEXTS: Final[dict[Rule, Callable[[InvalidRules], str]]] = {
    Rule.DECLARED_BOT: lambda _: "an agent that names itself a crawler (list crawler-user-agents)",
    Rule.NON_BROWSER_AGENT: lambda _: "an agent that is no browser: a library, a tool, or empty",
    Rule.DATA_CENTRE: lambda _: "a network that lies in a listed data centre",
    Rule.PREFETCH: lambda _: "an impression that was fetched ahead and never seen",
    Rule.HIDDEN_PLACEMENT: lambda r: f"a placement with a side below {r.hidden_below_px} px",
    Rule.DOUBLE_CLICK: _double_click,
    Rule.ACTIVITY_CAP: _activity_cap,
    Rule.CLICK_WITHOUT_IMPRESSION: lambda r: (
        f"no impression is known once they are read {length_text(r.impression_wait_ms)} beyond the click"
    ),
    Rule.CLICK_BEFORE_IMPRESSION: lambda _: "a click before its impression",
    Rule.CLICK_TOO_SOON: _click_too_soon,
    Rule.REPEATED_CLICK: _repeated_click,
    Rule.CONVERSION_WITHOUT_CLICK: lambda r: (
        f"no click is known once they are read {length_text(r.click_wait_ms)} beyond the conversion"
    ),
    Rule.CONVERSION_TOO_SOON: _too_soon,
    Rule.ORDER_REPEATED: lambda _: "the same order in the same state again",
    Rule.USER_VELOCITY: lambda r: _velocity("user", r.user_velocity),
    Rule.DEVICE_VELOCITY: lambda r: _velocity("device", r.device_velocity),
    Rule.ADDRESS_VELOCITY: lambda r: (
        f"{_velocity('address', r.address_velocity)}, where its users or devices click unlike people too"
    ),
    Rule.DEVICE_FAN_OUT: lambda r: _fan_out("device", r.device_fan_out),
    Rule.ADDRESS_FAN_OUT: lambda r: _fan_out("address", r.address_fan_out),
    Rule.PUBLISHER_FLOODING: lambda r: (
        f"a publisher's {r.flooding_min_clicks:,} clicks or more within {length_text(r.flooding_window_ms)} convert "
        f"{r.flooding_ratio:g} times less than its peers', by chance with p < {r.flooding_p:g}"
    ),
    Rule.PUBLISHER_TIMING: lambda r: (
        f"times from click to conversion ({r.timing_min_conversions:,} or more) unlike the peers', by chance with "
        f"p < {r.timing_p:g}"
    ),
    Rule.REVIEW: lambda _: "a reviewer's word; it outranks all rules",
}


def evidence_text(evidence: Mapping[str, Any]) -> str:
    """What was seen and the thresholds, as people read it: units are spelt out, digests shortened."""
    return ", ".join(f"{_label(name)} {_value(name, value)}" for name, value in evidence.items() if value is not None)


def _label(name: str) -> str:
    return name.removesuffix("_ms").removesuffix("_px").replace("_", " ")


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return f"{value[:8]}…" if _DIGEST.fullmatch(value) else value or "(empty)"
    if isinstance(value, int | float):
        if name.endswith("_ms"):
            return f"{time_text(round(value))} UTC" if value >= _TIME_FROM else _length(value)
        text = f"{value:,}" if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15) else f"{value:.4g}"
        return f"{text.removesuffix('.0')}{' px' if name.endswith('_px') else ''}"
    return str(value)


def _length(length_ms: float) -> str:
    return f"-{length_text(-length_ms)}" if length_ms < 0 else length_text(length_ms)
