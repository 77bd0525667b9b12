"""The journal: which ticks count, and how versions are ordered."""

from itertools import permutations

import pytest

from streams.errors import CampaignStreamsError
from streams.rules import Rules
from streams.state.journal import Claim, Entry, Fold, Tick, decode, encode, version_of
from tests.unit.given import T0


def claim(name: str, **starts: int) -> Claim:
    return Claim(name, f"worker of {name}", T0, starts)


def tick(name: str, seq: int, **more: object) -> Tick:
    return Tick(name, seq, T0 + seq, {"ads.clicks": seq * 10}, **more)


def counted(*entries: Entry, fold: Fold | None = None) -> list[tuple[str, int]]:
    fold = fold or Fold()
    found = [fold.take(entry) for entry in entries]
    return [(t.claim_id, t.seq) for t in found if t is not None]


def test_ticks_of_the_last_claim_count() -> None:
    assert counted(claim("a"), tick("a", 1), tick("a", 2)) == [("a", 1), ("a", 2)]


def test_a_tick_without_a_claim_is_void() -> None:
    assert counted(tick("a", 1), claim("a"), tick("a", 1)) == [("a", 1)]


def test_ticks_of_an_earlier_claim_behind_a_later_one_are_void() -> None:
    entries = [claim("a"), tick("a", 1), claim("b"), tick("a", 2), tick("b", 2), tick("a", 3)]
    assert counted(*entries) == [("a", 1), ("b", 2)]


def test_a_tick_that_was_appended_twice_counts_once() -> None:
    assert counted(claim("a"), tick("a", 1), tick("a", 1), tick("a", 2), tick("a", 1)) == [("a", 1), ("a", 2)]


def test_a_claim_that_was_appended_twice_changes_nothing() -> None:
    assert counted(claim("a"), claim("a"), tick("a", 1), claim("a"), tick("a", 2)) == [("a", 1), ("a", 2)]


def test_a_claim_may_come_back_after_another() -> None:
    assert counted(claim("a"), tick("a", 1), claim("b"), claim("a"), tick("b", 2), tick("a", 2)) == [("a", 1), ("a", 2)]


def test_numbers_go_on_across_claims() -> None:
    entries = [claim("a"), tick("a", 1), tick("a", 2), claim("b"), tick("b", 2), tick("b", 3)]
    assert counted(*entries) == [("a", 1), ("a", 2), ("b", 3)]


def test_a_reader_that_starts_behind_a_manifest_agrees_with_one_that_read_everything() -> None:
    entries = [
        claim("a"),
        tick("a", 1),
        tick("a", 2),
        claim("b"),
        tick("a", 3),
        tick("b", 3),
        tick("b", 3),
        tick("b", 4),
    ]
    whole = counted(*entries)
    assert whole == [("a", 1), ("a", 2), ("b", 3), ("b", 4)]
    fold = Fold("a", 2)  # a manifest taken at a's second tick
    assert counted(*entries[3:], fold=fold) == whole[2:]
    assert (fold.claim_id, fold.seq) == ("b", 4)


def test_every_reader_of_the_same_journal_finds_the_same_ticks_up_to_where_it_has_read() -> None:
    for order in permutations([claim("a"), claim("b"), tick("a", 1), tick("b", 1), tick("b", 2)]):
        whole = counted(*order)
        for cut in range(len(order) + 1):
            assert counted(*order[:cut]) == whole[: len(counted(*order[:cut]))]


def test_only_the_first_claim_says_where_reading_starts() -> None:
    fold = Fold()
    for entry in (claim("a", clicks=7), tick("a", 1), claim("b", clicks=99)):
        fold.take(entry)
    assert fold.starts == {"clicks": 7}


def test_entries_survive_the_journal_unchanged() -> None:
    whole = tick("a", 3, silent=("ads.plays",), poisoned={"ads.clicks": (5, 6)}, rules=Rules(pane_ms=5_000))
    for entry in (claim("a", clicks=1), tick("a", 1), whole):
        assert decode(encode(entry)) == entry


def test_a_plain_tick_is_small() -> None:
    assert len(encode(tick("a", 1))) < 110


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"type":"tack"}', b'{"type":"tick","seq":1}', b"\xff", b"null"])
def test_what_this_version_cannot_read_is_an_error_that_names_the_remedy(value: bytes) -> None:
    with pytest.raises(CampaignStreamsError, match="run the version that wrote it"):
        decode(value)


def test_what_a_later_version_adds_is_left_out() -> None:
    assert decode(encode(tick("a", 1))[:-1] + b',"mood":"good"}') == tick("a", 1)


def test_a_later_place_has_a_higher_version_and_a_later_epoch_a_higher_still() -> None:
    places = [(0, 0), (0, 1), (0, 2**40), (1, 0), (1, 5), (2, 0), (65_535, 2**40)]
    versions = [version_of(epoch, offset) for epoch, offset in places]
    assert versions == sorted(set(versions))


def test_no_version_is_zero_and_all_fit_64_bits() -> None:
    assert version_of(0, 0) == 1
    assert version_of(65_535, 2**48 - 2) < 2**64
