"""What the view `flags` says an event counts as is what the figures count it as, whatever rules and people say.

And `invalid_reasons` tells of each class as much as the figures have, for the reasons that the flags have.
"""

from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any
from unittest import mock

import pytest

from streams.events import Input
from streams.invalid import BIT, InvalidRules, Mode, Rule, class_of
from streams.records import COLUMNS, Table
from streams.settings import ClickHouseSettings
from streams.stages.invalid.catalogue import REASON_OF, REASON_TEXTS
from streams.state import traces
from streams.state.inputs import Batch
from streams.topics import VERDICTS
from tests.support.clickhouse_views import Database
from tests.support.rows import make_row
from tests.unit.given import MINUTE, SECOND, T0, Fed, quick_rules, record
from tests.unit.test_late_words import click, digest, fed, impression, reload

EVENTS = 80
WORDS_IN_A_TICK = 30
PRICE_MICROS = 7
VERDICTS_OF = (Rule.USER_VELOCITY, Rule.DEVICE_VELOCITY, Rule.PUBLISHER_FLOODING)


@pytest.fixture
async def database(migrated_settings: ClickHouseSettings) -> AsyncIterator[Database]:
    async with Database(migrated_settings) as opened:
        yield opened


class Told:
    """A partition, and the last row of each flag with its version."""

    def __init__(self, one: Fed) -> None:
        self.one = one
        self.rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def say(self, **word: Any) -> None:
        """A word is read; it waits for the tick."""
        found = record(self.one.state.position(VERDICTS), word, T0)
        self.one.state.apply(Batch(VERDICTS, 0, found.offset, found.offset + 1, [found]))

    def accuse(self, event_id: str, rule: Rule) -> None:
        self.say(type="verdict", rule=rule.value, source_kind="user", source="s", clicks=[digest(event_id)])

    def review(self, event_id: str, decision: str, at_ms: int, reviewer: str = "r") -> None:
        about = {"campaign_id": "c1", "input": "clicks", "event_id": event_id}
        self.say(type="review", decision=decision, reviewer=reviewer, reason="seen", at_ms=at_ms, **about)

    def tick(self, modes: dict[Rule, Mode] | None = None) -> None:
        rules = None if modes is None else quick_rules(invalid=InvalidRules(modes=modes))
        for row in self.one.tick(rules)[Table.FLAGS]:
            values = (*(row[name] for name in COLUMNS[Table.FLAGS][:-1]), self.one.state.seq)
            self.rows[tuple(row[name] for name in ("event", "rule", "review_ms"))] = values

    def figures(self) -> dict[str, str]:
        """By event: what its click counts as; each has a creative of its own."""
        found: dict[tuple[str, str], int] = {}
        for row in self.one.rows[Table.PANES].values():
            key = row["creative_id"], row["validity"]
            found[key] = found.get(key, 0) + row["clicks"]
        standing = [key for key, clicks in found.items() if clicks and key[0].startswith("k")]
        assert {found[key] for key in standing} == {1}
        return dict(standing)

    async def shown(self, database: Database) -> dict[str, str]:
        """By event, of those that have a flag: what the view says that it counts as."""
        await database.fill_at_once(Table.FLAGS, *self.rows.values())
        rows = await database.ask("SELECT DISTINCT event_id, counts_as FROM flags")
        assert len({row["event_id"] for row in rows}) == len(rows)
        return {row["event_id"]: row["counts_as"] for row in rows}

    async def reasons(self, database: Database) -> Counter[tuple[str, str]]:
        """Invalid clicks by class and reason; what they cost is seen to."""
        panes = self.one.rows[Table.PANES].values()
        await database.fill_at_once(Table.PANES, *((*row.values(), self.one.state.seq) for row in panes))
        rows = await database.ask("SELECT * FROM invalid_reasons")
        assert {row["reason_class"]: (row["reason_en"], row["reason_zh"]) for row in rows} == {
            row["reason_class"]: (text.en, text.zh) for row in rows if (text := REASON_TEXTS[row["reason_class"]])
        }
        assert all(row["spend_micros"] == PRICE_MICROS * row["clicks"] for row in rows)
        return Counter({(row["class"], row["reason_class"]): row["clicks"] for row in rows})


def own(event_id: str, **fields: Any) -> dict[str, Any]:
    return click(event_id, T0 + SECOND, creative_id=event_id, **fields)


def speak(told: Told, rng: Random) -> None:
    """One word about some event: of a rule, of its impression, or of a reviewer whose clock is not to be relied on."""
    number = rng.randrange(EVENTS)
    match rng.randrange(4):
        case 0 | 1:
            told.accuse(f"k{number}", rng.choice(VERDICTS_OF))
        case 2:
            told.one.feed(Input.IMPRESSIONS, impression(f"i{number}"))
        case 3:
            for _ in range(rng.randrange(1, 4)):
                told.review(f"k{number}", rng.choice(("overturn", "confirm")), T0 + rng.randrange(3))


