"""Durations, times and tolerances as people write them."""

import pytest

from streams.commands.options import duration_ms, length_text, prose, time_ms, time_text
from streams.commands.reconcile import quoted, tolerance_of
from streams.errors import ConfigurationError
from streams.jobs.reconcile import Tolerance


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", 500),
        ("60s", 60_000),
        ("60", 60_000),
        ("1.5h", 5_400_000),
        ("1d", 86_400_000),
        (" 2 W ", 1_209_600_000),
    ],
)
def test_a_duration_is_read_with_its_unit(text: str, expected: int) -> None:
    assert duration_ms("--length", text) == expected


@pytest.mark.parametrize("text", ["", "x", "0s", "-5m", "5 years", "1e3", "0.1ms"])
def test_what_is_no_duration_is_an_error_that_names_the_option(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--length"):
        duration_ms("--length", text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-02", 86_400_000),
        ("1970-01-01T00:00:01", 1_000),
        ("1970-01-01T08:00:01+08:00", 1_000),
        ("1970-01-01 00:00:01Z", 1_000),
    ],
)
def test_a_time_without_an_offset_is_utc(text: str, expected: int) -> None:
    assert time_ms("--from", text) == expected


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "1969-12-31", ""])
def test_what_is_no_time_is_an_error_that_names_the_option(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--from"):
        time_ms("--from", text)


def test_times_and_lengths_are_shown_for_people() -> None:
    assert time_text(1_000) == "1970-01-01 00:00:01"
    assert time_text(None) == "–"
    assert [length_text(ms) for ms in (5, 1_500, 90_000, 7_200_000, 172_800_000)] == [
        "5 ms",
        "1.5 s",
        "1.5 min",
        "2 h",
        "2 d",
    ]


def test_prose_joins_lines_and_keeps_examples() -> None:
    assert prose("One\n    two.\n\n      a\n      b\n    ") == "One two.\n\n  a\n  b"


@pytest.mark.parametrize(
    ("text", "expected"), [("0", Tolerance()), ("5", Tolerance(amount=5)), ("0.5%", Tolerance(share=0.005))]
)
def test_a_tolerance_is_an_amount_or_a_share(text: str, expected: Tolerance) -> None:
    assert tolerance_of(text) == expected


@pytest.mark.parametrize("text", ["-1", "x", "100%", "-1%", "1.5", ""])
def test_what_is_no_tolerance_is_an_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--tolerance"):
        tolerance_of(text)


def test_a_campaign_cannot_break_out_of_its_literal() -> None:
    assert quoted("a' OR 1 --\\") == "'a\\' OR 1 --\\\\'"
