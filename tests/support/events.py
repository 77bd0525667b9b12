"""Seeded raw records for tests: plain JSON, written without the code under test.

Every record knows what its maker expects of its decoding (`expected`: a reason, or '' for a sound document). What is
judged from context (future, late, duplicate, money in a wrong currency) is left to whoever checks.
"""

import json
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

EVENT_TOPICS: Final = (
    "ads.impressions",
    "ads.plays",
    "ads.clicks",
    "ads.conversions",
    "ads.adjustments",
    "ads.engagements",
)
SETTINGS_TOPIC: Final = "ads.campaigns"
SESSIONS_TOPIC: Final = "ads.sessions"
ALLOWANCES_TOPIC: Final = "ads.allowances"
NOTICE_TOPICS: Final = (SETTINGS_TOPIC, SESSIONS_TOPIC, ALLOWANCES_TOPIC)
EVIDENCE_TOPIC: Final = "ads.evidence"
VERDICTS_TOPIC: Final = "ads.verdicts"
WORD_TOPICS: Final = (EVIDENCE_TOPIC, VERDICTS_TOPIC)
"""Written by the workers themselves; reviews by people, too."""
BROWSER: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)
BOT: Final = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
FLOODER: Final = "floods"
HOSTED: Final = "198.51.100.0/24"
MINUTE_MS: Final = 60_000
FUTURE_SKEW_MS: Final = 300_000


class RawRecord(NamedTuple):
    """A record as it stands in a log (`streams.ports.RawRecord`), and what its maker expects of it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    expected: str = ""


class Draft(NamedTuple):
    """A record before it has an offset."""

    timestamp: int
    key: bytes | None
    value: bytes | None
    expected: str = ""


@dataclass
class Mix:
    """How often what happens: shares of 1."""

    duplicate: float = 0.08
    late: float = 0.05
    garbage: float = 0.05
    future: float = 0.02
    ahead: float = 0.01
    wrong_currency: float = 0.08
    organic: float = 0.05
    campaigns: int = 4
    publishers: int = 0
    """So many sell what their clicks bring, and another floods; 0: publishers mean nothing."""
    step_ms: int = 4_000
    lateness_ms: int = 2 * MINUTE_MS


@dataclass
class _Line:
    """One topic-partition's producer: its clock and what it has sent."""

    clock_ms: int
    sent: list[dict[str, Any]] = field(default_factory=list)


CURRENCY_OF: Final = ("USD", "EUR", "CNY", "JPY", "GBP", "CHF", "SEK", "NOK")


