"""`campaign-streams flags explain | list | overturn | confirm | rules`: why events do not count, and reviews of them.

Asks the view flags wherever ClickHouse is (streams.commands.asking); reviews go to ads.verdicts, where the partition
of the event's campaign reads them.
"""

import getpass
import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
import xxhash
from rich.table import Table
from rich.text import Text

from streams.commands.campaigns import publish
from streams.commands.flag_words import evidence_text, rule_text, thresholds_of
from streams.commands.options import notes, out, print_json, prose, quoted, run, time_ms
from streams.commands.tables import money, plain_table
from streams.errors import CampaignStreamsError, ConfigurationError
from streams.events import Input
from streams.invalid import InvalidRules, Mode, Rule, Validity, class_of
from streams.settings import load_settings
from streams.stages.invalid.catalogue import DESCRIPTIONS, REASONS
from streams.topics import VERDICTS

if TYPE_CHECKING:
    from streams.verdicts import Decision, Review

MAX_LISTED: Final = 10_000
DEFAULT_LISTED: Final = 50
MAX_TOLD: Final = 2_000
"""As streams.state.flags has it (a test keeps both equal)."""
REACH: Final = (
    "clicks of the last 24 h and conversions of 30 days; of other inputs, what was flagged in the last 7 days"
)
_MODE_STYLES: Final = {Mode.ON: "bold", Mode.OBSERVE: "", Mode.OFF: "dim"}
_COUNTS: Final[dict[str, str]] = {
    Validity.VALID: "valid: it is in valid figures and billed",
    Validity.GIVT: "general invalid traffic: in gross figures only, not billed",
    Validity.SIVT: "sophisticated invalid traffic: in gross figures only, not billed",
}


class State(StrEnum):
    """States of a flag, as streams.verdicts.FlagState has them (which would load numpy; a test keeps both equal)."""

    RAISED = "raised"
    WITHDRAWN = "withdrawn"
    OVERTURNED = "overturned"
    CONFIRMED = "confirmed"


_STATE_STYLES: Final[dict[str, str]] = {
    State.RAISED: "bold",
    State.WITHDRAWN: "dim",
    State.OVERTURNED: "green",
    State.CONFIRMED: "bold red",
}
EPILOG: Final = """
Examples:

  campaign-streams flags explain 01JC3ZK4
  campaign-streams flags list --campaign c1 --rule click_too_soon --state raised
  campaign-streams flags overturn 01JC3ZK4 --campaign c1 --input clicks --reason "our own monitor"
  campaign-streams flags rules
"""

app = typer.Typer(
    no_args_is_help=True,
    help="Invalid traffic: why events are flagged, what they count as, and reviews of them.",
    rich_markup_mode="rich",
)

EventArgument = Annotated[str, typer.Argument(metavar="EVENT_ID", help="Id of the event, or its 32-digit digest.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Ask the demo with this data directory, instead of what the settings name.")
]
DemoDir = Annotated[
    Path | None, typer.Option(help="Tell the demo that runs with this data directory, instead of the settings' broker.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs: the view's columns, times in UTC.")]
Reviewed = Annotated[str, typer.Argument(metavar="EVENT_ID", help="Id of the event.")]
CampaignOption = Annotated[str, typer.Option("--campaign", help="The event's campaign.")]
InputOption = Annotated[Input, typer.Option("--input", help="The event's input.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why: it is kept with the flag.")]
ReviewerOption = Annotated[str | None, typer.Option("--reviewer", help="Who decides; without: the user of this shell.")]


