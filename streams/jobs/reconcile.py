"""Independent totals per campaign and day against ours, and what explains each difference. Pure.

Ours are lower where an event was redelivered, came too late, or was labelled invalid: the ledger and the gross figures
know how many per campaign, day and input. What they do not cover is unexplained. An amount of money has no such
bound: the amounts of duplicates and late events are not kept, so a difference in money is never explained by them,
only remarked upon. Records that were rejected name no campaign that could be trusted; they are shown apart.
"""

import csv
import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import Final, NamedTuple

from streams.errors import ConfigurationError
from streams.events import Input
from streams.records import MEASURES_OF

CAMPAIGN: Final = "campaign_id"
DAY: Final = "day"
CURRENCY: Final = "currency"
GROSS: Final = "gross_"
MAX_ROWS: Final = 200_000
MAX_PROBLEMS: Final = 20
PRICED: Final = (Input.IMPRESSIONS, Input.PLAYS, Input.CLICKS)

_ALIASES: Final = {"date": DAY, "campaign": CAMPAIGN, "spend": "spend_micros", "cost": "spend_micros"}
_INPUTS_OF: Final[dict[str, tuple[Input, ...]]] = {
    **{measure: (source,) for source, measures in MEASURES_OF.items() for measure in measures},
    "spend_micros": PRICED,
    "net_value_by_order_micros": (Input.CONVERSIONS, Input.ADJUSTMENTS),
    "net_value_by_adjustment_micros": (Input.CONVERSIONS, Input.ADJUSTMENTS),
}


class Place(NamedTuple):
    """What a total is of. `day` is ISO 8601, in the campaign's time zone; `currency` is '' where none was named."""

    campaign_id: str
    day: str
    currency: str = ""


class Totals(NamedTuple):
    """Somebody's totals: by place, the amount of each measure."""

    measures: tuple[str, ...]
    rows: dict[Place, dict[str, int]]
    names_currency: bool = False
    unstated: frozenset[tuple[str, str]] = frozenset()
    """Campaigns and measures of which nothing is stated: they are not compared."""


class Lost(NamedTuple):
    """Events of one campaign, day and input that were counted nowhere, or without their money."""

    duplicates: int = 0
    late: int = 0
    money_rejected: int = 0


class Tolerance(NamedTuple):
    """What may remain: an amount of the measure's unit, or a share of the greater figure."""

    amount: int = 0
    share: float = 0.0

    def allows(self, rest: int, theirs: int, ours: int) -> bool:
        """Whether a remainder is within it."""
        return abs(rest) <= max(self.amount, self.share * max(abs(theirs), abs(ours)))


class Difference(NamedTuple):
    """One figure that differs. `explained` and `unexplained` add up to `theirs` − `ours`."""

    place: Place
    measure: str
    theirs: int
    ours: int
    explained: dict[str, int]
    unexplained: int
    is_tolerated: bool
    remark: str

    @property
    def is_open(self) -> bool:
        """Whether something remains that nothing explains."""
        return self.unexplained != 0 and not self.is_tolerated


class Reconciliation(NamedTuple):
    """The whole comparison."""

    figures: int
    differences: list[Difference]
    hints: list[str]

    @property
    def open(self) -> list[Difference]:
        """Differences with something unexplained."""
        return [difference for difference in self.differences if difference.is_open]


