"""The oracle's part about invalid traffic: what each event counts as, what later words move, and at which tick.

Words are found in closed form over the ticks: for each click the first tick at which its impression is known, or is
missed; for each verdict and review the first tick that had read it. Rows come from SQL, as everywhere.
"""

import json
import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import xxhash

from tests.support import oracle_sql as sql
from tests.support.events import VERDICTS_TOPIC, RawRecord

MAX_TOLD: Final = 2_000
LATE_WORDS: Final = (
    "ads.impressions",
    "ads.plays",
    "ads.clicks",
    "ads.conversions",
    "ads.adjustments",
    "ads.engagements",
)
"""Inputs in the order in which a tick looks at them."""
TOUCHED: Final = {
    "ads.clicks": ("ads.impressions", "impression_id", "impression_wait_ms", "click_without_impression"),
    "ads.conversions": ("ads.clicks", "touch_id", "click_wait_ms", "conversion_without_click"),
}


class Event(NamedTuple):
    """A counted event that a word may be about."""

    topic: str
    offset: int
    event_id: str
    at_ms: int
    campaign: str
    touch: str | None
    touch_ms: int
    raised: frozenset[str]
    excluding: frozenset[str]
    click_type: str | None


class Word(NamedTuple):
    """One rule's word, or a reviewer's, at one tick."""

    seq: int
    order: tuple[int, ...]
    topic: str
    event_id: str
    rule: str
    """A rule; '-rule' takes it back; 'overturn' and 'confirm' are a reviewer's."""
    campaign: str | None = None
    said_ms: int = 0
    """When a reviewer said it."""


class Move(NamedTuple):
    """An event counts as something else from this tick on."""

    seq: int
    number: int
    topic: str
    offset: int
    before: str
    after: str


class Told(NamedTuple):
    """Latest state of a flag: by (partition, input, digest, rule)."""

    state: str