class Traffic:
    """Endless records for each topic-partition, a function of the seed and of how often each is asked for."""

    def __init__(self, rng: Random, mix: Mix, start_ms: int = 1_700_000_000_000) -> None:
        self.rng = rng
        self.mix = mix
        self.start_ms = start_ms + rng.randrange(60_000)
        self._lines: dict[tuple[str, int], _Line] = {}
        self._serial = 0
        self._sold: set[str] = set()
        """Clicks that have brought a conversion, where publishers mean something."""

    def draft(self, topic: str, partition: int) -> Draft:
        """The next record of one event topic-partition."""
        line = self._lines.setdefault((topic, partition), _Line(self.start_ms + self.rng.randrange(MINUTE_MS)))
        line.clock_ms += int(self.rng.expovariate(1 / self.mix.step_ms))
        rng, mix = self.rng, self.mix
        timestamp = line.clock_ms + rng.randrange(2_000)
        if rng.random() < mix.garbage:
            value, expected = self._garbage(topic, line)
            return Draft(timestamp, b"k", value, expected)
        if line.sent and rng.random() < mix.duplicate:
            return Draft(timestamp, b"k", _encode(self._repeated(line)))
        event = self._event(topic, line.clock_ms)
        if topic == "ads.adjustments" and rng.random() < 0.7:
            self._adjust_a_conversion(event, partition)
        line.sent.append(event)
        key = event.get("campaign_id")
        return Draft(timestamp, key.encode() if key else None, _encode(event))

    def leap(self, partition: int, at_ms: int) -> None:
        """The clocks of a partition's producers stand at this time, if they were behind it."""
        for topic in EVENT_TOPICS:
            line = self._lines.setdefault((topic, partition), _Line(at_ms))
            line.clock_ms = max(line.clock_ms, at_ms)

    def _adjust_a_conversion(self, event: dict[str, Any], partition: int) -> None:
        """Of one that was sent, or of one that is still to come; some are adjusted twice."""
        sent = self._lines.get(("ads.conversions", partition), _Line(0)).sent
        if sent:
            conversion = self.rng.choice(sent[-10:])
            event["adjusted_event_id"] = conversion["event_id"]
            event["adjusted_event_time_ms"] = conversion["event_time_ms"]
            event["adjustment_type"] = self.rng.choice(["rejected_lead", "rejected_lead", "refund"])

    def _repeated(self, line: _Line) -> dict[str, Any]:
        """Mostly a recent one, sometimes an ancient one; sometimes with another time under the same id."""
        recent = line.sent[-6:] if self.rng.random() < 0.7 else line.sent
        event = dict(self.rng.choice(recent))
        if self.rng.random() < 0.3:
            event["event_time_ms"] = self._time(line.clock_ms)
        return event

    def _time(self, clock_ms: int) -> int:
        roll, rng, mix = self.rng.random(), self.rng, self.mix
        if roll < mix.late:
            return max(0, clock_ms - mix.lateness_ms - rng.randrange(-MINUTE_MS, 3 * MINUTE_MS))
        if roll < mix.late + mix.future:
            return clock_ms + FUTURE_SKEW_MS + 2_001 + rng.randrange(MINUTE_MS)
        if roll < mix.late + mix.future + mix.ahead:
            return clock_ms + rng.randrange(MINUTE_MS)
        return max(0, clock_ms - int(rng.expovariate(1 / 15_000)))

    def _event(self, topic: str, clock_ms: int) -> dict[str, Any]:
        rng = self.rng
        self._serial += 1
        number = rng.randrange(self.mix.campaigns)
        event: dict[str, Any] = {"event_id": f"e{self._serial}", "event_time_ms": self._time(clock_ms)}
        if rng.random() < self.mix.organic:
            event["traffic"] = "organic"
        else:
            event["campaign_id"] = f"c{number}"
        currency = CURRENCY_OF[number % len(CURRENCY_OF)]
        if rng.random() < self.mix.wrong_currency:
            currency = rng.choice([*CURRENCY_OF, None])
        event["currency"] = currency
        self._describe(event)
        _BODY[topic](rng, event, clock_ms)
        if topic == "ads.clicks" and self.mix.publishers:
            self._publish(event)
        self._refer(topic, event)
        return {name: value for name, value in event.items() if value is not None}

    def _describe(self, event: dict[str, Any]) -> None:
        rng = self.rng
        event["ad_unit_id"] = rng.choice(["u1", "u2", None])
        event["creative_id"] = rng.choice(["v1", "v2", "v3", None])
        event["user_id"] = rng.choice([None, *(f"p{n}" for n in range(12))])
        event["region"] = rng.choice(["GB-LND", "US-CA", "", None])
        event["channel"] = rng.choice(["feed", "search", None])
        event["publisher_id"] = rng.choice(["pub1", "pub2", None])
        event["device_class"] = rng.choice(["phone", "tv", None])
        event["device_id"] = rng.choice([None, *(f"d{n}" for n in range(5))])
        event["address_id"] = rng.choice([None, "a1", "a2"])
        event["user_agent"] = rng.choice([BROWSER, BROWSER, BROWSER, BOT, None])
        event["network"] = rng.choice(["192.0.2.0/24", "192.0.2.0/24", HOSTED, "no network", None])
        if rng.random() < 0.2:
            event["placement_width_px"] = rng.choice([0, 1, 320])
            event["placement_height_px"] = rng.choice([1, 250, None])
        if rng.random() < 0.3:
            arms = [{"id": "x", "arm": rng.choice("ab")}, {"id": "y", "arm": "c"}]
            event["experiments"] = arms[: rng.randint(1, 2)]
        if rng.random() < 0.1:
            event["not_in_the_schema"] = {"deep": [1, 2, {"er": None}]}

    def _publish(self, click: dict[str, Any]) -> None:
        """Half of all clicks are the flood's, all in the feed; most come from people."""
        rng = self.rng
        click["publisher_id"] = rng.choice([FLOODER, f"sells{self._serial % self.mix.publishers}"])
        click["channel"] = "feed"
        if click["publisher_id"] == FLOODER:  # told with a delay, in one go
            click["event_time_ms"] -= rng.randrange(20_000)
        if rng.random() < 0.8:
            self._of_people(click)

    def _sell(self, conversion: dict[str, Any]) -> bool:
        """Soon after a recent click of any partition, but for the flood's; each click sells once."""
        rng = self.rng
        clicks = [c for (of, _), line in self._lines.items() if of == "ads.clicks" for c in line.sent[-12:]]
        clicks = [c for c in clicks if c["event_id"] not in self._sold and c.get("publisher_id") != FLOODER]
        if not clicks or rng.random() < 0.1:
            return False
        click = rng.choice(clicks)
        self._sold.add(click["event_id"])
        conversion["publisher_id"], conversion["channel"] = click.get("publisher_id"), click.get("channel")
        touch = {"touch_type": "click", "touch_id": click["event_id"], "touch_time_ms": click["event_time_ms"]}
        conversion["attribution"] = touch
        conversion["event_time_ms"] = click["event_time_ms"] + rng.choice([7_000, 8_000, 9_000, 40_000])
        conversion["order_id"] = None
        self._of_people(conversion)
        return True

    @staticmethod
    def _of_people(event: dict[str, Any]) -> None:
        """Nothing about it that general rules would look at."""
        for name in ("user_agent", "network", "placement_width_px", "placement_height_px"):
            event.pop(name, None)

    def _refer(self, topic: str, event: dict[str, Any]) -> None:
        """A click to an impression, a conversion to a click and an order: known, still to come, or of nowhere."""
        rng = self.rng
        if topic == "ads.clicks" and rng.random() < 0.8:
            event["impression_id"] = self._somewhere("ads.impressions", event)
        touch = event.get("attribution")
        if topic == "ads.conversions":
            event["order_id"] = rng.choice([None, *(f"o{n}" for n in range(30))])
            if self.mix.publishers and self._sell(event):
                return
            if touch and touch["touch_type"] == "click" and rng.random() < 0.8:
                touch["touch_id"] = self._somewhere("ads.clicks", event)
                touch["touch_time_ms"] = event["event_time_ms"] - rng.choice([0, 500, 1_500, 5_000, 30_000, 10**7])

    def _somewhere(self, topic: str, event: dict[str, Any]) -> str:
        """An event's id: of the recent ones of any partition, of a number that comes soon, or of none."""
        roll, lines = self.rng.random(), [line for (of, _), line in self._lines.items() if of == topic and line.sent]
        if roll < 0.6 and lines:
            chosen = self.rng.choice(self.rng.choice(lines).sent[-6:])
            if self.rng.random() < 0.5:  # soon after it
                event["event_time_ms"] = chosen["event_time_ms"] + self.rng.choice([-2_000, 100, 1_000, 9_000])
            return str(chosen["event_id"])
        return f"e{self._serial + self.rng.randrange(60)}" if roll < 0.9 else f"x{self.rng.randrange(99)}"

    def review(self, at_ms: int, partition: int) -> Draft:
        """A reviewer's word on an event that was sent, or on none; or garbage."""
        rng = self.rng
        topic = rng.choice(["ads.clicks", "ads.clicks", "ads.conversions", "ads.impressions"])
        line = self._lines.get((topic, partition))
        sent = rng.choice(line.sent[-20:]) if line and line.sent else {"event_id": "e0"}
        document = {
            "type": "review",
            "campaign_id": sent.get("campaign_id", "c0"),
            "input": topic.removeprefix("ads."),
            "event_id": sent["event_id"],
            "decision": rng.choice(["overturn", "confirm"]),
            "reviewer": "r1",
            "reason": "seen",
            "at_ms": at_ms,
        }
        if rng.random() < 0.1:
            return Draft(at_ms, b"c0", _encode(document | {"decision": "perhaps"}), "unknown_value")
        return Draft(at_ms, document["campaign_id"].encode(), _encode(document))

    def _garbage(self, topic: str, line: _Line) -> tuple[bytes | None, str]:
        event = self._event(topic, line.clock_ms)
        kind = self.rng.choice(sorted(_GARBAGE))
        return _GARBAGE[kind](event), kind.split("#")[0]

    def settings(self, appended_ms: int, partition: int = 0, partitions: int = 1) -> Draft:
        """A version of some campaign's settings: sound, in another currency than before, or garbage.

        A campaign's settings are all in one partition, as they are keyed by it.
        """
        rng = self.rng
        number = rng.randrange(partition, self.mix.campaigns, partitions)
        document: dict[str, Any] = {
            "campaign_id": f"c{number}",
            "name": f"campaign {rng.randrange(100)}",
            "currency": CURRENCY_OF[number % len(CURRENCY_OF)] if rng.random() < 0.8 else rng.choice(CURRENCY_OF),
            "time_zone": rng.choice(["UTC", "Asia/Shanghai", "America/New_York"]),
        }
        if rng.random() < 0.4:
            document["valid_from_ms"] = appended_ms + rng.randrange(-MINUTE_MS, 5 * MINUTE_MS)
        document |= _terms(rng)
        key, roll = document["campaign_id"].encode(), rng.random()
        if roll < 0.05:
            return Draft(appended_ms, key, b"{", "malformed_json")
        if roll < 0.1:
            return Draft(appended_ms, key, _encode(document | {"currency": "XXZ"}), "unknown_value")
        return Draft(appended_ms, key, _encode(document))