class FlagShown(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the view flags. Times are UTC, as text."""

    event: str
    input: str
    rule: str
    review_ms: int
    kind: str = msgspec.field(name="class")
    mode: str
    state: str
    counts_as: str
    event_id: str
    event_time: str
    campaign_id: str
    publisher_id: str
    currency: str
    cost_millimicros: int
    evidence: str
    review: str
    reviewer: str
    review_reason: str
    decided: str

    @property
    def title(self) -> str:
        """The event for people: its id, or where that is too long to be kept, its digest."""
        return self.event_id or self.event

    @property
    def seen(self) -> str:
        """The evidence in words."""
        return evidence_text(json.loads(self.evidence or "{}"))


# Looking


def explain(
    event_id: EventArgument,
    source: Annotated[Input | None, typer.Option("--input", help="Only the event of this input.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Explain an event: every flag on it, what was seen, what the event counts as now, and who reviewed it.

    A rule that is `on` excludes what it flags; what one in `observe` flags counts as before. A reviewer's word outranks
    the rules, and the last one counts. Flags are kept 100 days. Internal: advertisers see classes only (view
    invalid_traffic).
    """
    digests = {xxhash.xxh3_128_hexdigest(event_id.encode()), *([event_id] if _is_digest(event_id) else [])}
    where = f"event IN ({', '.join(map(quoted, sorted(digests)))})"
    where += f" AND input = {quoted(source)}" if source else ""
    rows = _asked(data_dir, f"SELECT * FROM flags WHERE {where} ORDER BY input, decided, rule, review_ms")
    if as_json:
        print_json([{**row, "evidence": json.loads(row["evidence"] or "{}")} for row in rows])
        return
    if not rows:
        _explain_nothing(event_id, source)
        return
    found = [msgspec.convert(row, FlagShown, strict=False) for row in rows]
    for event in dict.fromkeys((flag.input, flag.event) for flag in found):
        _explain([flag for flag in found if (flag.input, flag.event) == event])


def _is_digest(text: str) -> bool:
    return len(text) == 32 and not set(text) - set("0123456789abcdef")


def _explain_nothing(event_id: str, source: Input | None) -> None:
    out().print(f"no flag is known on {source or 'any'} event {event_id}: it counts as valid, or never came")
    notes().print(
        f"its digest is {xxhash.xxh3_128_hexdigest(event_id.encode())}. Of what events are flagged with as they come, "
        f"one tick tells {MAX_TOLD:,} of each input one by one; those beyond are only counted (in the views, and in "
        "campaign_streams_flags_total), so an event may be invalid without a flag here. Flags are kept 100 days."
    )


def _explain(flags: Sequence[FlagShown]) -> None:
    event, console = flags[0], out()
    reviews = sorted((flag for flag in flags if flag.reviewer), key=lambda flag: (flag.decided, flag.review_ms))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    lines = [
        ("event", event.title),
        ("input", f"{event.input}, at {event.event_time} UTC"),
        ("campaign", event.campaign_id or "(organic)"),
        ("publisher", event.publisher_id),
        ("digest", event.event),
        ("counts as", _COUNTS.get(event.counts_as, event.counts_as)),
        ("cost", money(event.cost_millimicros, event.currency) if event.cost_millimicros else "none"),
    ]
    if event.counts_as != Validity.VALID:
        lines.append(("reason", _reason(flags)))
    lines += [("review", f"{f.state} by {f.reviewer}, {f.decided} UTC: {f.review_reason}") for f in reviews]
    for name, text in lines:
        if text:
            table.add_row(Text(name), Text(text, style="bold" if name == "counts as" else ""))
    console.print(table)
    listed = plain_table("flag", "class", "mode", "state", "told (UTC)", "what was seen")
    for flag in flags:  # reviews stand above
        if flag.rule == Rule.REVIEW:
            continue
        cells = (flag.rule, flag.kind, flag.mode, flag.state, flag.decided, flag.seen)
        listed.add_row(*map(Text, cells), style=_STATE_STYLES.get(flag.state, ""))
    console.print(listed)
    console.print()


def _reason(flags: Sequence[FlagShown]) -> str:
    """What an advertiser may be told: a class of reasons, never a rule, threshold or evidence."""
    excluding = [f for f in flags if f.mode == Mode.ON and f.state != State.WITHDRAWN and f.kind == f.counts_as]
    rule = next((f.rule for f in excluding if f.rule in REASONS), Rule.REVIEW)
    return REASONS[Rule(rule)].en


def show_all(
    campaign: Annotated[str | None, typer.Option(help="Only this campaign.")] = None,
    rule: Annotated[Rule | None, typer.Option(help="Only this rule.")] = None,
    state: Annotated[State | None, typer.Option(help="Only flags that are in this state now.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LISTED, help="Flags shown, those told last.")] = DEFAULT_LISTED,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List flags in their latest state, those told last first.

    One tick tells 2,000 of the flags that an input's events came with; those beyond are only counted.
    """
    chosen = {"campaign_id": campaign, "rule": rule, "state": state}
    conditions = [f"{column} = {quoted(value)}" for column, value in chosen.items() if value is not None]
    rows = _asked(data_dir, _listing_sql(conditions, limit + 1))
    if as_json:
        print_json([{**row, "evidence": json.loads(row["evidence"] or "{}")} for row in rows[:limit]])
        return
    if not rows:
        named = [f"{column.removesuffix('_id')} {value}" for column, value in chosen.items() if value is not None]
        out().print(f"no flags{' of ' if named else ''}{', '.join(named)}")
        return
    table = plain_table(
        "told (UTC)", "state", "rule", "mode", "counts as", "campaign", "input", "event", "cost", "seen"
    )
    for flag in [msgspec.convert(row, FlagShown, strict=False) for row in rows[:limit]]:
        cost = money(flag.cost_millimicros, flag.currency) if flag.cost_millimicros else ""
        by = f" ({flag.reviewer})" if flag.reviewer else ""
        cells = (flag.decided, f"{flag.state}{by}", flag.rule, flag.mode, flag.counts_as, flag.campaign_id)
        table.add_row(
            *map(Text, (*cells, flag.input, flag.title, cost, flag.seen)), style=_STATE_STYLES.get(flag.state, "")
        )
    out().print(table)
    if len(rows) > limit:
        notes().print(f"only the last {limit:,} are shown: use --limit, or narrow with --campaign, --rule or --state")


def _listing_sql(conditions: Sequence[str], limit: int) -> str:
    """The latest flags. Their events are chosen first: the view would reckon what every event counts as."""
    order = f"ORDER BY decided DESC, event_time DESC, event, rule LIMIT {limit}"
    chosen = f"SELECT event FROM shown_flag_rows WHERE {' AND '.join(conditions) or '1'} {order}"
    return f"SELECT * FROM flags WHERE {' AND '.join((f'event IN ({chosen})', *conditions))} {order}"


def _asked(data_dir: Path | None, sql: str) -> list[dict[str, Any]]:
    from streams.commands.asking import rows_of

    return rows_of(data_dir, "flags", sql, MAX_LISTED + 1)


# Reviewing


def overturn(
    event_id: Reviewed,
    campaign: CampaignOption,
    source: InputOption,
    reason: ReasonOption,
    reviewer: ReviewerOption = None,
    data_dir: DemoDir = None,
) -> None:
    """Decide that an event is valid, whatever the rules say: it counts, and is billed, from the next tick on.

    The word is kept with its reviewer and reason, and can be taken back by `flags confirm`. It reaches clicks of the
    last 24 h and conversions of 30 days; of other inputs, what was flagged in the last 7 days.
    """
    from streams.verdicts import Decision

    _send(review_of(event_id, campaign, source, Decision.OVERTURN, reason, reviewer), data_dir)


def confirm(
    event_id: Reviewed,
    campaign: CampaignOption,
    source: InputOption,
    reason: ReasonOption,
    reviewer: ReviewerOption = None,
    data_dir: DemoDir = None,
) -> None:
    """Decide that an event is invalid: it leaves valid figures, and its cost is given back, from the next tick on.

    It need not have been flagged. The word is kept with its reviewer and reason, and can be taken back by
    `flags overturn`. It reaches clicks of the last 24 h and conversions of 30 days; of other inputs, what was flagged
    in the last 7 days.
    """
    from streams.verdicts import Decision

    _send(review_of(event_id, campaign, source, Decision.CONFIRM, reason, reviewer), data_dir)


def _send(review: "Review", data_dir: Path | None) -> None:
    from streams.commands.worker_api import kafka_of_directory
    from streams.ports import Outgoing

    record = Outgoing(VERDICTS, None, review.campaign_id.encode(), msgspec.json.encode(review))
    run(publish(load_settings().kafka if data_dir is None else kafka_of_directory(data_dir), [record]))
    done = "valid" if review.decision.value == "overturn" else "invalid"
    out().print(
        f"sent, by {review.reviewer}: if campaign {review.campaign_id} has this event of {review.input}, "
        f"{review.event_id} counts as {done} from the next tick on"
    )
    notes().print(f"told to {VERDICTS}; it reaches {REACH}. `campaign-streams flags explain` shows what came of it")
    notes().print(_what_is_known(review, data_dir))


def _what_is_known(review: "Review", data_dir: Path | None = None) -> str:
    """What flags say of the event that was reviewed: whether campaign and input are likely right."""
    digests = {xxhash.xxh3_128_hexdigest(review.event_id.encode()), review.event_id}
    sql = (
        "SELECT DISTINCT event, event_id, input, campaign_id FROM flags "
        f"WHERE event IN ({', '.join(map(quoted, sorted(digests)))}) ORDER BY input, campaign_id LIMIT 10"
    )
    try:
        rows = _asked(data_dir, sql)
    except CampaignStreamsError as error:
        return f"whether it has flags is not known: {error}"
    if any(row["event"] == review.event_id for row in rows):
        return f"warning: {review.event_id} is an event's digest, no event has this id; give its id"
    places = [(row["input"], row["campaign_id"]) for row in rows]
    if (review.input.value, review.campaign_id) in places:
        return "it has been flagged or reviewed there before"
    if places:
        known = ", ".join(f"{source} of campaign {campaign or '(organic)'}" for source, campaign in places)
        return f"warning: an event of this id is flagged among {known}; mend --campaign or --input if that is meant"
    return "no flag is known of it: if it exists, it counts as valid so far"


def review_of(
    event_id: str, campaign: str, source: Input, decision: "Decision", reason: str, reviewer: str | None
) -> "Review":
    """The record that tells a review.

    Raises:
        ConfigurationError: something is empty, too long, or no traffic.
    """
    from streams.verdicts import Review

    name = f"flags {decision.value}"
    if source is Input.ADJUSTMENTS:
        raise ConfigurationError(f"{name}: adjustments are bookkeeping, no traffic; review the conversion instead")
    document = {
        "type": "review",
        "campaign_id": campaign.strip(),
        "input": source.value,
        "event_id": event_id,
        "decision": decision.value,
        "reviewer": (reviewer if reviewer is not None else _user(name)).strip(),
        "reason": reason.strip(),
        "at_ms": time_ms("now", "now"),
    }
    try:
        return msgspec.convert(document, Review)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{name}: {error}; mend the option or argument") from None


def _user(name: str) -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        raise ConfigurationError(f"{name}: this shell's user has no name; say who decides with --reviewer") from None


# Rules


def rules(
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs, with every threshold.")] = False,
) -> None:
    """List the rules with their class, what they do under the settings at hand, and their thresholds.

    `on` excludes what it flags from valid figures and billing; `observe` only tells; `off` does not look. Modes are
    settings: `click_too_soon = "on"` in the section rules.invalid.modes; thresholds stand in rules.invalid. A change
    holds from the next tick of the workers that start with it, and changes nothing that was counted before.
    """
    settings = load_settings()
    invalid = settings.parsed_rules().invalid
    if as_json:
        print_json([_rule_document(rule, invalid) for rule in Rule])
        return
    table, usual = plain_table("rule", "class", "mode", "looks for"), InvalidRules()
    for rule in Rule:
        mode = invalid.mode(rule)
        told = mode.value if mode is usual.mode(rule) else f"{mode.value} (default {usual.mode(rule).value})"
        cells = (rule.value, class_of(rule).value, told, rule_text(rule, invalid))
        table.add_row(*map(Text, cells), style=_MODE_STYLES[mode])
    has_networks = settings.invalid.data_centres is not None or bool(invalid.lists.networks)
    missing = "" if has_networks else "\ndata_centre finds nothing: no list is set (invalid.data_centres)."
    how = "on: excludes. observe: only tells. Switch in [rules.invalid.modes]; thresholds: [rules.invalid]."
    table.caption = f"{how}{missing}"
    out().print(table)


def _rule_document(rule: Rule, invalid: InvalidRules) -> dict[str, object]:
    thresholds = {name: msgspec.to_builtins(getattr(invalid, name)) for name in thresholds_of(rule)}
    return {
        "rule": rule.value,
        "name": DESCRIPTIONS[rule].name,
        "class": class_of(rule).value,
        "mode": invalid.mode(rule).value,
        "default_mode": InvalidRules().mode(rule).value,
        "thresholds": thresholds,
        "text": rule_text(rule, invalid),
    }


app.command("explain", help=prose(explain.__doc__), epilog=prose(EPILOG))(explain)
app.command("list", help=prose(show_all.__doc__))(show_all)
app.command("overturn", help=prose(overturn.__doc__), epilog=prose(EPILOG))(overturn)
app.command("confirm", help=prose(confirm.__doc__), epilog=prose(EPILOG))(confirm)
app.command("rules", help=prose(rules.__doc__))(rules)