class Labels:
    """What events of one partition count as, over its ticks."""

    def __init__(
        self, db: sqlite3.Connection, partition: int, ticks: Sequence[Any], words: Sequence[RawRecord]
    ) -> None:
        self.db = db
        self.partition = partition
        self.ticks = [tick.document for tick in ticks]
        self.words = words
        self.events: dict[str, list[Event]] = {topic: [] for topic in LATE_WORDS}
        self.moves: list[Move] = []
        self.flags: dict[tuple[str, str, str, int], tuple[str, str, str]] = {}
        """By (input, digest, rule, review): class, how it was decided (on or observe), the latest state told."""
        self._held: dict[tuple[str, str], tuple[int, set[str], set[str], str]] = {}
        self._reviewed: dict[tuple[str, str, int], tuple[str, int]] = {}
        """By (topic, digest, event time): the last review's decision, and which it was."""
        self._by_id: dict[tuple[str, str], list[Event]] = {}
        self._place_of = {tick["seq"]: k for k, tick in enumerate(self.ticks)}
        self._applied = {
            topic: [tick["applied"][topic] for tick in self.ticks] for topic in (*LATE_WORDS, VERDICTS_TOPIC)
        }
        self._touches: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
        """Counted events by topic and id: offset, event time, bucket."""
        self._firsts: dict[str, list[int]] = {}
        self._rules = rules_by_tick(self.ticks)
        self._newest = {
            topic: [self._newest_of(topic, tick["applied"][topic]) for tick in self.ticks] for topic in LATE_WORDS
        }

    def _newest_of(self, topic: str, applied: int) -> int:
        row = self.db.execute(sql.NEWEST, (self.partition, topic, applied)).fetchone()
        return -1 if row is None or row[0] is None else int(row[0])

    # What events count as at first

    def load(self) -> None:
        """Reads the counted events and how they were counted; writes their own validity."""
        query = """SELECT topic, off, event_id, event_time_ms, COALESCE(campaign_id, ''), impression_id, touch_id,
            touch_type, touch_time_ms, reasons, rules_on, rules_active, click_type FROM billed
            WHERE part = ? AND counted ORDER BY topic, off"""
        for row in self.db.execute(query, (self.partition,)).fetchall():
            (
                topic,
                offset,
                event_id,
                at_ms,
                campaign,
                impression,
                touch,
                touch_type,
                touch_ms,
                reasons,
                on,
                active,
                click_type,
            ) = row
            found = [rule for rule in reasons.split(",") if rule]
            raised = frozenset(rule for rule in found if f",{rule}," in active)
            excluding = frozenset(rule for rule in found if f",{rule}," in on)
            refers, when = self._reference(topic, impression, touch, touch_type, touch_ms, at_ms)
            event = Event(topic, offset, event_id, at_ms, campaign, refers, when, raised, excluding, click_type)
            self.events[topic].append(event)
            self._by_id.setdefault((topic, event_id), []).append(event)
            if excluding:
                place = (validity_of(excluding), topic, self.partition, offset)
                self.db.execute("UPDATE billed SET validity = ? WHERE topic = ? AND part = ? AND off = ?", place)

    @staticmethod
    def _reference(
        topic: str, impression: str | None, touch: str | None, touch_type: str, touch_ms: int | None, at_ms: int
    ) -> tuple[str | None, int]:
        if topic == "ads.clicks":
            return impression, at_ms
        if topic == "ads.conversions" and touch_type == "click" and touch_ms is not None:
            return touch, touch_ms
        return None, 0

    # Words

    def run(self) -> None:
        """Everything that is said, in order, and what it moves."""
        said = [*self._at_once(), *self._about_touches(), *self._read()]
        numbers: dict[int, int] = {}
        for word in sorted(said, key=lambda w: (w.seq, w.order)):
            move = self._take(word)
            if move is not None:
                number = numbers[word.seq] = numbers.get(word.seq, 0) + 1
                self.moves.append(Move(word.seq, number, *move))

    def _at_once(self) -> Iterable[Word]:
        """Flags that events were counted with are told at the tick that has read them."""
        for at, topic in enumerate(LATE_WORDS):
            for event in self.events[topic]:
                tick = self._first_tick(topic, event.offset)
                if tick is not None:
                    for rule in event.raised:
                        yield Word(self.ticks[tick]["seq"], (at, 0, event.offset), topic, event.event_id, f"={rule}")

    def _first_tick(self, topic: str, offset: int) -> int | None:
        k = bisect_right(self._applied[topic], offset)
        return k if k < len(self.ticks) else None

    def _about_touches(self) -> Iterable[Word]:
        for topic, (touched, _, wait, missing) in TOUCHED.items():
            for event in self.events[topic]:
                begin = self._first_tick(topic, event.offset)
                if event.touch is not None and begin is not None:
                    yield from self._about_touch(event, begin, touched, wait, missing)

    def _about_touch(self, event: Event, begin: int, touched: str, wait: str, missing: str) -> Iterable[Word]:
        order = (LATE_WORDS.index(event.topic), 1)
        missed_at: int | None = None
        came_ms = self._newest_of(event.topic, event.offset + 1)
        known_from = max(came_ms, self._needed(touched, event.topic, begin)) - self._memory_ms(touched, begin)
        for k in range(begin, len(self.ticks)):
            invalid, newest, seq = self._rules[k]["invalid"], self._newest[touched][k], self.ticks[k]["seq"]
            touch_ms = self._known(touched, event, k, known_from)
            if newest >= 0 and touch_ms is not None:
                place = (*order, 0 if missed_at is None else 1, missed_at or begin, event.offset)
                if missed_at is not None:
                    yield Word(seq, (*place, 0), event.topic, event.event_id, f"-{missing}")
                if event.topic == "ads.clicks" and event.at_ms < touch_ms:
                    yield Word(seq, (*place, 1), event.topic, event.event_id, "click_before_impression")
                elif event.topic == "ads.clicks" and event.at_ms - touch_ms < soonest_ms(event.click_type, invalid):
                    yield Word(seq, (*place, 1), event.topic, event.event_id, "click_too_soon")
                return
            if missed_at is None and newest >= 0 and newest >= event.touch_ms + invalid[wait]:
                missed_at = k
                if event.touch_ms >= max(known_from, self._first_ms(touched, k)):  # else nobody can tell; it may come
                    yield Word(seq, (*order, 2, begin, event.offset, 0), event.topic, event.event_id, missing)
            if missed_at is not None and newest > event.touch_ms + self._memory_ms(touched, k, "lateness_ms"):
                return

    def _memory_ms(self, topic: str, k: int, more: str = "") -> int:
        horizon = self._rules[k]["horizons"][topic.removeprefix("ads.")]
        return int(horizon["dedupe_ms"]) + (int(horizon[more]) if more else 0)

    def _needed(self, touched: str, by: str, k: int) -> int:
        """Event time up to which both inputs had been read at the tick before: what was remembered then is kept."""
        return min(self._newest[touched][k - 1], self._newest[by][k - 1]) if k else -1

    def _first_ms(self, topic: str, k: int) -> int:
        if topic not in self._firsts:
            query = """SELECT off, event_time_ms FROM judged WHERE part = ? AND topic = ? AND reason IS NULL
                ORDER BY off LIMIT 1"""
            row = self.db.execute(query, (self.partition, topic)).fetchone()
            self._firsts[topic] = list(row or ())
        first = self._firsts[topic]
        return first[1] if first and first[0] < self._applied[topic][k] else -1

    def _known(self, topic: str, event: Event, k: int, known_from: int) -> int | None:
        """When the touch happened, where it is known at this tick, and was when the event came."""
        event_id = event.touch or ""
        if (topic, event_id) not in self._touches:
            query = """SELECT off, event_time_ms, bucket_ms FROM billed WHERE part = ? AND topic = ? AND event_id = ?
                AND counted"""
            self._touches[topic, event_id] = self.db.execute(query, (self.partition, topic, event_id)).fetchall()
        found = [(at, size) for offset, at, size in self._touches[topic, event_id] if offset < self._applied[topic][k]]
        if not found:
            return None
        at_ms, bucket_ms = max(found)
        memory_ms, end_ms = self._memory_ms(topic, k), (at_ms // bucket_ms + 1) * bucket_ms
        is_kept = end_ms + memory_ms > self._needed(topic, event.topic, k)
        return int(at_ms) if is_kept and end_ms > known_from and at_ms <= event.touch_ms + memory_ms else None

    def _read(self) -> Iterable[Word]:
        """Verdicts and reviews that were read, sound ones."""
        digests = {
            (topic, digest_of(event.event_id)): event.event_id for topic in LATE_WORDS for event in self.events[topic]
        }
        for record in self.words:
            document = json.loads(record.value or b"")
            tick = self._first_tick(VERDICTS_TOPIC, record.offset)
            if tick is None:
                continue
            seq, order = self.ticks[tick]["seq"], (99, record.offset)
            if document["type"] == "review":
                topic = f"ads.{document['input']}"
                about = (document["event_id"], document["decision"], document["campaign_id"], document["at_ms"])
                yield Word(seq, (*order, 0), topic, *about)
                continue
            known = [digest for digest in document["clicks"] if ("ads.clicks", digest) in digests]
            for number, digest in enumerate(known):
                event_id = digests["ads.clicks", digest]
                yield Word(seq, (*order, number), "ads.clicks", event_id, document["rule"])

    # What they do

    def _take(self, word: Word) -> tuple[str, int, str, str] | None:
        k = self._place_of[word.seq]
        applied = self._applied[word.topic][k]
        events = [e for e in self._by_id.get((word.topic, word.event_id), ()) if e.offset < applied]
        if word.topic not in TOUCHED:  # the others are remembered where they were flagged
            events = [event for event in events if event.raised]
        if not events or (word.campaign is not None and events[-1].campaign != word.campaign):
            return None
        event = events[-1]
        key = (word.topic, digest_of(event.event_id))
        if word.rule.startswith("="):
            self._tell(key, word.rule[1:], "raised", word.rule[1:] in event.excluding)
            return None
        held = self._held.get(key)
        if held is None or held[0] != event.at_ms:
            held = (event.at_ms, set(event.raised), set(event.excluding), "")
        before = counts_as(held)
        after = self._said(word, key, held, sql.DEFAULT_MODES | self._rules[k]["invalid"]["modes"])
        if after is None:
            return None
        self._held[key] = after
        now = counts_as(after)
        return None if before == now else (word.topic, event.offset, before, now)

    def _said(
        self, word: Word, key: tuple[str, str], held: tuple[int, set[str], set[str], str], modes: Mapping[str, str]
    ) -> tuple[int, set[str], set[str], str] | None:
        at_ms, raised, excluding, review = held
        if word.rule in ("overturn", "confirm"):
            self._tell_review(key, held, word)
            return at_ms, raised, excluding, word.rule
        rule, is_withdrawn = word.rule.removeprefix("-"), word.rule.startswith("-")
        if (modes[rule] == "off" and not is_withdrawn) or (rule in raised) is not is_withdrawn:
            return None
        if is_withdrawn:
            self._tell(key, rule, "withdrawn", rule in excluding)
            return at_ms, raised - {rule}, excluding - {rule}, review
        self._tell(key, rule, "raised", modes[rule] == "on")
        return at_ms, raised | {rule}, excluding | ({rule} if modes[rule] == "on" else set()), review

    def _tell(self, key: tuple[str, str], rule: str, state: str, is_on: bool) -> None:
        place = (key[0].removeprefix("ads."), key[1], rule, 0)
        self.flags[place] = (validity_of([rule]), "on" if is_on else "observe", state)

    def _tell_review(self, key: tuple[str, str], held: tuple[int, set[str], set[str], str], word: Word) -> None:
        """A review has a row of its own, named by when it was said; one not later than the last, by 1 ms more."""
        last, last_ms = self._reviewed.get((*key, held[0]), ("", 0))
        is_again = (word.rule, word.said_ms) == (last, last_ms)
        review_ms = last_ms if is_again else max(word.said_ms, last_ms + 1)
        self._reviewed[*key, held[0]] = (word.rule, review_ms)
        kind = validity_of(held[2]) if held[2] else "sivt"
        state = "overturned" if word.rule == "overturn" else "confirmed"
        self.flags[key[0].removeprefix("ads."), key[1], "review", review_ms] = (kind, "on", state)

    def validity_at(self, topic: str, offset: int, own: str, seq: int) -> str:
        """What an event counts as behind the words of a tick."""
        moved = [m for m in self.moves if (m.topic, m.offset) == (topic, offset) and m.seq <= seq]
        return moved[-1].after if moved else own


def soonest_ms(click_type: str | None, invalid: Mapping[str, Any]) -> int:
    """How soon after its impression a click may come."""
    soonest: int = invalid["click_after_by_type_ms"].get(click_type, invalid["click_after_ms"])
    return soonest


def rules_by_tick(ticks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rules in force while a tick looks: those that it brings hold behind it, but for the first."""
    found: list[dict[str, Any]] = []
    current: dict[str, Any] | None = None
    for tick in ticks:
        brought = tick.get("rules")
        current = brought if current is None else current
        assert current is not None
        found.append(current)
        current = brought or current
    return found


def digest_of(event_id: str) -> str:
    """By which words name an event."""
    return str(xxhash.xxh3_128_hexdigest(event_id.encode()))


def validity_of(excluding: Iterable[str]) -> str:
    """General rules are told first."""
    found = set(excluding)
    return "valid" if not found else "givt" if found & set(sql.GENERAL) else "sivt"


def counts_as(held: tuple[int, set[str], set[str], str]) -> str:
    """A reviewer's word outranks the rules."""
    _, _, excluding, review = held
    if review == "overturn":
        return "valid"
    found = validity_of(excluding)
    return "sivt" if review == "confirm" and found == "valid" else found