def read_totals(lines: Iterable[str], known: Collection[str], origin: str) -> Totals:
    """Totals from CSV: the columns campaign_id and day, perhaps currency, and any of the measures `known`.

    Several rows of one place are summed. An empty cell is no statement.

    Raises:
        ConfigurationError: every fault (the first `MAX_PROBLEMS`), with its line.
    """
    reader = csv.DictReader(lines)
    names = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = names
    measures = tuple(name for name in names if name not in (CAMPAIGN, DAY, CURRENCY))
    problems = _header_problems(names, measures, known)
    rows: dict[Place, dict[str, int]] = {}
    for record in () if problems else reader:
        place = _place(record)
        found = _amounts(record, measures)
        wrong = [what for what in (place, found) if isinstance(what, str)]
        if isinstance(place, Place) and isinstance(found, dict):
            into = rows.setdefault(place, {})
            for name, amount in found.items():
                into[name] = into.get(name, 0) + amount
        problems += [f"line {reader.line_num}: {what}" for what in wrong]
        if len(problems) >= MAX_PROBLEMS:
            break
        if len(rows) > MAX_ROWS:
            raise ConfigurationError(f"{origin}: more than {MAX_ROWS:,} campaign-days; give fewer days at a time")
    if problems:
        raise ConfigurationError(f"{origin}: {'; '.join(problems[:MAX_PROBLEMS])}; mend the file")
    return Totals(measures, rows, CURRENCY in names)


def _header_problems(names: Sequence[str], measures: Sequence[str], known: Collection[str]) -> list[str]:
    problems = [f"the column {name} is missing" for name in (CAMPAIGN, DAY) if name not in names]
    problems += [f"the column {name} is there twice" for name in sorted({n for n in names if names.count(n) > 1})]
    for name in measures:
        if name not in known:
            alias = _ALIASES.get(name.lower())
            close = [alias] if alias else difflib.get_close_matches(name, (*known, CAMPAIGN, DAY, CURRENCY), n=1)
            hint = f"did you mean {close[0]}?" if close else "`DESCRIBE campaign_days` lists the measures"
            problems.append(f"the column {name!r} is no measure, {hint}")
    if not measures and not problems:
        problems.append("there is no measure beside campaign_id and day; add for example impressions")
    return problems


def _place(record: Mapping[str, str | None]) -> Place | str:
    day = (record.get(DAY) or "").strip()
    try:
        day = date.fromisoformat(day).isoformat()
    except ValueError:
        return f"day {day!r} is no date such as 2026-11-30"
    campaign, currency = (record.get(CAMPAIGN) or "").strip(), (record.get(CURRENCY) or "").strip()
    return Place(campaign, day, currency)


def _amounts(record: Mapping[str, str | None], measures: Sequence[str]) -> dict[str, int] | str:
    found = {}
    for name in measures:
        text = (record.get(name) or "").strip()
        if not text:
            continue
        try:
            found[name] = int(text)
        except ValueError:
            return f"{name} {text!r} is no whole number"
    return found