def notice(rng: Random, topic: str, at_ms: int, number: int) -> Draft:
    """A live session's begin or end, or an allowance: sound, or garbage."""
    campaign = f"c{number}"
    if rng.random() < 0.1:
        return Draft(at_ms, campaign.encode(), b"{", "malformed_json")
    document: dict[str, Any] = {"campaign_id": campaign}
    if topic == SESSIONS_TOPIC:
        document |= {
            "live_session_id": rng.choice(["l1", "l2"]),
            "creator_id": rng.choice(["h1", None]),
            "state": rng.choice(["started", "started", "ended"]),
            "event_time_ms": at_ms,
            "planned_end_ms": rng.choice([None, at_ms + 10 * MINUTE_MS]),
        }
    else:
        document |= {
            "pool": rng.choice(["balance", "shared_budget"]),
            "pool_id": rng.choice(["s1", "b1"]),
            "currency": CURRENCY_OF[number % len(CURRENCY_OF)],
            "limit_micros": rng.randrange(10**7),
            "left_micros": rng.randrange(10**7),
            "burn_micros_per_h": rng.randrange(10**6),
            "sequence": rng.randrange(1_000),
        }
    return Draft(at_ms, campaign.encode(), _encode(document))


def _terms(rng: Random) -> dict[str, Any]:
    """Billing by every model, budgets small enough to be reached, pools to draw on."""
    price = rng.randrange(1, 10**6)
    billing = rng.choice(
        [
            {},
            {"model": "clearing_price"},
            {"model": "cpm", "price_micros": price},
            {"model": "cpc", "price_micros": price},
            {"model": "ocpm", "target_cost_micros": price},
            {"model": "ocpc", "price_micros": price, "target_cost_micros": price * 3},
            {"model": "paid_play", "price_micros": price, "play_milestone": rng.choice(["start", "3s", "complete"])},
            {"model": "cpa", "price_micros": price, "conversion_type": "order"},
            *[{"model": "cpa", "price_micros": price, "conversion_type": "lead"}] * 5,
        ]
    )
    budget = rng.choice([{}, {"daily_micros": price * 4}, {"total_micros": price * 9}, {"daily_micros": 10**12}])
    found: dict[str, Any] = {"billing": billing, "goal": rng.choice(["lead", "order"])}
    if budget and rng.random() < 0.3:
        budget = budget | {"shared_budget_id": rng.choice(["s1", "s2"])}
    if rng.random() < 0.3:
        found["account_id"] = rng.choice(["b1", "b2"])
    if rng.random() < 0.2:
        return found | {"budget": {"session_micros": price * 3}, "pacing": {"period": "live_session"}}
    return found | {"budget": budget, "alerts": {"stalled_ms": MINUTE_MS, "anomaly_min_clicks": 2}}


