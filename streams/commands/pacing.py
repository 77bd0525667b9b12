"""`campaign-streams pacing`: how the spend of campaigns keeps to their plans, as a list and as a plot.

Asks the views campaign_pacing, campaign_pacing_minutes and alerts wherever ClickHouse is (streams.commands.asking).
Times are shown in the campaign's own time zone.
"""

import difflib
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
import typer
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from streams.commands.options import UNBOUNDED_WIDTH, notes, out, print_json, prose, quoted
from streams.commands.tables import ABSENT, MAX_LABEL, MIN_LABEL, money, short
from streams.errors import ConfigurationError

if TYPE_CHECKING:
    from streams.commands.asking import Asker

MAX_POINTS: Final = 2_000
"""Minutes of a period that are asked for; of a longer period every n-th."""
MAX_PLOT_WIDTH: Final = 120
PIPED_WIDTH: Final = 80
MONEY_LINES: Final = 14
RATE_LINES: Final = 8
MAX_TICKS: Final = 8
HEADROOM: Final = 1.25
"""A forecast beyond this multiple of budget, plan and spend leaves the plot at its upper edge."""
_STEPS_S: Final = (300, 900, 1_800, *(3_600 * hours for hours in (1, 2, 3, 6, 12)))
_DAY_S: Final = 86_400
_COLOURS: Final = {"ahead": "yellow", "behind": "yellow", "far": "bold red", "exhausted": "bold red", "unknown": "red"}
LATEST: Final = "latest"
LIST_COLUMNS: Final = ("campaign", "status", "points", "budget", "spent", "rate", "end", "alerts")
EPILOG: Final = """
Examples:

  campaign-streams pacing list
  campaign-streams pacing show spring-sale
  campaign-streams pacing show spring-sale --period 2026-11-02 --json
"""

app = typer.Typer(no_args_is_help=True, help="How the spend of campaigns keeps to their plans.")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A row of campaign_pacing. Amounts in micros, times UTC."""

    campaign_id: str
    campaign_name: str
    currency: str
    time_zone: str
    period_kind: str
    period_start: datetime | None
    period_end: datetime | None
    is_current: bool
    minute: datetime
    status: str
    budget_micros: int
    target_micros: int
    spend_micros: int
    gross_spend_micros: int
    credited_micros: int
    in_flight_micros: int
    closed_credit_micros: int
    excess_credit_micros: int
    off_plan_points: float | None
    rate: float
    reason_text: str
    forecast_micros: int | None
    forecast_low_micros: int | None
    forecast_high_micros: int | None
    exhausts_at: datetime | None
    note: str

    @property
    def title(self) -> str:
        """Name and id for people."""
        return f"{self.campaign_name} ({self.campaign_id})" if self.campaign_name else self.campaign_id

    def local(self, at: datetime) -> datetime:
        """A time in the campaign's time zone."""
        return at.replace(tzinfo=UTC).astimezone(ZoneInfo(self.time_zone))

    def shown(self, micros: int, *, is_short: bool = False) -> str:
        """An amount with its currency."""
        return money(1_000 * micros, self.currency, is_short=is_short)


class Point(msgspec.Struct, frozen=True):
    """A minute of a period's history."""

    minute: datetime
    target_micros: int
    spend_micros: int
    rate: float

    @property
    def at_s(self) -> int:
        """Epoch s."""
        return int(self.minute.replace(tzinfo=UTC).timestamp())


class Firing(msgspec.Struct, frozen=True):
    """An alert that fires."""

    kind: str
    began: datetime
    text_en: str


DataDir = Annotated[
    Path | None, typer.Option(help="Ask the demo with this data directory, instead of what the settings name.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs: the views' columns, times in UTC.")]


