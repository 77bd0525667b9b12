"""The batch oracle: what every table must hold in the end, in SQL over the raw records. It shares no code with
streams.stages or streams.state (only the names of the measures), so that both can only be right together.

It is given the logs as they stand: every record with its place, the ranges that retention took, and the journal's
bytes (which ticks count decides from when on settings and rules hold, and which records are poison).

    raw -> ruled (the rules in force) -> judged (rejected?, running newest event time, late?) -> settled (duplicate?)
        -> touches (keys and amounts at one grain) -> keyed (folded into `other` beyond the limit) -> sums
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

from streams.records import MEASURES
from tests.support import oracle_sql as sql
from tests.support.events import EVENT_TOPICS, EVIDENCE_TOPIC, SETTINGS_TOPIC, VERDICTS_TOPIC, RawRecord
from tests.support.oracle_flags import Labels, rules_by_tick
from tests.support.oracle_sources import Desk

Key = tuple[Any, ...]
Place = tuple[str, int, int]
"""(topic, partition, offset)"""


class Lost(NamedTuple):
    """Offsets [from_offset, to_offset) that retention took before they were read."""

    topic: str
    partition: int
    from_offset: int
    to_offset: int


class Logs(NamedTuple):
    """All that the oracle is given."""

    records: Sequence[RawRecord]
    spans: Mapping[tuple[str, int], tuple[int, int]]
    """First and next offset by topic and partition."""
    journals: Mapping[int, Sequence[tuple[int, bytes]]]
    lost: Sequence[Lost] = ()
    log_epoch: int = 1


class Truth(NamedTuple):
    """Final rows by key, in the tables' layout, without `rules` and `version`."""

    panes: dict[Key, Key]
    reports: dict[Key, Key]
    """Measures, then the number of distinct users."""
    reach: dict[Key, int]
    """Distinct users by report key, over all effect panes."""
    cohorts: dict[Key, Key]
    flags: dict[Key, Key]
    """Mode under which it was decided, and latest state, by (log epoch, partition, input, digest, rule)."""
    ledger: dict[Key, int]
    campaigns: dict[Key, Key]
    letters: dict[Place, str]


class TickSeen(NamedTuple):
    """A tick that counts."""

    offset: int
    document: dict[str, Any]


@lru_cache(maxsize=10_000)
def _entry(value: bytes) -> dict[str, Any]:
    """A journal is asked about again and again while it grows; nobody changes what is read here."""
    document: dict[str, Any] = json.loads(value)
    return document


def ticks_of(journal: Iterable[tuple[int, bytes]]) -> list[TickSeen]:
    """The ticks that count: of the last claim before them, each number once."""
    ticks: list[TickSeen] = []
    owner, highest = "", 0
    for offset, value in journal:
        document = _entry(value)
        if document["type"] == "claim":
            owner = document["claim_id"]
        elif document["claim_id"] == owner and document["seq"] > highest:
            highest = document["seq"]
            ticks.append(TickSeen(offset, document))
    return ticks


