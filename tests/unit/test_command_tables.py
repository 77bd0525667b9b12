"""What `demo` and `top` show of a worker's status."""

from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from streams.commands import tables
from streams.commands.tables import balances, campaign_table, ledger_table, money, short
from streams.commands.top import screen
from streams.stages.rates import wilson


def rate(successes: int, trials: int) -> dict[str, float] | None:
    found = wilson(successes, trials)
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}


def window(impressions: int, clicks: int, conversions: int, spend_millimicros: int = 0) -> dict[str, Any]:
    return {
        "impressions": impressions,
        "clicks": clicks,
        "conversions": conversions,
        "spend_millimicros": spend_millimicros,
        "ctr": rate(clicks, impressions),
        "cvr": rate(conversions, clicks),
    }


def campaign(name: str, **windows: dict[str, Any]) -> dict[str, Any]:
    spans = {key.strip("_"): value for key, value in windows.items()}
    return {"campaign_id": name, "name": "", "currency": "CNY", "windows": spans}


def text_of(table: Table, width: int) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 - nothing is written
    console.print(table)
    return console.export_text()


BUSY = {
    "campaigns": [
        campaign("Winter sale 双十一大促销 of a very long name", _5m=window(1_234_567, 34_567, 1_234, 123_456 * 10**9)),
        campaign("idle", _5m=window(0, 0, 0)),
        campaign("[red]odd[/red]", _5m=window(10, 2, 3, 5 * 10**8)),
        campaign("without the window"),
    ],
    "ledger": {
        "impressions": {"consumed": 10, "counted": 5, "duplicate": 2, "rejected/future": 2, "rejected/empty": 1},
        "clicks": {"consumed": 4, "counted": 3, "late": 1},
        "plays": {"consumed": 0},
    },
}


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_figure_is_cut_at_any_width(width: int) -> None:
    shown = text_of(campaign_table(BUSY, "5m", width=width, rows=10), width)
    expected = ["2.80%", "2.77–2.83", "CNY 123", "150.00%*"]
    expected += ["1,234,567", "34,567"] if width >= tables.WIDE else ["1.23M", "34.6k"]
    assert [figure for figure in expected if figure not in shown] == []
    assert max(map(len, shown.splitlines())) <= width


def test_a_ratio_over_zero_is_shown_as_absent_and_not_as_0() -> None:
    (line,) = [line for line in text_of(campaign_table(BUSY, "5m", width=100), 100).splitlines() if "idle" in line]
    assert line.split() == ["idle", "0", "0", "–", "–", "0", "–", "–", "CNY", "0"]


def test_a_ratio_above_1_carries_its_note() -> None:
    assert "*" in text_of(campaign_table(BUSY, "5m", width=100), 100)
    tame = {"campaigns": [campaign("a", _5m=window(10, 2, 1))]}
    assert "*" not in text_of(campaign_table(tame, "5m", width=100), 100)


def hour(valid: tuple[int, int], gross: tuple[int, int]) -> dict[str, Any]:
    shown, clicked = gross
    return {**window(*valid, 0), "gross_impressions": shown, "gross_clicks": clicked}


JUDGED = {
    "campaigns": [
        campaign("clean", _5m=window(10, 2, 1), _1h=hour((95, 5), (95, 5))),
        campaign("farmed", _5m=window(10, 2, 1), _1h=hour((300, 30), (380, 20 + 100))),
        campaign("silent", _5m=window(0, 0, 0), _1h=hour((0, 0), (0, 0))),
    ]
}


def test_the_share_of_invalid_traffic_is_that_of_the_last_hour_where_it_fits() -> None:
    lines = text_of(campaign_table(JUDGED, "5m", width=100), 100).splitlines()
    told = {line.split()[0]: line.split()[-1] for line in lines if line.strip()}
    assert (told["clean"], told["farmed"], told["silent"]) == ("0.0%", "34.0%", "–")  # 170 of 500
    assert any(line.startswith("Invalid: share of the last hour's") for line in lines)
    assert max(map(len, lines)) <= 100
    assert "invalid" not in text_of(campaign_table(JUDGED, "5m", width=72), 72).lower().replace("invalidated", "")


def test_without_gross_figures_there_is_no_share() -> None:
    assert "invalid" not in text_of(campaign_table({"campaigns": [campaign("a")]}, "5m", width=140), 140).lower()


def test_names_are_never_read_as_markup() -> None:
    assert "[red]odd[/red]" in text_of(campaign_table(BUSY, "5m", width=140), 140)


def test_campaigns_beyond_the_rows_are_counted() -> None:
    shown = text_of(campaign_table(BUSY, "5m", width=100, rows=1), 100)
    assert "3 more not shown" in shown
    assert "idle" not in shown


def test_the_rows_fit_the_terminal_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("COLUMNS", "100")
    many = {"campaigns": [campaign(f"c{number}") for number in range(50)]}
    assert campaign_table(many, "5m").row_count == 24 - tables.ROWS_BESIDE


def test_an_empty_status_gives_empty_tables() -> None:
    assert campaign_table({}, "5m").row_count == 0
    assert ledger_table({}).row_count == 0


def test_the_ledger_shows_each_entry_and_why_records_were_rejected() -> None:
    shown = text_of(ledger_table(BUSY, width=80), 80)
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert rows["impressions"] == ["10", "5", "2", "0", "3", "0", "0"]
    assert rows["all"] == ["14", "8", "2", "1", "3", "0", "0"]
    assert "plays" not in rows
    assert "rejected: 2 future, 1 empty" in shown
    assert "BALANCE" not in shown


def test_a_ledger_that_does_not_balance_says_so() -> None:
    broken = {"ledger": {"clicks": {"consumed": 5, "counted": 4}}}
    table = ledger_table(broken, width=80)
    assert "DOES NOT BALANCE: clicks" in text_of(table, 80)
    assert table.rows[0].style == "bold red"


@pytest.mark.parametrize(
    ("entries", "expected"),
    [({"consumed": 3, "counted": 2, "rejected/future": 1}, True), ({"consumed": 3, "counted": 2}, False), ({}, True)],
)
def test_entries_balance_with_what_was_consumed(entries: dict[str, int], expected: bool) -> None:
    assert balances(entries) is expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0"), (999, "999"), (1_000, "1k"), (999_499, "999k"), (999_500, "1M"), (123_456_789, "123M")],
)
def test_short_counts_keep_three_digits(count: int, expected: str) -> None:
    assert short(count) == expected


@pytest.mark.parametrize(
    ("millimicros", "currency", "is_short", "expected"),
    [
        (8_734_340_000, "CNY", False, "CNY 8.73"),
        (0, "CNY", False, "CNY 0"),
        (0, "", False, "–"),
        (5 * 10**9, "JPY", False, "JPY 5"),
        (-(10**9), "EUR", False, "EUR -1.00"),
        (12_345 * 10**9, "CNY", True, "CNY 12.3k"),
    ],
)
def test_money_names_its_currency(millimicros: int, currency: str, is_short: bool, expected: str) -> None:
    assert money(millimicros, currency, is_short=is_short) == expected


def test_the_screen_names_what_is_wrong_with_the_worker() -> None:
    status = {**BUSY, "sink_up": False, "recovering": [2], "lag_records": 1_234}
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 - nothing is written
    console.print(screen(status, "5m", "http://127.0.0.1:1", "no worker answers", width=120))
    shown = console.export_text()
    wanted = ["ClickHouse does not answer", "recovering 2", "lag 1,234", "no worker answers"]
    assert [what for what in wanted if what not in shown] == []