@app.command("show", epilog=prose(EPILOG))
def show(
    campaign: Annotated[str, typer.Argument(help="Campaign: its id, or its name.")],
    data_dir: DataDir = None,
    period: Annotated[
        str, typer.Option(help="latest, or the date on which the period began, in the campaign's time zone.")
    ] = LATEST,
    as_json: AsJson = False,
) -> None:
    """Plot a campaign's plan, spend and rate over a period, with its forecast and the alerts that fire.

    Spend is what was billed less what was given back. Times are in the campaign's own time zone.
    """
    day = _day(period)
    from streams.commands.asking import asker_for

    asker = asker_for(data_dir)
    try:
        row = _state_of(asker, campaign, day)
        state = msgspec.convert(row, State, strict=False)
        minutes = _history(asker, row, state)
        firing = _firing(asker, state)
    finally:
        asker.close()
    if as_json:
        print_json({**row, "alerts": firing, "minutes": minutes})
        return
    console = out()
    width = PIPED_WIDTH if console.width >= UNBOUNDED_WIDTH else min(console.width, MAX_PLOT_WIDTH)
    console.print(header(state, msgspec.convert(firing, list[Firing])), width=width)
    console.print(plot(state, msgspec.convert(minutes, list[Point], strict=False), width), no_wrap=True, crop=False)