class Oracle:
    """One evaluation. `db` stays open for questions of a failing test."""

    def __init__(self, logs: Logs) -> None:
        self.logs = logs
        self.ticks = {partition: ticks_of(journal) for partition, journal in logs.journals.items()}
        self.db = sqlite3.connect(":memory:")
        self.db.execute("PRAGMA synchronous = OFF")
        self._load()

    def truth(self) -> Truth:
        """Runs all stages."""
        self._judge()
        return Truth(
            panes=self._sums(sql.PANE_KEYS, sql.PANE_FOLDED, sql.PANE_TOUCHES, MEASURES)
            | self._sums(sql.PANE_KEYS, sql.PANE_FOLDED, sql.EFFECT_PANES, MEASURES),
            reports=self._reports(),
            reach=self._reach(),
            cohorts=self._cohorts(),
            flags=self._flags(),
            ledger=self._ledger(),
            campaigns=self._campaigns(),
            letters=self._letters(),
        )

    def floods(self) -> set[str]:
        """Digests of the clicks that the owners of publishers must tell as flooding."""
        found: set[str] = set()
        for partition, ticks in self.ticks.items():
            documents = [tick.document for tick in ticks]
            evidence = self._sound(EVIDENCE_TOPIC, partition)
            found |= Desk(documents, rules_by_tick(documents), evidence, len(self.logs.journals)).run()
        return found

    def _sound(self, topic: str, partition: int) -> list[RawRecord]:
        """Records of a low-rate input that took effect."""
        judged = self._notices_judged()
        return [record for record, reason in judged if not reason and record[:2] == (topic, partition)]

    # Loading

    def _load(self) -> None:
        self.db.execute(f"CREATE TABLE raw ({', '.join(sql.RAW_COLUMNS)})")
        places = ", ".join("?" * len(sql.RAW_COLUMNS))
        rows = (_flat(record) for record in self.logs.records if record.topic in EVENT_TOPICS)
        self.db.executemany(f"INSERT INTO raw VALUES ({places})", rows)
        self.db.execute("CREATE TABLE lost (topic, part, from_off, to_off)")
        self.db.executemany("INSERT INTO lost VALUES (?, ?, ?, ?)", self.logs.lost)
        self.db.execute("CREATE TABLE poison (topic, part, off)")
        self.db.executemany("INSERT INTO poison VALUES (?, ?, ?)", self.poisoned())
        self.db.execute(f"CREATE TABLE rules ({', '.join(sql.RULE_COLUMNS)})")
        places = ", ".join("?" * len(sql.RULE_COLUMNS))
        self.db.executemany(f"INSERT INTO rules VALUES ({places})", self._rules())
        self.db.execute("CREATE TABLE currencies (part, campaign, currency, topic, from_off)")
        self.db.executemany("INSERT INTO currencies VALUES (?, ?, ?, ?, ?)", self._currencies())

    def poisoned(self) -> list[Place]:
        """Records that some tick declares to be poison."""
        return sorted(
            {
                (topic, partition, offset)
                for partition, ticks in self.ticks.items()
                for tick in ticks
                for topic, offsets in tick.document.get("poisoned", {}).items()
                for offset in offsets
            }
        )

    def _rules(self) -> Iterable[Key]:
        for partition, ticks in self.ticks.items():
            is_first = True
            for tick in ticks:
                rules = tick.document.get("rules")
                if not rules:
                    continue
                for topic, offset in tick.document["applied"].items():
                    # what was read before the first tick has no rules of its own: those of the first hold
                    yield _rule_row(partition, topic, 0 if is_first else offset, tick.document["seq"], rules)
                is_first = False

    def _accepted(self) -> Iterable[tuple[int, RawRecord, dict[str, Any], TickSeen]]:
        """Versions of settings that took effect, and the tick at which they did."""
        currencies: dict[tuple[int, str], str] = {}
        sound = [record for record, reason in self._notices_judged() if not reason and record.topic == SETTINGS_TOPIC]
        for record in sorted(sound, key=lambda r: (r.partition, r.offset)):
            document = json.loads(record.value or b"")
            after = [t for t in self.ticks[record.partition] if t.document["applied"][SETTINGS_TOPIC] > record.offset]
            known = currencies.setdefault((record.partition, document["campaign_id"]), document["currency"])
            if after and known == document["currency"]:
                yield record.partition, record, document, after[0]

    def _is_lost(self, record: RawRecord) -> bool:
        return any(
            (x.topic, x.partition) == (record.topic, record.partition) and x.from_offset <= record.offset < x.to_offset
            for x in self.logs.lost
        )

    def _currencies(self) -> Iterable[Key]:
        for partition, _, document, tick in self._accepted():
            for topic in EVENT_TOPICS:
                yield partition, document["campaign_id"], document["currency"], topic, tick.document["applied"][topic]

    # Judging

    def _judge(self) -> None:
        self.db.executescript(sql.JUDGE)
        self.db.execute(f"CREATE TABLE tariffs ({', '.join(sql.TARIFF_COLUMNS)})")
        places = ", ".join("?" * len(sql.TARIFF_COLUMNS))
        self.db.executemany(f"INSERT INTO tariffs VALUES ({places})", list(self._tariffs()))
        self.db.executescript(sql.BILL)
        self.db.executescript(sql.REJECTED)
        self.db.executescript(sql.FLAG)
        self.labels = {partition: self._labels(partition) for partition in self.ticks}
        self.db.execute(f"CREATE TABLE effects ({', '.join(sql.EFFECT_COLUMNS)})")
        places = ", ".join("?" * len(sql.EFFECT_COLUMNS))
        self.db.executemany(f"INSERT INTO effects VALUES ({places})", list(self._effects()))

    def _labels(self, partition: int) -> Labels:
        labels = Labels(self.db, partition, self.ticks[partition], self._sound(VERDICTS_TOPIC, partition))
        labels.load()
        labels.run()
        return labels

    def _effects(self) -> Iterable[Key]:
        """Moves, then credits, tick by tick: each move takes from one validity and gives to another."""
        credits = list(self._credits())
        given = {(partition, offset): (seq, cost) for partition, offset, _, seq, _, cost in credits}
        for partition, labels in self.labels.items():
            for move in labels.moves:
                seq, cost = given.get((partition, move.offset), (move.seq, 0)) if "conv" in move.topic else (0, 0)
                credited = cost if seq < move.seq else 0
                tick = next(t for t in self.ticks[partition] if t.document["seq"] == move.seq)
                newest = self._newest_at(partition, tick.document["applied"])
                rules = self.db.execute(sql.RULES_BEFORE, (partition, move.seq)).fetchone()
                for half, (validity, sign) in enumerate(((move.before, -1), (move.after, 1))):
                    place = move.seq * 10**9 + move.number * 2 + half
                    where = (partition, move.topic, move.offset, place, newest)
                    yield (*where, validity, sign, credited, 0, *rules)
        for partition, offset, place, seq, newest, _ in credits:
            own = self.db.execute(sql.OWN_VALIDITY, (partition, offset)).fetchone()[0]
            validity = self.labels[partition].validity_at("ads.conversions", offset, own, seq)
            rules = self.db.execute(sql.RULES_BEFORE, (partition, seq)).fetchone()
            yield partition, "ads.conversions", offset, place, newest, validity, 1, 0, 1, *rules

    def _credits(self) -> Iterable[tuple[int, int, int, int, int, int]]:
        """Rejected leads that cost something: each at the first tick that had read it and its rejection.

        Partition, offset of the lead, place, tick, newest event time, cost.
        """
        for partition, conversion, rejection in self.db.execute("SELECT * FROM rejected").fetchall():
            for tick in self.ticks[partition]:
                applied, seq = tick.document["applied"], tick.document["seq"]
                if applied["ads.conversions"] <= conversion or applied["ads.adjustments"] <= rejection:
                    continue
                before = [t for t in self.ticks[partition] if t.document["seq"] < seq]
                was_read = bool(before) and before[-1].document["applied"]["ads.adjustments"] > rejection
                newest = self._newest_at(partition, applied)
                at_ms, horizon_ms, cost = self.db.execute(sql.HORIZON, (partition, conversion, rejection)).fetchone()
                read_at = [t for t in before if t.document["applied"]["ads.adjustments"] > rejection]
                read_ms = self._newest_at(partition, read_at[0].document["applied"]) if read_at else newest
                if min(at_ms, read_ms) < newest - horizon_ms:  # forgotten by then
                    break
                # what waited for its conversion comes first, in the order of conversions; then rejections in theirs
                place = seq * 10**9 + 5 * 10**8 + (conversion if was_read else 10**6 + rejection)
                yield partition, conversion, place, seq, newest, cost
                break

    def _newest_at(self, partition: int, applied: Mapping[str, int]) -> int:
        reached = [self.db.execute(sql.NEWEST, (partition, t, applied[t])).fetchone() for t in EVENT_TOPICS]
        return max((at for row in reached if row for at in row if at is not None), default=-1)

    def _tariffs(self) -> Iterable[Key]:
        """By topic: from which offset on a version is known, and from which event time on it holds.

        The first also holds for whatever comes before its own time, until there is another.
        """
        seen: set[str] = set()
        for partition, record, document, tick in self._accepted():
            campaign, applied = document["campaign_id"], tick.document["applied"]
            times = [self._holds_from(partition, record, document, applied)]
            times += [] if campaign in seen else [0]
            seen.add(campaign)
            for topic, from_ms in product(EVENT_TOPICS, times):
                yield partition, campaign, topic, applied[topic], from_ms, *_billing(document)

    def _holds_from(self, partition: int, record: RawRecord, document: dict[str, Any], applied: dict[str, int]) -> int:
        """The pane that it names, or the first that no event had reached."""
        pane_ms = self._pane_ms(partition, record.offset)
        earliest = max(record.timestamp, document.get("valid_from_ms", 0))
        newest = self._newest_at(partition, applied)
        unreached = newest // pane_ms * pane_ms + pane_ms if newest >= 0 else 0
        return max((earliest + pane_ms - 1) // pane_ms * pane_ms, unreached)

    def _sums(
        self,
        keys: Sequence[str],
        folded: Mapping[str, str],
        touches: str,
        sums: Sequence[str],
        more: Sequence[str] = (),
    ) -> dict[Key, Key]:
        self.db.executescript(sql.fold(touches, keys, folded, (*sums, *more)))
        amounts = ", ".join(f"SUM({name})" for name in sums)
        columns = ", ".join(keys)
        found = self.db.execute(f"SELECT {columns}, {amounts} FROM keyed GROUP BY {columns}")
        width = len(keys)
        return {self._row_key(keys, row[:width]): tuple(row[width:]) for row in found}

    def _row_key(self, keys: Sequence[str], values: Key) -> Key:
        """The tables' layout: epoch first."""
        named = dict(zip(keys, values, strict=True))
        return (self.logs.log_epoch, *named.values())

    def _reports(self) -> dict[Key, Key]:
        sums = self._sums(sql.REPORT_KEYS, sql.REPORT_FOLDED, sql.REPORT_TOUCHES, MEASURES, ("user",))
        columns = ", ".join(sql.REPORT_KEYS)
        found = self.db.execute(f"SELECT {columns}, COUNT(DISTINCT user) FROM keyed GROUP BY {columns}")
        users = {self._row_key(sql.REPORT_KEYS, row[:-1]): row[-1] for row in found}
        own = {key: (*values, users[key]) for key, values in sums.items()}
        return own | {key: (*values, 0) for key, values in self._report_effects().items()}

    def _report_effects(self) -> dict[Key, Key]:
        keyed = "ALTER TABLE keyed RENAME TO own_keyed"
        self.db.execute("DROP TABLE IF EXISTS own_keyed")
        self.db.execute(keyed)
        found = self._sums(sql.REPORT_KEYS, sql.EFFECT_FOLDED, sql.EFFECT_REPORTS, MEASURES, ("user",))
        self.db.executescript("INSERT INTO own_keyed SELECT * FROM keyed; DROP TABLE keyed")
        self.db.execute("ALTER TABLE own_keyed RENAME TO keyed")
        return found

    def _reach(self) -> dict[Key, int]:
        """Uses what `_reports` has keyed."""
        keys = [key for key in sql.REPORT_KEYS if key != "effect_pane"]
        columns = ", ".join(keys)
        found = self.db.execute(f"SELECT {columns}, COUNT(DISTINCT user) FROM keyed GROUP BY {columns}")
        return {tuple(row[:-1]): row[-1] for row in found}

    def _cohorts(self) -> dict[Key, Key]:
        sums = ("conversions", "conversion_value_micros")
        own = self._sums(sql.COHORT_KEYS, sql.COHORT_FOLDED, sql.COHORT_TOUCHES, sums)
        return own | self._sums(sql.COHORT_KEYS, sql.COHORT_FOLDED, sql.EFFECT_COHORTS, sums)

    def _flags(self) -> dict[Key, Key]:
        return {
            (self.logs.log_epoch, partition, *key): told
            for partition, labels in self.labels.items()
            for key, told in labels.flags.items()
        }

    # Ledger and letters

    def _ledger(self) -> dict[Key, int]:
        """The low-rate inputs are inputs like any other here."""
        ledger: dict[Key, int] = {}
        for topic, partition, entry, reason, count in self.db.execute(sql.LEDGER):
            ledger[self.logs.log_epoch, topic.removeprefix("ads."), partition, entry, reason] = count
        for (topic, partition), (start, end) in self.logs.spans.items():
            prefix = (self.logs.log_epoch, topic.removeprefix("ads."), partition)
            ledger[*prefix, "consumed", ""] = end - start
            lost, holes = self._without_records(topic, partition, start, end)
            ledger |= {(*prefix, "lost_retention", ""): lost} if lost else {}
            ledger |= {(*prefix, "no_record", ""): holes} if holes else {}
        for record, reason in self._notices_judged():
            entry = ("rejected", reason) if reason else ("counted", "")
            key = (self.logs.log_epoch, record.topic.removeprefix("ads."), record.partition, *entry)
            ledger[key] = ledger.get(key, 0) + 1
        return ledger

    def _notices_judged(self) -> Iterable[tuple[RawRecord, str]]:
        """Records of the low-rate inputs that were not lost, and why they are rejected, if so."""
        poisoned = set(self.poisoned())
        for record in self.logs.records:
            if record.topic not in EVENT_TOPICS and not self._is_lost(record):
                at = (record.topic, record.partition, record.offset)
                yield record, "internal_error" if at in poisoned else record.expected

    def _without_records(self, topic: str, partition: int, start: int, end: int) -> tuple[int, int]:
        lost = sum(x.to_offset - x.from_offset for x in self.logs.lost if (x.topic, x.partition) == (topic, partition))
        there = sum(
            1 for r in self.logs.records if (r.topic, r.partition) == (topic, partition) and not self._is_lost(r)
        )
        return lost, end - start - lost - there

    def _letters(self) -> dict[Place, str]:
        letters = {(t, p, o): reason for t, p, o, reason in self.db.execute(sql.LETTERS)}
        for record, reason in self._notices_judged():
            letters |= {(record.topic, record.partition, record.offset): reason} if reason else {}
        return letters

    def _campaigns(self) -> dict[Key, Key]:
        """(campaign, valid from) to (name, currency, time zone): of equal times the later version."""
        rows: dict[Key, Key] = {}
        for partition, record, document, _ in self._accepted():
            pane_ms = self._pane_ms(partition, record.offset)
            earliest = max(record.timestamp, document.get("valid_from_ms", 0))
            key = (document["campaign_id"], (earliest + pane_ms - 1) // pane_ms * pane_ms)
            rows[key] = (document["name"], document["currency"], document["time_zone"])
        return rows

    def _pane_ms(self, partition: int, offset: int) -> int:
        query = (
            "SELECT pane_ms FROM rules WHERE part = ? AND topic = ? AND from_off <= ? ORDER BY rules_seq DESC LIMIT 1"
        )
        found: int = self.db.execute(query, (partition, SETTINGS_TOPIC, offset)).fetchone()[0]
        return found


def _rule_row(partition: int, topic: str, offset: int, rules_seq: int, rules: Mapping[str, Any]) -> Key:
    horizon = rules["horizons"].get(topic.removeprefix("ads."), {"lateness_ms": 1, "dedupe_ms": 1})
    return (
        partition,
        topic,
        offset,
        rules_seq,
        rules["pane_ms"],
        rules["report_pane_ms"],
        rules["future_skew_ms"],
        horizon["lateness_ms"],
        horizon["dedupe_ms"],
        max(60_000, horizon["dedupe_ms"] // 24),
        _listed(rules["ctr_click_types"]),
        _listed(rules["cvr_conversion_types"]),
        _listed(rules["dimensions"]),
        rules["max_pane_keys"],
        rules["max_report_keys"],
        *_modes(rules["invalid"]),
        json.dumps(_without_patterns(rules["invalid"])),
    )


def _without_patterns(invalid: Mapping[str, Any]) -> dict[str, Any]:
    """The oracle knows its bot by name: a row need not carry the patterns of all of them, 25 KB for every event."""
    lists = {name: held for name, held in invalid["lists"].items() if name != "crawler_patterns"}
    return {**invalid, "lists": lists}


def _modes(invalid: Mapping[str, Any]) -> tuple[str, str]:
    """The rules that exclude, and those that are not off."""
    modes = sql.DEFAULT_MODES | invalid["modes"]
    on = [rule for rule, mode in modes.items() if mode == "on"]
    return _listed(on), _listed([rule for rule, mode in modes.items() if mode != "off"])


def _billing(document: Mapping[str, Any]) -> tuple[str | None, int | None, str]:
    """What is billed, what one costs in millimicros, and the kind that it must be."""
    billing = document.get("billing", {})
    model, price = billing.get("model", "clearing_price"), billing.get("price_micros")
    if model == "clearing_price" or price is None:
        return None, None, ""
    if model in ("cpm", "ocpm"):
        return "ads.impressions", price, ""
    if model in ("cpc", "ocpc"):
        return "ads.clicks", price * 1000, ""
    if model == "paid_play":
        return "ads.plays", price * 1000, billing.get("play_milestone", "3s")
    return "ads.conversions", price * 1000, billing.get("conversion_type") or document["goal"]


def _listed(names: Sequence[str]) -> str:
    return "," + ",".join(names) + ","


def _flat(record: RawRecord) -> Key:
    place = (record.topic, record.partition, record.offset, record.timestamp, record.expected or None)
    if record.expected:
        return (*place, *[None] * (len(sql.RAW_COLUMNS) - len(place)))
    event = json.loads(record.value or b"")
    arms = event.get("experiments")
    touch = event.get("attribution") or {}
    flat = event | {
        "variant": f"{arms[0]['id']}={arms[0]['arm']}" if arms else None,
        "traffic": event.get("traffic", "paid"),
        "loop": event.get("loop", 1),
        "watched_ms": event.get("watched_ms", 0),
        "click_type": event.get("click_type", "other"),
        "quantity": event.get("quantity", 1),
        "amount_micros": event.get("amount_micros", 0),
        "has_touch": int(bool(touch)),
        "touch_type": touch.get("touch_type", "none"),
        "touch_time_ms": touch.get("touch_time_ms"),
        "touch_id": touch.get("touch_id"),
        "weight_ppm": touch.get("weight_ppm", 1_000_000),
    }
    return (*place, *[flat.get(name) for name in sql.EVENT_COLUMNS])