def _impression(rng: Random, event: dict[str, Any], _clock_ms: int) -> None:
    event["prefetch"] = rng.random() < 0.1
    event["viewable"] = rng.choice([True, False, None])
    event["clearing_price_millimicros"] = rng.choice([None, 0, rng.randrange(1, 10**7)])


def _play(rng: Random, event: dict[str, Any], _clock_ms: int) -> None:
    event["milestone"] = rng.choice(["start", "3s", "5s", "complete"])
    event["watched_ms"] = rng.randrange(5_000)
    event["loop"] = rng.choice([1, 1, 1, 2, 3])
    event["viewable"] = rng.choice([True, False, None])
    event["clearing_price_millimicros"] = rng.choice([None, rng.randrange(1, 10**7)])


def _click(rng: Random, event: dict[str, Any], _clock_ms: int) -> None:
    event["click_type"] = rng.choice(["card", "button", "cover", "live_room_entry", "profile", "other", None])
    event["clearing_price_millimicros"] = rng.choice([None, rng.randrange(1, 10**9)])


def _conversion(rng: Random, event: dict[str, Any], clock_ms: int) -> None:
    event["conversion_type"] = rng.choice(["lead"] * 4 + ["add_to_cart", "order", "paid", "install", "other"])
    event["quantity"] = rng.choice([None, 1, 2, 5])
    event["value_micros"] = rng.choice([None, 0, rng.randrange(10**9)])
    event["cost_of_goods_micros"] = rng.choice([None, rng.randrange(10**8)])
    event["discount_micros"] = rng.choice([None, None, rng.randrange(10**6)])
    if rng.random() < 0.8:
        touch = {"touch_type": rng.choice(["click", "click", "view", "play", "none"])}
        if rng.random() < 0.8:
            touch["touch_time_ms"] = clock_ms - rng.randrange(-MINUTE_MS, 40 * 3_600_000)
        if rng.random() < 0.3:
            touch["weight_ppm"] = rng.randrange(1_000_001)
        event["attribution"] = touch


