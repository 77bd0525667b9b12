"""A worker's status as tables for the terminal: what `demo` and `top` show.

The status is the document of the worker's /api/status. Tables are made for the width at hand: counts are whole from
`WIDE` columns on, and shortened (12.3k, 4.56M) below.
"""

import shutil
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from streams.records import Entry

ABSENT: Final = "–"
"""What is shown for a ratio over zero."""
WIDE: Final = 96
FALLBACK_SIZE: Final = (100, 40)
MIN_ROWS: Final = 5
MIN_LABEL: Final = 8
MAX_LABEL: Final = 40
ROWS_BESIDE: Final = 17
"""Lines of a screen that are not campaigns: headings, the ledger, a status line."""
MILLIMICROS: Final = 10**9
BEYOND_ONE: Final = "*"
BEYOND_ONE_NOTE: Final = "\n* More events than what they follow from: that came earlier, or was invalidated."
RANGE: Final = "low–high"
_RATE_COLUMNS: Final = ("impr.", "clicks", "CTR", RANGE, "conv.", "CVR", RANGE, "spend")
INVALID: Final = "invalid"
ROOM: Final = 16
"""The share of invalid traffic is shown where this much is left to the names of campaigns."""
_LEDGER_COLUMNS: Final = ("input", "consumed", "counted", "duplicate", "late", "rejected", "lost", "empty")
"""The entries in the order of `Entry`: `lost` to retention, `empty` offsets hold no record."""
_WITHOUT_CENTS: Final = frozenset({"JPY", "KRW", "VND", "CLP", "ISK", "XAF", "XOF", "XPF", "UGX", "PYG"})


