"""`campaign-streams publishers list | show`: publishers' risk as the stream shows it, for reviewers.

Asks the view publisher_risk wherever ClickHouse is (streams.commands.asking). Internal: neither advertisers nor
publishers see scores (streams.stages.invalid.peer_risk says what they are made of).
"""

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from streams.commands.options import notes, out, print_json, quoted
from streams.commands.tables import plain_table

MAX_LISTED: Final = 10_000
DEFAULT_LISTED: Final = 50
HISTORY: Final = 24
"""Hours shown of one publisher."""
ABSENT: Final = "–"
PARTS: Final = 3
FRESH: Final = "weighed_to > (SELECT max(weighed_to) FROM publisher_risk_rows) - INTERVAL 1 DAY"
REASONS: Final = {
    "few_clicks": "too few clicks",
    "few_peers": "too few peers to compare with",
    "few_traits": "too little is known of its clicks",
    "folded": "beyond the bound: folded into one row",
}

DataDir = Annotated[
    Path | None, typer.Option(help="Ask the demo with this data directory, instead of what the settings name.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs: the view's columns, times in UTC.")]


class RiskShown(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the view publisher_risk. Times are UTC, as text; columns of parts are of equal length."""

    publisher_id: str
    partition: int
    weighed_from: str
    weighed_to: str
    publishers: int
    clicks: int
    conversions: int
    distinct_users: int
    distinct_addresses: int
    distinct_agents: int
    peers: int
    score: float | None
    base_log_odds: float
    unscored: str
    traits: list[str]
    seen_shares: list[float]
    typical_shares: list[float]
    deviations: list[float]
    log_odds: list[float]

    @property
    def score_text(self) -> str:
        """Three digits; a dash where there is none."""
        return ABSENT if self.score is None else f"{self.score:.3f}"

    @property
    def why(self) -> str:
        """The largest parts in words, or why there is no score."""
        if self.score is None:
            return f"unverifiable: {REASONS.get(self.unscored, self.unscored)}"
        parts = zip(self.traits, self.seen_shares, self.typical_shares, self.log_odds, strict=True)
        told = [f"{words_of(t)} {_share(s)} (peers {_share(u)}) +{o:.2f}" for t, s, u, o in parts if o > 0]
        return "; ".join(told[:PARTS]) or "nothing is out of the ordinary"


def words_of(trait: str) -> str:
    """What the trait is a share of; one of another version is told by its name."""
    from streams.stages.invalid.peer_risk import WORDS

    return {each.value: words for each, words in WORDS.items()}.get(trait, trait)


def _share(share: float) -> str:
    return f"{100 * share:.3g}%"


def show_all(
    limit: Annotated[int, typer.Option(min=1, max=MAX_LISTED, help="Publishers shown.")] = DEFAULT_LISTED,
    least: Annotated[float, typer.Option("--least", min=0.0, max=1.0, help="Only scores of at least this.")] = 0.0,
    older: Annotated[bool, typer.Option("--older", help="Also those that were last weighed over a day ago.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List publishers by their risk in the live traffic, the riskiest first, with the parts that weigh most.

    A score lies between 0 and 1 and orders publishers for a reviewer; it is no verdict, and flags nothing. It adds up
    how far a publisher's clicks differ from its peers': shared addresses, users and agents, bursts, many clicks for its
    impressions, conversions that are missing, too soon or too late. Without a score a publisher is unverifiable.
    Internal: not for advertisers.
    """
    conditions = [*([] if older else [FRESH]), *([f"score >= {least}"] if least else [])]
    order = "ORDER BY score DESC NULLS LAST, clicks DESC, publisher_id, partition"
    where = " AND ".join(conditions) or "1"
    rows = _asked(data_dir, f"SELECT * FROM publisher_risk WHERE {where} {order} LIMIT {limit + 1}")
    if as_json:
        print_json(rows[:limit])
        return
    if not rows:
        out().print("no publisher has been weighed" + (f" at {least} or more" if least else ""))
        notes().print("events need publisher_id, and clicks of ten minutes of event time must have passed")
        return
    table = plain_table("publisher", "score", "clicks", "users", "addresses", "agents", "weighed to (UTC)", "why")
    for risk in [msgspec.convert(row, RiskShown, strict=False) for row in rows[:limit]]:
        counts = (risk.clicks, risk.distinct_users, risk.distinct_addresses, risk.distinct_agents)
        name = risk.publisher_id if risk.publishers == 1 else f"{risk.publisher_id} ({risk.publishers:,} publishers)"
        cells = (name, risk.score_text, *(f"{count:,}" for count in counts), risk.weighed_to, risk.why)
        table.add_row(*map(Text, cells))
    out().print(table)
    if len(rows) > limit:
        notes().print(f"only the riskiest {limit:,} are shown: use --limit or --least")


def show(
    publisher: Annotated[str, typer.Argument(metavar="PUBLISHER", help="Id of the publisher.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show one publisher: every part of its score beside its peers', and how the score went hour by hour.

    A part is how far the publisher's share lies above the peers' median, in deviations of the peers, beyond the first,
    times two thirds, at most 4. Base and parts are log-odds: they add up to the score.
    """
    found = _asked(
        data_dir, f"SELECT * FROM publisher_risk WHERE publisher_id = {quoted(publisher)} ORDER BY partition"
    )
    hours = _asked(data_dir, _history_sql(publisher)) if found else []
    if as_json:
        print_json({"publisher": publisher, "risks": found, "hours": hours})
        return
    if not found:
        out().print(
            f"publisher {publisher} has not been weighed: no click of it was judged, or it is folded into other"
        )
        return
    for risk in [msgspec.convert(row, RiskShown, strict=False) for row in found]:
        _show(risk)
    listed = plain_table("hour (UTC)", "score", "clicks", "why")
    for hour in hours:
        score = ABSENT if hour["score"] is None else f"{hour['score']:.3f}"
        listed.add_row(*map(Text, (str(hour["hour"]), score, f"{int(hour['clicks']):,}", hour["why"] or ABSENT)))
    out().print(listed)


def _history_sql(publisher: str) -> str:
    return (
        "SELECT hour, partition, score, clicks, unscored, arrayStringConcat(arrayMap((trait, odds) -> "
        "concat(trait, ' +', toString(round(odds, 2))), arrayFilter((trait, odds) -> odds > 0, traits, log_odds), "
        "arrayFilter(odds -> odds > 0, log_odds)), ', ') AS why FROM publisher_risk_rows FINAL "
        f"WHERE publisher_id = {quoted(publisher)} ORDER BY hour DESC, partition LIMIT {HISTORY}"
    )


def _show(risk: RiskShown) -> None:
    lines = Table(box=None, pad_edge=False, show_header=False)
    lines.add_column(style="dim", no_wrap=True)
    lines.add_column(overflow="fold")
    converted = f"{risk.clicks:,}, of them {risk.conversions:,} converted"
    origins = f"{risk.distinct_users:,} users, {risk.distinct_addresses:,} addresses, {risk.distinct_agents:,} agents"
    told = (
        ("publisher", risk.publisher_id),
        ("score", risk.score_text if risk.score is not None else f"{ABSENT}  {risk.why}"),
        ("weighed", f"{risk.weighed_from} to {risk.weighed_to} UTC, against {risk.peers} publishers"),
        ("clicks", converted),
        ("from", origins),
        ("base", f"{risk.base_log_odds:.2f} log-odds"),
    )
    for name, text in told:
        lines.add_row(Text(name), Text(text))
    out().print(lines)
    if risk.score is None:
        return
    parts = plain_table("part", "here", "peers", "deviations", "log-odds")
    for row in zip(risk.traits, risk.seen_shares, risk.typical_shares, risk.deviations, risk.log_odds, strict=True):
        trait, seen, typical, deviation, odds = row
        cells = (words_of(trait), _share(seen), _share(typical), f"{deviation:+.1f}", f"+{odds:.2f}" if odds else "0")
        parts.add_row(*map(Text, cells), style="bold" if odds else "")
    out().print(parts)


def _asked(data_dir: Path | None, sql: str) -> list[dict[str, Any]]:
    from streams.commands.asking import rows_of

    return rows_of(data_dir, "publisher_risk", sql, MAX_LISTED + 1)