@app.command("list")
def show_all(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List all paced campaigns with their status, those farthest from their plan first.

    Of each campaign its latest period. Points are percentage points of the budget between spend and plan, below 0 is
    behind; up to 2 is on pace, up to 5 behind or ahead, up to 10 well, beyond that far. A campaign without a budget is
    measured but not paced, and not listed.
    """
    sql = """SELECT p.*, f.alerts AS alerts_firing
FROM campaign_pacing AS p
LEFT JOIN (SELECT campaign_id, count() AS alerts FROM alerts WHERE state = 'firing' GROUP BY campaign_id) AS f
    ON f.campaign_id = p.campaign_id
WHERE p.is_current
ORDER BY status IN ('exhausted', 'as_soon_as_possible', 'not_started', 'ended'),
    abs(off_plan_points) DESC NULLS LAST, campaign_id"""
    from streams.commands.asking import asker_for

    asker = asker_for(data_dir)
    try:
        rows, is_cut = _ask(asker, sql)
    finally:
        asker.close()
    if as_json:
        print_json(rows)
        return
    console = out()
    states = [(msgspec.convert(row, State, strict=False), row["alerts_firing"]) for row in rows]
    console.print(listing(states, console.width))
    if is_cut:
        notes().print(f"only the first {len(rows):,} campaigns are shown; ask the view campaign_pacing for others")


# Asking


def _day(period: str) -> date | None:
    if period == LATEST:
        return None
    try:
        return date.fromisoformat(period)
    except ValueError:
        raise ConfigurationError(
            f"--period: {period!r} is no period; write {LATEST}, or a date as 2026-11-02"
        ) from None


def _ask(asker: "Asker", sql: str) -> tuple[list[dict[str, Any]], bool]:
    """Rows by column, and whether there are more."""
    from streams.commands.asking import ask_about, named

    answer = ask_about(asker, "campaign_pacing", sql)
    return named(answer), answer.truncated


def _state_of(asker: "Asker", campaign: str, day: date | None) -> dict[str, Any]:
    when = "is_current" if day is None else f"toDate(toString(period_start, time_zone)) = '{day}'"
    for column in ("campaign_id", "campaign_name"):
        rows, _ = _ask(
            asker,
            f"SELECT * FROM campaign_pacing WHERE {column} = {quoted(campaign)} AND {when} "
            "ORDER BY is_current DESC, minute DESC",
        )
        ids = sorted({row["campaign_id"] for row in rows})
        if len(ids) > 1:
            raise ConfigurationError(f"several campaigns are named {campaign!r}; give an id: {', '.join(ids)}")
        if rows:
            return rows[0]
    raise _unknown(asker, campaign, day)


def _unknown(asker: "Asker", campaign: str, day: date | None) -> ConfigurationError:
    known, _ = _ask(asker, "SELECT campaign_id, any(campaign_name) AS name FROM campaign_pacing GROUP BY campaign_id")
    ids = {row["campaign_id"]: row["campaign_id"] for row in known} | {row["name"]: row["campaign_id"] for row in known}
    if day is not None and campaign in ids:
        of = f"WHERE campaign_id = {quoted(ids[campaign])}"
        starts, _ = _ask(
            asker,
            "SELECT DISTINCT toDate(toString(period_start, time_zone)) AS day "
            f"FROM campaign_pacing {of} ORDER BY day DESC LIMIT 3",
        )
        days = ", ".join(str(row["day"]) for row in starts)
        return ConfigurationError(f"no period of {campaign} began on {day}; the latest began on {days}")
    measured, _ = _ask(asker, f"SELECT 1 FROM campaigns WHERE campaign_id = {quoted(campaign)}")
    if measured:
        return ConfigurationError(
            f"campaign {campaign!r} is not paced: it has no budget, or no event has come since it has one; "
            "give it a budget with `campaign-streams campaigns put FILE`"
        )
    close = dict.fromkeys(ids[name] for name in difflib.get_close_matches(campaign, [n for n in ids if n], n=3))
    remedy = f"did you mean {' or '.join(close)}?" if close else "`campaign-streams pacing list` shows all"
    return ConfigurationError(f"no campaign {campaign!r} is paced; {remedy}")


def _history(asker: "Asker", row: dict[str, Any], state: State) -> list[dict[str, Any]]:
    """The period's minutes, at most about `MAX_POINTS`: of a longer period the last of every few."""
    start = "IS NULL" if state.period_start is None else f"= '{row['period_start']}'"
    of = (
        f"FROM campaign_pacing_minutes WHERE campaign_id = {quoted(state.campaign_id)} "
        f"AND period_kind = {quoted(state.period_kind)} AND period_start {start}"
    )
    rows, _ = _ask(
        asker,
        f"WITH (SELECT intDiv(dateDiff('minute', min(minute), max(minute)), {MAX_POINTS}) + 1 {of}) AS step "
        "SELECT minute, target_micros, spend_micros, rate, reason, forecast_micros "
        f"{of} ORDER BY minute DESC LIMIT 1 BY intDiv(toUnixTimestamp(minute), 60 * step)",
    )
    return rows[::-1]


def _firing(asker: "Asker", state: State) -> list[dict[str, Any]]:
    if not state.is_current:
        return []
    rows, _ = _ask(
        asker,
        "SELECT kind, began, text_en, text_zh, seen, expected, unit, is_pushed FROM alerts "
        f"WHERE campaign_id = {quoted(state.campaign_id)} AND state = 'firing' ORDER BY began",
    )
    return rows


# Showing


def _style(state: State) -> str:
    return next((style for word, style in _COLOURS.items() if state.status.startswith(word)), "")


def _points(state: State) -> float | None:
    """Against a plan that wants everything at once, nothing is told by being behind it."""
    return None if state.status == "as_soon_as_possible" else state.off_plan_points


def _status_text(state: State) -> Text:
    text, points = Text(state.status.replace("_", " "), style=_style(state)), _points(state)
    if points is not None:
        text.append(f", {abs(points):.1f} points of the budget {'above' if points > 0 else 'below'} plan")
    return text


def _moment(state: State, at: datetime) -> str:
    return f"{state.local(at):%Y-%m-%d %H:%M}"


def _period_text(state: State) -> str:
    begins = _moment(state, state.period_start) if state.period_start else "open"
    if state.period_end is None:
        return f"{begins} – open"
    end = state.local(state.period_end)
    days = (end.date() - state.local(state.period_start).date()).days if state.period_start else None
    if days == 0:
        return f"{begins} – {end:%H:%M}"
    if days == 1 and f"{end:%H:%M}" == "00:00":
        return f"{begins} – 24:00"
    return f"{begins} – {end:%Y-%m-%d %H:%M}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole > 0 else ABSENT


def _forecast_text(state: State) -> str:
    if state.forecast_micros is None:
        return f"{ABSENT} (nothing to go by)"
    text = f"{state.shown(state.forecast_micros)} at the end ({_share(state.forecast_micros, state.budget_micros)})"
    low, high = state.forecast_low_micros, state.forecast_high_micros
    return text if low is None or high is None else f"{text}, 90%: {state.shown(low)} – {state.shown(high)}"


def _end_text(state: State) -> str:
    if state.exhausts_at is not None:
        return _moment(state, state.exhausts_at)
    if state.status == "exhausted":
        return "it has"
    return "not in this period" if state.forecast_micros is not None else ABSENT


def _spend_text(state: State) -> str:
    text = f"{state.shown(state.spend_micros)} ({_share(state.spend_micros, state.budget_micros)})"
    if state.in_flight_micros:
        text += f"; {state.shown(state.in_flight_micros)} in flight"
    if state.credited_micros:
        text += f"; {state.shown(state.credited_micros)} of {state.shown(state.gross_spend_micros)} given back"
    return text


def header(state: State, firing: Sequence[Firing]) -> Table:
    """What matters about a period, line by line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    lines: list[tuple[str, str | Text]] = [
        ("campaign", Text(state.title, style="bold")),
        ("period", f"{state.period_kind.replace('_', ' ')} {_period_text(state)} {state.time_zone}"),
        ("as of", _moment(state, state.minute)),
        ("status", _status_text(state)),
        ("budget", state.shown(state.budget_micros)),
        ("plan", f"{state.shown(state.target_micros)} by now ({_share(state.target_micros, state.budget_micros)})"),
        ("spend", _spend_text(state)),
        ("rate", f"{state.rate:.1%}: {state.reason_text}"),
        ("forecast", _forecast_text(state)),
        ("runs out", _end_text(state)),
    ]
    if state.closed_credit_micros:
        lines.append(("billing", f"{state.shown(state.closed_credit_micros)} given back after their day had closed"))
    if state.excess_credit_micros:
        text = f"{state.shown(state.excess_credit_micros)} owed back for spend beyond what its periods may"
        lines.append(("billing", text))
    for alert in firing:
        since = _moment(state, alert.began)
        lines.append(("alert", Text(f"{alert.text_en or alert.kind} (since {since})", style="bold red")))
    if state.note:
        lines.append(("note", state.note))
    for name, value in lines:
        table.add_row(Text(name), value if isinstance(value, Text) else Text(value))
    return table


def listing(states: Sequence[tuple[State, int]], width: int) -> Table | Text:
    """A line for each campaign, with the number of its alerts that fire; names give way where it is too wide."""
    if not states:
        return Text("no campaign is paced yet; a budget (`campaign-streams campaigns put FILE`) and events begin it")
    rows = [_line(state, alerts) for state, alerts in states]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=0)
    widths = [max(cell_len(name), *(row[at].cell_len for row in rows)) for at, name in enumerate(LIST_COLUMNS)]
    left = max(MIN_LABEL, min(MAX_LABEL, widths[0], width - sum(widths[1:]) - len(widths)))
    table.add_column(LIST_COLUMNS[0], no_wrap=True, overflow="ellipsis", min_width=left, max_width=left)
    for name, needed in zip(LIST_COLUMNS[1:], widths[1:], strict=True):
        justify: Literal["left", "right"] = "left" if name == "status" else "right"
        table.add_column(name, justify=justify, no_wrap=True, min_width=needed)
    for row in rows:
        table.add_row(*row)
    table.caption = "points: spend less plan. spent, end (forecast): of the budget."
    table.caption_justify = "left"
    return table


def _line(state: State, alerts: int) -> list[Text]:
    points, forecast = _points(state), state.forecast_micros
    return [
        Text(state.campaign_name or state.campaign_id),
        Text(state.status.replace("_", " "), style=_style(state)),
        Text(ABSENT if points is None else f"{points:+.1f}"),
        Text(state.shown(state.budget_micros, is_short=True)),
        Text(_share(state.spend_micros, state.budget_micros)),
        Text(f"{state.rate:.0%}"),
        Text(ABSENT if forecast is None else _share(forecast, state.budget_micros)),
        Text(str(alerts or ""), style="bold red"),
    ]


def plot(state: State, points: Sequence[Point], width: int) -> Text:
    """Plan, spend and rate over the period, told apart without colour too."""
    if not points:
        return Text("no minute of this period is kept")
    first, last = points[0].at_s, points[-1].at_s + 60
    if state.period_start is not None and state.period_end is not None:
        first, last = (int(at.replace(tzinfo=UTC).timestamp()) for at in (state.period_start, state.period_end))
    ticks = _ticks(first, last, ZoneInfo(state.time_zone))
    money_part = _money_plot(state, points, (first, last), width, ticks)
    return Text.from_ansi("\n".join([*money_part, "", *_rate_plot(points, (first, last), width, ticks)]))


Ticks = tuple[list[int], list[str]]


def _begin_plot(width: int, lines: int, span: tuple[int, int], ticks: Ticks) -> Any:
    import plotext  # takes a moment, and only this needs it

    plotext.clear_figure()
    plotext.limit_size(False, False)
    plotext.theme("clear")
    plotext.plot_size(width, lines)
    plotext.xlim(*span)
    plotext.xticks(*ticks)
    return plotext


def _money_plot(state: State, points: Sequence[Point], span: tuple[int, int], width: int, ticks: Ticks) -> list[str]:
    at = [point.at_s for point in points]
    known = [state.budget_micros, *(max(p.target_micros, p.spend_micros) for p in points), 1]
    forecast = [f for f in (state.forecast_low_micros, state.forecast_high_micros) if f is not None]
    top = min(max([*known, *forecast]), int(HEADROOM * max(known)))
    marks = [0, top // 2, top]
    labels = [short(round(mark / 10**6)) if top >= 10**7 else f"{mark / 10**6:.3g}" for mark in marks]
    part = _begin_plot(width, MONEY_LINES, span, ticks)
    part.ylim(min(0, *(p.spend_micros for p in points)), top)
    part.yticks(marks, [f"{label:>6}" for label in labels])
    part.plot(list(span), [state.budget_micros] * 2, marker="-", color="red")
    part.plot(at, [point.target_micros for point in points], marker="·", color="blue")
    if len(forecast) == 2 and state.period_end is not None:
        part.plot([span[1]] * 2, [min(top, value) for value in forecast], marker="┃", color="magenta")
    part.plot(at, [point.spend_micros for point in points], marker="braille", color="green")
    keys = "⠉⠒⠤ spend  ··· plan  --- budget" + ("  ┃ forecast, 90%" if len(forecast) == 2 else "")
    return [f"{state.currency}   {keys}", *part.build().rstrip("\n").split("\n")]


def _rate_plot(points: Sequence[Point], span: tuple[int, int], width: int, ticks: Ticks) -> list[str]:
    part = _begin_plot(width, RATE_LINES, span, ticks)
    part.ylim(0, 100)
    part.yticks([0, 50, 100], [f"{text:>6}" for text in ("0%", "50%", "100%")])
    part.plot([p.at_s for p in points], [100 * p.rate for p in points], marker="braille", color="cyan")
    return ["pass-through rate", *part.build().rstrip("\n").split("\n")]


def _ticks(first: int, last: int, zone: ZoneInfo) -> Ticks:
    """At most about `MAX_TICKS` marks at round local times."""
    days = [_DAY_S * count for count in (1, 2, 7, 14, 30, 90, 365)]
    step = next((step for step in (*_STEPS_S, *days) if (last - first) / step <= MAX_TICKS), days[-1])
    stride = min(step, 900) if step >= 900 else step
    marks, texts = [], []
    for at in range(first + -first % stride, last + 1, stride):
        local = datetime.fromtimestamp(at, zone)
        passed = local.hour * 3_600 + local.minute * 60
        if step < _DAY_S and passed % step == 0:
            marks.append(at)
            texts.append("24:00" if at == last and passed == 0 else local.strftime("%H:%M"))
        elif step >= _DAY_S and passed == 0 and local.toordinal() % (step // _DAY_S) == 0:
            marks.append(at)
            texts.append(local.strftime("%m-%d"))
    return marks, texts