def plain_table(*columns: str) -> Table:
    """A listing without lines between its rows; what does not fit is folded, never cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.caption_justify = "left"
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


class RateShown(msgspec.Struct, frozen=True):
    """A share and its 95% Wilson interval."""

    value: float
    low: float
    high: float


class WindowShown(msgspec.Struct, frozen=True):
    """One window of one campaign."""

    impressions: int = 0
    clicks: int = 0
    conversions: int = 0
    spend_millimicros: int = 0
    ctr: RateShown | None = None
    cvr: RateShown | None = None
    gross_impressions: int = 0
    gross_clicks: int = 0

    @property
    def invalid(self) -> tuple[int, int]:
        """(invalid, gross) impressions and clicks, as the alert on invalid traffic reckons them."""
        gross = self.gross_impressions + self.gross_clicks
        return max(0, gross - self.impressions - self.clicks), gross


class CampaignShown(msgspec.Struct, frozen=True):
    """One campaign with its windows."""

    campaign_id: str
    name: str = ""
    currency: str = ""
    windows: dict[str, WindowShown] = {}


def campaign_table(
    status: Mapping[str, object], window: str, *, width: int | None = None, rows: int | None = None
) -> Table:
    """The campaigns of a status, in its order (today's spend, then impressions).

    Args:
        window: 1m, 5m, 15m, 1h or day; a campaign without it is shown with zeros.
        width: columns of the terminal; None: as it is now.
        rows: campaigns at most; None: as many as fit beside a ledger.
    """
    columns, lines = shutil.get_terminal_size(FALLBACK_SIZE)
    width = columns if width is None else width
    limit = max(MIN_ROWS, lines - ROWS_BESIDE) if rows is None else rows
    campaigns = msgspec.convert(status.get("campaigns", []), list[CampaignShown])
    names: tuple[str, ...] = ("campaign", *_RATE_COLUMNS)
    cells = [_campaign_cells(campaign, window, is_wide=width >= WIDE) for campaign in campaigns[:limit]]
    shares = [_invalid_share(campaign) for campaign in campaigns[:limit]]
    has_shares = any(share != ABSENT for share in shares) and _label_room((*names, INVALID), cells, width) >= ROOM
    if has_shares:
        names, cells = (*names, INVALID), [[*row, share] for row, share in zip(cells, shares, strict=True)]
    table = _numbers_table(names, cells, width)
    table.title = f"Campaigns, {'today' if window == 'day' else 'last ' + window} (by event time)"
    hidden = len(campaigns) - limit
    more = f"{hidden} more not shown. " if hidden > 0 else ""
    note = BEYOND_ONE_NOTE if any(cell.endswith(BEYOND_ONE) for row in cells for cell in row[1:]) else ""
    invalid = "\nInvalid: share of the last hour's impressions and clicks that do not count." if has_shares else ""
    told = "Ranges: 95% Wilson intervals. CVR: conversions / clicks, by conversion time."
    table.caption = f"{more}{told}{invalid}{note}"
    return table


def _label_room(names: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> int:
    """What numbers leave to the first column; a number that is not there yet is as wide as its heading."""
    widths = [max([len(name), *(cell_len(row[at]) for row in cells if at < len(row))]) for at, name in enumerate(names)]
    return width - sum(widths[1:]) - len(names) - 1


def _invalid_share(campaign: CampaignShown) -> str:
    """Of the last hour, whatever window is shown: shorter ones hold too little to judge by."""
    invalid, gross = campaign.windows.get("1h", WindowShown()).invalid
    return f"{invalid / gross:.1%}" if gross else ABSENT


def _numbers_table(names: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> Table:
    """A first column that gives way, and numbers that never do."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 0), pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    widths = [max([len(name), *(cell_len(row[at]) for row in cells)]) for at, name in enumerate(names)]
    left = max(MIN_LABEL, min(MAX_LABEL, widths[0], width - sum(widths[1:]) - len(names) - 1))
    table.add_column(names[0], no_wrap=True, overflow="ellipsis", min_width=left, max_width=left)
    for name, needed in zip(names[1:], widths[1:], strict=True):
        style = "dim" if name == RANGE else None
        table.add_column(name, justify="right", no_wrap=True, min_width=needed, style=style)
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def _campaign_cells(campaign: CampaignShown, window: str, is_wide: bool) -> list[str]:
    shown = campaign.windows.get(window, WindowShown())
    count = whole if is_wide else short
    return [
        campaign.name or campaign.campaign_id or "(organic)",
        count(shown.impressions),
        count(shown.clicks),
        *_rate_cells(shown.ctr),
        count(shown.conversions),
        *_rate_cells(shown.cvr),
        money(shown.spend_millimicros, campaign.currency, is_short=not is_wide),
    ]


def _rate_cells(rate: RateShown | None) -> tuple[str, str]:
    if rate is None:
        return ABSENT, ABSENT
    mark = BEYOND_ONE if rate.value > 1 else ""
    return f"{rate.value:.2%}{mark}", f"{_percent(rate.low)}–{_percent(rate.high)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if share >= 0.1 else f"{100 * share:.2f}"


def ledger_table(status: Mapping[str, object], *, width: int | None = None) -> Table:
    """Where every record that was read has ended, by input. An input that does not balance is shown in red."""
    width = shutil.get_terminal_size(FALLBACK_SIZE).columns if width is None else width
    ledger = msgspec.convert(status.get("ledger", {}), dict[str, dict[str, int]])
    busy = {name: entries for name, entries in ledger.items() if entries.get("consumed")} or ledger
    if len(busy) > 1:
        busy["all"] = _summed(ledger)
    table = _numbers_table(_LEDGER_COLUMNS, [_ledger_cells(*item) for item in busy.items()], width)
    table.title = "Ledger: each record that was read, in exactly one entry"
    for row, entries in zip(table.rows, busy.values(), strict=True):
        row.style = None if balances(entries) else "bold red"
    unbalanced = [name for name, entries in busy.items() if not balances(entries)]
    reasons = _reasons(_summed(ledger))
    notes = [f"rejected: {reasons}"] * bool(reasons) + [f"DOES NOT BALANCE: {', '.join(unbalanced)}"] * bool(unbalanced)
    table.caption = "\n".join(notes) or None
    return table


def balances(entries: Mapping[str, int]) -> bool:
    """Whether an input's entries add up to what it consumed (law 1)."""
    return entries.get("consumed", 0) == sum(_ended(entries, entry) for entry in Entry)


def _ledger_cells(name: str, entries: Mapping[str, int]) -> list[str]:
    return [name, whole(entries.get("consumed", 0)), *(whole(_ended(entries, entry)) for entry in Entry)]


def _ended(entries: Mapping[str, int], entry: Entry) -> int:
    return sum(count for name, count in entries.items() if name.partition("/")[0] == entry)


def _summed(ledger: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for entries in ledger.values():
        for name, count in entries.items():
            total[name] = total.get(name, 0) + count
    return total


def _reasons(entries: Mapping[str, int]) -> str:
    found = {name.partition("/")[2]: n for name, n in entries.items() if name.startswith(f"{Entry.REJECTED}/")}
    return ", ".join(f"{n:,} {reason}" for reason, n in sorted(found.items(), key=lambda item: -item[1]))


def whole(count: int) -> str:
    """A count with its thousands set apart."""
    return f"{count:,}"


def short(count: int) -> str:
    """A count in at most five characters."""
    value = float(count)
    for suffix in ("", "k", "M", "G"):
        if abs(value) < 999.5:
            return f"{count}" if not suffix else f"{value:.3g}{suffix}"
        value /= 1000
    return f"{value:.0f}T"


def money(millimicros: int, currency: str, *, is_short: bool = False) -> str:
    """An amount with its currency, rounded where it is shown. `currency` may be '' when it is not known yet."""
    if not millimicros:
        return ABSENT if not currency else f"{currency} 0"
    amount = millimicros / MILLIMICROS
    if is_short and abs(amount) >= 10_000:
        text = short(round(amount))
    else:
        text = f"{amount:,.0f}" if currency in _WITHOUT_CENTS or abs(amount) >= 10**6 else f"{amount:,.2f}"
    return f"{currency} {text}".strip()
