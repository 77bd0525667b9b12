"""Reach: exact below the sample, a sketch of the smallest hashes above, mergeable over rows."""

from math import sqrt

import pytest
import xxhash

from streams.events import Input
from streams.records import Table
from streams.state import reach
from tests.unit.given import MINUTE, T0, Document, Fed, document, quick_rules

SAMPLE = 64


def shown(event_id: str, user: str | None, at_ms: int = T0, **fields: object) -> Document:
    return document(Input.IMPRESSIONS, event_id, at_ms, user_id=user, **fields)


def fed(*events: Document, **rules: object) -> Fed:
    found = Fed(quick_rules(reach_sample=SAMPLE, **rules)).feed(Input.IMPRESSIONS, *events)
    found.tick()
    return found


def users(found: Fed) -> list[int]:
    return list(found.one(Table.REPORTS)["users"])


def hash_of(user: str) -> int:
    return xxhash.xxh3_64_intdigest(user.encode())


def test_below_the_sample_every_user_is_there_once() -> None:
    events = [shown(f"e{n}", f"u{n % 50}") for n in range(500)]
    assert users(fed(*events)) == sorted(hash_of(f"u{n}") for n in range(50))


def test_above_the_sample_the_smallest_hashes_are_kept() -> None:
    events = [shown(f"e{n}", f"u{n}") for n in range(1_000)]
    assert users(fed(*events)) == sorted(hash_of(f"u{n}") for n in range(1_000))[:SAMPLE]


def test_the_sketch_estimates_within_four_standard_errors() -> None:
    found = users(fed(*(shown(f"e{n}", f"u{n}") for n in range(20_000))))
    estimate = (SAMPLE - 1) / (found[-1] / 2**64)
    assert abs(estimate - 20_000) / 20_000 < 4 / sqrt(SAMPLE - 2)


@pytest.mark.parametrize("ticks", [1, 3, 10])
def test_how_often_it_is_published_does_not_matter(ticks: int) -> None:
    events = [shown(f"e{n}", f"u{n}") for n in range(300)]
    found = Fed(quick_rules(reach_sample=SAMPLE))
    for start in range(ticks):
        found.feed(Input.IMPRESSIONS, *events[start::ticks])
        found.tick()
    assert users(found) == sorted(hash_of(f"u{n}") for n in range(300))[:SAMPLE]


def test_an_impression_without_a_user_reaches_nobody() -> None:
    assert users(fed(shown("a", None), shown("b", "u"), shown("c", None))) == [hash_of("u")]
    assert users(fed(shown("a", None))) == []


def test_neither_duplicates_nor_late_impressions_reach_anybody() -> None:
    found = fed(shown("a", "u", T0 + 20 * MINUTE), shown("a", "v", T0 + 20 * MINUTE), shown("b", "w", T0))
    assert [row["users"] for row in found.rows[Table.REPORTS].values() if row["users"]] == [[hash_of("u")]]


def test_each_report_key_and_each_pane_has_its_own_users() -> None:
    found = fed(
        shown("a", "u", region="r1"),
        shown("b", "v", region="r2"),
        shown("c", "u", region="r2"),
        shown("d", "u", T0 + MINUTE, region="r1"),
    )
    by_key = {
        (row["origin_pane"] - T0 // 1000, row["region"]): row["users"] for row in found.rows[Table.REPORTS].values()
    }
    assert by_key == {
        (0, "r1"): [hash_of("u")],
        (0, "r2"): sorted([hash_of("u"), hash_of("v")]),
        (60, "r1"): [hash_of("u")],
    }


def test_folded_keys_are_reached_together() -> None:
    found = fed(*(shown(f"e{n}", f"u{n}", region=f"r{n}") for n in range(4)), max_report_keys=1)
    by_region = {row["region"]: row["users"] for row in found.rows[Table.REPORTS].values()}
    assert by_region == {"r0": [hash_of("u0")], "other": sorted(hash_of(f"u{n}") for n in (1, 2, 3))}


def test_a_user_of_two_folded_keys_is_one_user() -> None:
    found = fed(*(shown(f"e{n}", "u", region=f"r{n}") for n in range(4)), max_report_keys=1)
    assert {row["region"]: len(row["users"]) for row in found.rows[Table.REPORTS].values()} == {"r0": 1, "other": 1}


def test_only_impressions_reach() -> None:
    found = Fed().feed(Input.CLICKS, document(Input.CLICKS, "a", user_id="u"))
    found.tick()
    assert users(found) == []


def test_waiting_hashes_are_cut_back_to_the_sample_without_losing_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "CONSOLIDATE_AT", 200)
    found = Fed(quick_rules(reach_sample=SAMPLE))
    for start in range(0, 3_000, 100):
        found.feed(Input.IMPRESSIONS, *(shown(f"e{n}", f"u{n}") for n in range(start, start + 100)))
    waiting = found.state.inputs[Input.IMPRESSIONS].reach.snapshot()["hash"]
    assert len(waiting) == 8 * SAMPLE
    found.tick()
    assert users(found) == sorted(hash_of(f"u{n}") for n in range(3_000))[:SAMPLE]