def _adjustment(rng: Random, event: dict[str, Any], clock_ms: int) -> None:
    event["adjustment_type"] = rng.choice(["cancel", "refund", "chargeback", "rejected_lead"])
    event["adjusted_event_id"] = f"e{rng.randrange(1_000)}"
    event["adjusted_event_time_ms"] = clock_ms - rng.randrange(3_600_000)
    event["amount_micros"] = rng.choice([0, -rng.randrange(10**9), rng.randrange(10**6)])


def _engagement(rng: Random, event: dict[str, Any], _clock_ms: int) -> None:
    event["engagement_type"] = rng.choice(["like", "comment", "share", "follow", "unfollow", "negative_feedback"])


_BODY: Final = {
    "ads.impressions": _impression,
    "ads.plays": _play,
    "ads.clicks": _click,
    "ads.conversions": _conversion,
    "ads.adjustments": _adjustment,
    "ads.engagements": _engagement,
}


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _without(event: dict[str, Any], name: str) -> bytes:
    return _encode({key: value for key, value in event.items() if key != name})


_GARBAGE: Final = {
    "empty": lambda _: None,
    "empty#2": lambda _: b"",
    "too_large": lambda event: _encode(event | {"padding": "x" * 70_000}),
    "too_deep": lambda event: _encode(event)[:-1] + b',"deep":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "not_utf8": lambda event: _encode(event | {"event_id": "@@"}).replace(b"@@", b"\xff\xfe"),
    "malformed_json": lambda event: _encode(event)[:-3],
    "malformed_json#2": lambda event: _encode(event)[:-1] + b',"client_time_ms":NaN}',
    "missing_field": lambda event: _without(event, "event_id"),
    "missing_field#2": lambda event: _without(event, "event_time_ms"),
    "wrong_type": lambda event: _encode(event | {"event_time_ms": "yesterday"}),
    "wrong_type#2": lambda _: b"[1,2,3]",
    "unknown_value": lambda event: _encode(event | {"traffic": "stolen"}),
    "out_of_range": lambda event: _encode(event | {"event_time_ms": -5}),
    "out_of_range#2": lambda event: _encode(event | {"event_id": ""}),
    "out_of_range#3": lambda event: _encode(event | {"event_id": "x" * 129}),
}
