"""Clicks and their impressions: what is found does not depend on how much a tick reads, nor on which is read first."""

from unittest import mock

import pytest

from streams.events import Input
from streams.records import Table
from streams.state import dedupe
from tests.unit.given import MINUTE, SECOND, T0, Document, Fed
from tests.unit.test_late_words import click, fed, impression, reload, sums

STEP = 20 * SECOND
PAIRS = 100
"""Over 33 minutes: three times as long as impressions are remembered."""
SHOWN = [impression(f"i{n}", T0 + n * STEP) for n in range(PAIRS)]
TAPPED = [click(f"k{n}", T0 + n * STEP + 100, impression_id=f"i{n}") for n in range(PAIRS)]


def flags_of(one: Fed) -> set[tuple[str, str]]:
    """Event and rule of what stands."""
    return {(row["event_id"], row["rule"]) for row in one.rows[Table.FLAGS].values() if row["state"] == "raised"}


def unverifiable(one: Fed) -> int:
    return one.state.judging.touches[Input.CLICKS].unverifiable


@pytest.mark.parametrize("ticks", [1, 2, 10, 100])
def test_a_tick_that_spans_hours_finds_what_many_short_ones_find(ticks: int) -> None:
    one, size = fed(), PAIRS // ticks
    for at in range(0, PAIRS, size):
        one.feed(Input.IMPRESSIONS, *SHOWN[at : at + size]).feed(Input.CLICKS, *TAPPED[at : at + size]).tick()
    assert flags_of(one) == {(f"k{n}", "click_too_soon") for n in range(PAIRS)}
    assert unverifiable(one) == 0


@pytest.mark.parametrize("first", [Input.IMPRESSIONS, Input.CLICKS])
def test_an_input_that_is_read_far_behind_the_other_finds_what_it_refers_to(first: Input) -> None:
    one = fed()
    told = {Input.IMPRESSIONS: SHOWN, Input.CLICKS: TAPPED}
    for source in (first, *(told.keys() - {first})):
        for at in range(0, PAIRS, 10):
            one.feed(source, *told[source][at : at + 10]).tick()
            one.state.inputs[source].dedupe.pack(one.state.inputs[source].newest_ms)  # what is dead goes for good
            reload(one)
    assert flags_of(one) == {(f"k{n}", "click_too_soon") for n in range(PAIRS)}


def test_ids_are_kept_up_to_a_bound_and_beyond_it_nobody_is_accused() -> None:
    one = fed()
    with mock.patch.object(dedupe, "MAX_KEPT", 20):
        for at in range(0, PAIRS, 10):
            one.feed(Input.IMPRESSIONS, *SHOWN[at : at + 10]).tick()
        held = one.state.inputs[Input.IMPRESSIONS].dedupe
        assert 0 < sum(held.dead.values()) <= 20
        one.feed(Input.CLICKS, *TAPPED).tick()
    found = len(flags_of(one))
    assert flags_of(one) == {(f"k{n}", "click_too_soon") for n in range(PAIRS - found, PAIRS)}
    assert unverifiable(one) == PAIRS - found
    assert found > 10 * MINUTE // STEP  # those within the horizon, and the kept ones


def gap(between_ms: int, ticks: int) -> set[tuple[str, str]]:
    """What becomes of a click so long after its impression."""
    shown = [impression("i1"), *(impression(f"i{n + 2}", T0 + n * MINUTE) for n in range(40))]
    tapped: list[Document] = [click("k1", T0 + between_ms, impression_id="i1")]
    one = fed().feed(Input.CLICKS, click("k0", T0))
    size = len(shown) // ticks + 1
    for at in range(0, len(shown), size):
        one.feed(Input.IMPRESSIONS, *shown[at : at + size])
        if shown[min(at + size, len(shown)) - 1]["event_time_ms"] >= T0 + between_ms:
            one.feed(Input.CLICKS, *tapped)
            tapped = []
        one.tick()
    return flags_of(one)


@pytest.mark.parametrize("ticks", [1, 3, 20])
def test_an_impression_of_long_before_is_missing_however_much_a_tick_reads(ticks: int) -> None:
    """Impressions are remembered for ten minutes before the click, in buckets of a minute."""
    assert gap(10 * MINUTE, ticks) == set()
    assert gap(12 * MINUTE, ticks) == {("k1", "click_without_impression")}


@pytest.mark.parametrize("ticks", [1, 2])
def test_a_late_impression_takes_the_word_back_as_long_as_it_can_count(ticks: int) -> None:
    """It happened 9 minutes behind the click, and comes 9 minutes late."""
    one = fed().feed(Input.IMPRESSIONS, impression("i0")).feed(Input.CLICKS, click("k1", T0, impression_id="i1"))
    one.feed(Input.IMPRESSIONS, impression("i2", T0 + 18 * MINUTE))
    if ticks == 2:
        one.tick()
        assert flags_of(one) == {("k1", "click_without_impression")}
    one.feed(Input.IMPRESSIONS, impression("i1", T0 + 9 * MINUTE)).tick()
    assert flags_of(one) == {("k1", "click_before_impression")}
    assert sums(one)["sivt"]["clicks"] == 1