@pytest.mark.parametrize("seed", range(3))
async def test_the_view_counts_as_the_figures_do_whoever_spoke_last(database: Database, seed: int) -> None:
    rng, told = Random(seed), Told(fed())
    hidden = {"placement_width_px": 1, "placement_height_px": 1}
    clicks = [own(f"k{n}", impression_id=f"i{n}", **rng.choice(({}, {}, hidden))) for n in range(EVENTS)]
    told.one.feed(Input.IMPRESSIONS, impression("first")).feed(Input.CLICKS, *clicks)
    told.tick()
    told.one.feed(Input.IMPRESSIONS, impression("beyond", T0 + 2 * MINUTE))  # from here on impressions are missed
    for _ in range(12):
        for _ in range(rng.randrange(WORDS_IN_A_TICK)):
            speak(told, rng)
        told.tick({rule: rng.choice((Mode.ON, Mode.OBSERVE)) for rule in Rule})
        if rng.random() < 0.2:
            reload(told.one)
    figures, shown = told.figures(), await told.shown(database)
    assert len(shown) > EVENTS // 2
    assert shown == {event: figures[event] for event in shown}
    assert {figures[event] for event in figures.keys() - shown.keys()} <= {"valid"}
    assert set(figures.values()) == {"valid", "givt", "sivt"}
    book, recent = told.one.state.judging.book, told.one.state.inputs[Input.CLICKS].traces.recent
    for at in recent.find([bytes.fromhex(digest(event)) for event in shown]).values():
        initial = "givt" if at.excluding else "valid"
        assert book.validity(Input.CLICKS, at.digest, at.at_ms, initial) == shown[at.event_id]
    excluding = {
        at.event_id: at.excluding for at in recent.find([bytes.fromhex(digest(event)) for event in figures]).values()
    }
    excluding |= {
        f"k{n}": held.excluding
        for n in range(EVENTS)
        if (held := book._held["clicks"].get(bytes.fromhex(digest(f"k{n}"))))
    }
    expected = Counter((kind, _reason(excluding[event], kind)) for event, kind in figures.items() if kind != "valid")
    assert len(expected) > 3
    assert await told.reasons(database) == expected


def _reason(excluding: int, kind: str) -> str:
    """Of the first rule of the class that excludes it; a reviewer's word needs none."""
    rules = [rule for rule in Rule if excluding & BIT[rule] and class_of(rule) == kind]
    return REASON_OF[(*rules, Rule.REVIEW)[0]]


async def test_every_review_stays_with_who_and_why_and_the_rules_evidence_beside_it(database: Database) -> None:
    told = Told(fed())
    told.one.feed(Input.IMPRESSIONS, impression("i1")).feed(
        Input.CLICKS, click("k1", T0 + 100, creative_id="k1", impression_id="i1")
    )
    told.tick()
    told.review("k1", "overturn", T0, reviewer="ana")
    told.review("k1", "confirm", T0 - 5, reviewer="li")  # by a clock that is behind
    told.tick()
    told.review("k1", "overturn", T0 + 9, reviewer="ana")
    told.review("k1", "overturn", T0 + 9, reviewer="ana")  # sent twice
    told.tick()
    await database.fill_at_once(Table.FLAGS, *told.rows.values())
    rows = await database.ask("SELECT rule, state, review, counts_as, reviewer, evidence FROM flags ORDER BY review_ms")
    assert [tuple(row.values()) for row in rows] == [
        ("click_too_soon", "raised", "overturned", "valid", "", '{"delay_ms":100,"below_ms":300}'),
        ("review", "overturned", "overturned", "valid", "ana", f'{{"reviewed_ms":{T0}}}'),
        ("review", "confirmed", "overturned", "valid", "li", f'{{"reviewed_ms":{T0 - 5}}}'),
        ("review", "overturned", "overturned", "valid", "ana", f'{{"reviewed_ms":{T0 + 9}}}'),
    ]
    assert told.figures() == {"k1": "valid"}


async def test_a_confirmed_event_keeps_its_class_though_its_flag_was_not_told(database: Database) -> None:
    """Of very many flags in one tick only the figures are told."""
    told = Told(fed())
    with mock.patch.object(traces, "MAX_TOLD", 0):
        told.one.feed(Input.CLICKS, own("k1", placement_width_px=1, placement_height_px=1))
        told.tick()
    told.review("k1", "overturn", T0)
    told.tick()
    assert told.figures() == {"k1": "valid"}
    told.review("k1", "confirm", T0 + 1)
    told.tick()
    assert await told.shown(database) == told.figures() == {"k1": "givt"}


async def test_what_has_no_flag_of_its_own_is_told_as_another_reason(database: Database) -> None:
    told, hidden = Told(fed()), {"placement_width_px": 1, "placement_height_px": 1}
    with mock.patch.object(traces, "MAX_TOLD", 2):
        told.one.feed(Input.CLICKS, *(own(f"k{n}", **hidden) for n in range(5)))
        told.tick()
    await told.shown(database)
    assert await told.reasons(database) == {("givt", "unseen"): 2, ("givt", "other"): 3}


async def test_reasons_are_those_of_the_catalogue(database: Database) -> None:
    rows = [
        make_row(Table.FLAGS, event=f"{n:032x}", input="clicks", rule=rule.value, **{"class": class_of(rule).value})
        for n, rule in enumerate(Rule)
        if rule is not Rule.REVIEW
    ]
    await database.fill_at_once(Table.FLAGS, *rows)
    found = await database.ask("SELECT class, reason_class, clicks FROM invalid_reasons WHERE reason_class != 'other'")
    assert Counter({(row["class"], row["reason_class"]): row["clicks"] for row in found}) == Counter(
        (class_of(rule).value, reason.value) for rule, reason in REASON_OF.items() if rule is not Rule.REVIEW
    )