def companions(measures: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """The measures, and the gross figure of each that has one: what is to be asked of our totals."""
    wanted = dict.fromkeys(measures)
    wanted |= dict.fromkeys(GROSS + name for name in tuple(wanted) if GROSS + name in known)
    return tuple(wanted)


def reconcile(
    theirs: Totals,
    ours: Totals,
    lost: Mapping[tuple[str, str], Mapping[Input, Lost]],
    tolerance: Tolerance | None = None,
) -> Reconciliation:
    """Compares every figure that they state with ours.

    Of a campaign that they name, a day within theirs that only we have is compared with 0.

    Args:
        ours: with the gross figures that `companions` names.
        lost: by campaign and day.
    """
    our_rows = ours.rows if theirs.names_currency else _over_currencies(ours.rows)
    places = {**dict.fromkeys(theirs.rows), **dict.fromkeys(_only_ours(theirs, our_rows))}
    differences, figures = [], 0
    for place in sorted(places):
        stated = theirs.rows.get(place) or dict.fromkeys(theirs.measures, 0)
        mine = our_rows.get(place, {})
        stated = {m: a for m, a in stated.items() if (place.campaign_id, m) not in theirs.unstated}
        lost_here = lost.get((place.campaign_id, place.day), {})
        figures += len(stated)
        for measure, amount in stated.items():
            if amount != mine.get(measure, 0):
                differences.append(_explain(place, measure, amount, mine, lost_here, tolerance or Tolerance()))
    return Reconciliation(figures, differences, _hints(differences))


def _over_currencies(rows: Mapping[Place, Mapping[str, int]]) -> dict[Place, dict[str, int]]:
    """One row for each campaign and day. Money of several currencies is never summed: it is left out."""
    several = {}
    merged: dict[Place, dict[str, int]] = {}
    for place, amounts in rows.items():
        bare = place._replace(currency="")
        into = merged.setdefault(bare, {})
        for name, amount in amounts.items():
            if name.endswith("_micros") and into.get(name) and amount:
                several[bare, name] = True
            into[name] = into.get(name, 0) + amount
    if several:
        first = next(iter(several))
        raise ConfigurationError(
            f"{first[0].campaign_id} has {first[1]} in several currencies on {first[0].day}; "
            "add the column currency to the file"
        )
    return merged


def _only_ours(theirs: Totals, our_rows: Mapping[Place, Mapping[str, int]]) -> list[Place]:
    campaigns = {place.campaign_id for place in theirs.rows}
    days = [place.day for place in theirs.rows]
    if not days:
        return []
    first, last = min(days), max(days)
    return [
        place
        for place, amounts in our_rows.items()
        if place not in theirs.rows
        and place.campaign_id in campaigns
        and first <= place.day <= last
        and any(amounts.get(measure) for measure in theirs.measures)
    ]


def _explain(
    place: Place,
    measure: str,
    amount: int,
    mine: Mapping[str, int],
    lost: Mapping[Input, Lost],
    tolerance: Tolerance,
) -> Difference:
    our_amount = mine.get(measure, 0)
    rest = amount - our_amount
    explained: dict[str, int] = {}
    for why, count in _reasons(measure, mine, lost):
        part = min(rest, count)
        if part > 0:
            explained[why] = part
            rest -= part
    return Difference(
        place,
        measure,
        amount,
        our_amount,
        explained,
        rest,
        tolerance.allows(rest, amount, our_amount),
        _remark(measure, rest, lost),
    )


def _reasons(measure: str, mine: Mapping[str, int], lost: Mapping[Input, Lost]) -> list[tuple[str, int]]:
    """Why their figure may be higher, each with by how much at most."""
    reasons = []
    if GROSS + measure in mine:
        reasons.append(("invalid traffic", mine[GROSS + measure] - mine.get(measure, 0)))
    if _counts_events(measure):
        here = [lost.get(source, Lost()) for source in inputs_of(measure)]
        reasons.append(("duplicates", sum(entry.duplicates for entry in here)))
        reasons.append(("late", sum(entry.late for entry in here)))
    return reasons


def inputs_of(measure: str) -> tuple[Input, ...]:
    """The inputs whose events a measure counts; none for the ledger's own."""
    return _INPUTS_OF.get(measure.removeprefix(GROSS), ())


def _counts_events(measure: str) -> bool:
    """Whether one event adds at most 1."""
    return not measure.endswith(("_micros", "_ms", "_ppm")) and measure != "quantity"


def _remark(measure: str, rest: int, lost: Mapping[Input, Lost]) -> str:
    if not rest or _counts_events(measure):
        return ""
    here = [lost.get(source, Lost()) for source in inputs_of(measure)]
    counts = {name: sum(getattr(entry, name) for entry in here) for name in Lost._fields}
    named = [f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count]
    return f"amounts are not kept of {', '.join(named)}" if named and rest > 0 else ""


def _hints(differences: Sequence[Difference]) -> list[str]:
    """What looks like days cut in another time zone: nothing remains over all days."""
    sums: dict[tuple[str, str], list[int]] = {}
    for difference in differences:
        if difference.is_open:
            sums.setdefault((difference.place.campaign_id, difference.measure), []).append(difference.unexplained)
    return [
        f"{campaign}: {measure} agrees over all days; are their days in another time zone than the campaign's?"
        for (campaign, measure), rests in sums.items()
        if len(rests) > 1 and sum(rests) == 0
    ]
