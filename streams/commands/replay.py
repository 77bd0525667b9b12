"""`campaign-streams replay`: history again, beside the live rows."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple, NoReturn

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from streams.commands.options import notes, out, print_json, run, time_ms, time_text
from streams.commands.publishing import EVEN_SO, put_in_place
from streams.commands.replay_change import change_of, differences
from streams.commands.run_reports import ReportOption, documents, show_differences, write_reports
from streams.errors import CampaignStreamsError, ConfigurationError
from streams.settings import Settings, load_settings

if TYPE_CHECKING:
    from streams.adapters.clickhouse_runs import ClickHouseRuns, RunInfo
    from streams.jobs.replay import Summary
    from streams.jobs.replay_hold import Hold
    from streams.jobs.replay_partition import Range
    from streams.jobs.replay_plan import Outlook, ReplayPlan
    from streams.jobs.replay_progress import ReplayFolder
    from streams.jobs.replay_what_if import Change

EPILOG: Final = """
Examples:

  campaign-streams replay --from 2026-11-26T20:00+08:00 --to 2026-11-26T22:00+08:00 --compare live

  campaign-streams runs list
"""
MINUTE_MS: Final = 60_000
NOT_ASKED: Final = -1
"""In the place of a time that is not given."""
MAX_NOTE: Final = 500
"""Characters of an error that a run's note keeps."""
STOPPED: Final = 130
"""Exit code after Ctrl-C or SIGTERM: 128 + SIGINT."""


def replay(
    from_time: Annotated[str | None, typer.Option("--from", help="Begin of the range, event time: ISO 8601.")] = None,
    to_time: Annotated[str | None, typer.Option("--to", help="End of the range; or now.")] = None,
    run_name: Annotated[str | None, typer.Option("--run", help="Name of the run.")] = None,
    campaign: Annotated[
        list[str] | None, typer.Option(help="Narrows the comparison to this campaign (the run counts all); repeat it.")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="Other rules: a TOML file whose table \\[rules] says what is to be different.")
    ] = None,
    campaign_settings: Annotated[
        Path | None, typer.Option("--settings", help="Other campaign settings, as `campaigns put` takes them.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Processes that share the partitions.")] = 1,
    compare: Annotated[str | None, typer.Option(help="live, or another run: shows the differences.")] = None,
    report: ReportOption = None,
    publish_it: Annotated[
        bool,
        typer.Option(
            "--publish", help="Publishes the finished run (figures and flags), after showing the difference and asking."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Does not ask before --publish.")] = False,
    even_so: Annotated[bool, typer.Option("--even-so", help=EVEN_SO)] = False,
    resume: Annotated[str | None, typer.Option(help="Goes on with a run that was interrupted.")] = None,
    archive: Annotated[
        list[Path] | None, typer.Option(help="Reads this archive instead of the topics; repeat it.")
    ] = None,
    with_topics: Annotated[
        bool, typer.Option("--with-topics", help="Reads on in the topics where the archive ends.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Only says what would be read.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
) -> None:
    """Replay history along its journal into rows of a run's own.

    The range is in event time, by effect pane, rounded to whole minutes. Alerts, controls and webhooks are computed,
    and not sent; the live group and its offsets are not touched. Ctrl-C (or SIGTERM) leaves a run `interrupted`, and
    `--resume` goes on with it; one command at a time works on a run.

    Memory: each process holds the state of the partition that it replays (of all of its partitions, where rules or
    settings are changed) and at most 300,000 rows of about 1 KB; the command itself holds 100,000.
    """
    from streams.adapters.clickhouse_runs import ClickHouseRuns
    from streams.jobs.replay import info_of
    from streams.jobs.replay_compare import check_other
    from streams.jobs.replay_hold import locked
    from streams.jobs.replay_publishing import check_campaigns, check_frozen
    from streams.jobs.report_files import check_paths

    settings = load_settings()
    check_paths(report or ())
    compare = compare or ("live" if report else None)
    wanted = _wanted(from_time, to_time) if resume is None else _span(from_time, to_time)
    if resume is not None and run_name not in (None, resume):
        raise ConfigurationError(f"--run: a run that is resumed keeps its name, {resume}; leave --run out")
    plan = _plan(wanted, resume or run_name, processes, resume is not None, tuple(campaign or ()))
    plan = plan._replace(archives=tuple(archive or ()), with_topics=with_topics)
    change = change_of(settings, rules, campaign_settings)
    if rules is not None and change is not None:
        _say_what_differs(settings, change)
    if dry_run and resume is None:  # needs no ClickHouse
        _say_what(plan, _look(settings, plan, change))
        return
    told = Telling(compare, as_json, tuple(report or ()))
    with contextlib.nullcontext() if dry_run else locked(settings.worker.state_dir, plan.run):
        runs = ClickHouseRuns(settings.clickhouse)
        runs.open()
        try:
            plan, change, known = _settled(settings, plan, change, runs, resume)
            if dry_run:
                _say_what(plan, _look(settings, plan, change))
                return
            if compare is not None:
                check_other(runs, compare, plan.wanted.from_ms // 1000, plan.wanted.to_ms // 1000)
            check_campaigns(runs, plan.campaigns, {each.campaign_id for each in change.settings} if change else set())
            if publish_it:
                check_frozen(runs, info_of(plan, "", "done", 0))
            _look(settings, plan, change)  # whatever speaks against it is told before anything is left behind
            summary = _replay(settings, plan, runs, change, known)
            _report(plan, summary, runs, told)
            if publish_it:
                put_in_place(runs, runs.find(plan.run), yes, even_so, is_shown=not as_json)
        finally:
            runs.close()


class Telling(NamedTuple):
    """How a replay's end is told."""

    other: str | None
    """The side that it is compared with; None: none."""
    as_json: bool
    paths: tuple[Path, ...]
    """Of reports."""


def _settled(
    settings: Settings, plan: "ReplayPlan", change: "Change | None", runs: "ClickHouseRuns", resume: str | None
) -> "tuple[ReplayPlan, Change | None, RunInfo | None]":
    """What is to be done, and what is known of the run; None: it begins.

    Raises:
        ConfigurationError: its name is taken, or it cannot be resumed.
    """
    from streams.jobs.replay_hold import check_free

    if resume is not None:
        known = runs.find(resume)
        check_free(known, settings.worker.state_dir, time.time_ns() // 1_000_000)
        plan, change = _taken_up(settings, plan, known, change)
        return plan, change, known
    if plan.run in {known.run for known in runs.runs()}:
        raise ConfigurationError(f"--run: {plan.run} is there already; drop it, resume it, or choose another name")
    if runs.published(plan.run) is not None:
        raise ConfigurationError(
            f"--run: an earlier run {plan.run} was dropped and is still published, so readers would see this one at "
            f"once; `runs withdraw {plan.run}` takes it back, or choose another name"
        )
    return plan, change, None


def _wanted(from_time: str | None, to_time: str | None) -> "Range":
    if from_time is None or to_time is None:
        raise ConfigurationError("--from and --to: both are needed, unless a run is resumed")
    wanted = _span(from_time, to_time)
    if wanted.from_ms >= wanted.to_ms:
        raise ConfigurationError("--from: must lie before --to")
    return wanted


def _span(from_time: str | None, to_time: str | None) -> "Range":
    """In whole minutes; `NOT_ASKED` where nothing is said."""
    from streams.jobs.replay_partition import Range

    begin = NOT_ASKED if from_time is None else time_ms("--from", from_time) // MINUTE_MS * MINUTE_MS
    return Range(begin, NOT_ASKED if to_time is None else -(-time_ms("--to", to_time) // MINUTE_MS) * MINUTE_MS)


def _plan(
    wanted: "Range", name: str | None, processes: int, is_resumed: bool, campaigns: tuple[str, ...]
) -> "ReplayPlan":
    from streams.jobs.replay_plan import ReplayPlan
    from streams.jobs.replay_progress import NAME

    chosen = name or time.strftime("run-%Y%m%d-%H%M%S", time.gmtime())
    if not NAME.fullmatch(chosen):
        raise ConfigurationError(f"--run: {chosen!r} is no name; use letters, digits, dots, dashes, at most 64")
    return ReplayPlan(chosen, wanted, processes, is_resumed, campaigns)


def _taken_up(
    settings: Settings, plan: "ReplayPlan", known: "RunInfo", asked: "Change | None"
) -> "tuple[ReplayPlan, Change | None]":
    """The plan of a run that goes on, and what is different in it: as it was begun."""
    from streams.adapters.clickhouse_runs import WHAT_IF
    from streams.jobs.replay_partition import Range
    from streams.jobs.replay_progress import ReplayFolder

    name = known.run
    if known.state == "done":
        also = " and published" if known.is_published else ""
        raise ConfigurationError(
            f"--resume: run {name} is finished{also}; `runs show {name}` shows it; to replay its range again, begin "
            "another run (--run)"
        )
    begun = ReplayFolder(settings.worker.state_dir, name).begun(known.created_s)
    if known.kind == WHAT_IF and begun is None:
        raise ConfigurationError(
            f"--resume: {settings.worker.state_dir} does not hold what run {name} was asked for; resume it "
            "where it was begun, or begin another run"
        )
    wanted = Range(known.from_s * 1000, known.to_s * 1000)
    own = plan._replace(wanted=wanted, campaigns=known.campaigns, resume=begun is not None)
    if begun is not None:
        own = own._replace(archives=tuple(map(Path, begun.archives)), with_topics=begun.with_topics)
    _refuse_others(plan, own)
    change = begun.change if begun else None
    if asked is not None and asked != change:
        raise ConfigurationError(
            f"--resume: run {name} was begun with other rules or settings; leave --rules and --settings out, for it "
            "knows its own, or begin another run"
        )
    return own, change


def _refuse_others(asked: "ReplayPlan", own: "ReplayPlan") -> None:
    """A run that goes on keeps to what it was begun with. How many processes share it may change.

    Raises:
        ConfigurationError: something else is asked for.
    """
    others = {
        "--from": asked.wanted.from_ms not in (NOT_ASKED, own.wanted.from_ms),
        "--to": asked.wanted.to_ms not in (NOT_ASKED, own.wanted.to_ms),
        "--campaign": bool(asked.campaigns) and set(asked.campaigns) != set(own.campaigns),
        "--archive": bool(asked.archives) and asked.archive_paths != own.archive_paths,
        "--with-topics": asked.with_topics and not own.with_topics,
    }
    if named := [name for name, is_other in others.items() if is_other]:
        raise ConfigurationError(
            f"--resume: run {own.run} was begun with another {', '.join(named)}; leave that out, for the run knows "
            "its own, or begin another run"
        )


def _say_what_differs(settings: Settings, change: "Change") -> None:
    """Before a what-if: by which rules it goes that are not the settings' own."""
    from streams.adapters.lists import with_lists

    found = differences(with_lists(settings.parsed_rules(), settings), change.rules)
    notes().print(f"rules that differ from the settings: {len(found) or 'none'}", markup=False)
    for line in found:
        notes().print(f"  {line}", markup=False, soft_wrap=True)


def _look(settings: Settings, plan: "ReplayPlan", change: "Change | None") -> "list[Outlook]":
    """What would be read, by partition."""
    from streams.jobs.replay import look
    from streams.jobs.replay_steps import look_changed

    return run(look(settings, plan) if change is None else look_changed(settings, plan, change))


def _say_what(plan: "ReplayPlan", outlooks: "list[Outlook]") -> None:
    from streams.commands.replay_words import began_at

    span = f"{time_text(plan.wanted.from_ms)} to {time_text(plan.wanted.to_ms)} UTC"
    total = sum(each.records for each in outlooks)
    less = ", less what the run has kept" if plan.resume else ""
    out().print(f"{span}: {total:,} records of {len(outlooks)} partitions would be read{less}", soft_wrap=True)
    for line in began_at([each.start for each in outlooks], plan.wanted.from_ms):
        out().print(line, soft_wrap=True)


def _replay(
    settings: Settings, plan: "ReplayPlan", runs: "ClickHouseRuns", change: "Change | None", known: "RunInfo | None"
) -> "Summary":
    """Replays under the run's lock. `known`: what is known of the run; None: it begins."""
    from streams.adapters.clickhouse_runs import IDENTICAL, WHAT_IF
    from streams.jobs import replay as job
    from streams.jobs.replay_hold import INTERRUPTED, RUNNING, Hold, RunTaken, holder_of
    from streams.jobs.replay_progress import Asked, ReplayFolder

    created_ms = known.created_s * 1000 if known else time.time_ns() // 1_000_000
    folder = ReplayFolder(settings.worker.state_dir, plan.run)
    kind = IDENTICAL if change is None else WHAT_IF
    info = job.info_of(plan, kind, RUNNING, created_ms)._replace(holder=holder_of(settings.worker.state_dir))
    hold = Hold(runs, info)
    hold.begin(known)
    if not plan.resume:
        folder.begin(created_ms // 1000, Asked(change, plan.archive_paths, plan.with_topics))

    def end(state: str, note: str = "") -> None:
        with contextlib.suppress(CampaignStreamsError):  # it may be ClickHouse that does not answer
            runs.tell(info._replace(state=state, note=note[:MAX_NOTE], changed_ms=time.time_ns() // 1_000_000))

    try:
        summary = _driven(settings, plan, runs, change, hold)
    except KeyboardInterrupt:
        end(INTERRUPTED)
        notes().print(f"stopped; campaign-streams replay --resume {plan.run} goes on")
        raise typer.Exit(STOPPED) from None
    except RunTaken:
        raise
    except Exception as error:
        end("failed", str(error))
        raise
    if not summary.rows and not runs.has_rows(plan.run):
        _forget(plan, runs, folder, summary)
    runs.tell(job.info_of(plan, kind, "done", created_ms, summary)._replace(holder=info.holder))
    return summary


def _driven(
    settings: Settings, plan: "ReplayPlan", runs: "ClickHouseRuns", change: "Change | None", hold: "Hold"
) -> "Summary":
    """Replays, with a bar that tells how far it is; SIGTERM is as Ctrl-C."""
    from streams.jobs import replay as job
    from streams.jobs.replay_steps import replay_changed

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"))
    with _stoppable(), Progress(*columns, TimeRemainingColumn(), console=notes()) as bar:
        task = bar.add_task("replay", total=None, rate="")

        def tell(progress: job.Progress) -> None:
            hold.beat()
            rate = f"{progress.events_per_s:,.0f} events/s"
            bar.update(task, completed=progress.events, total=progress.total, rate=rate)

        if change is None:
            return run(job.replay(settings, plan, runs, tell))
        return run(replay_changed(settings, plan, change, runs, tell))


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does: what is told of the run then is the same.

    Also where Ctrl-C is ignored, as it is for what a script begins in the background (`campaign-streams replay … &`).
    """

    def end(*_: object) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _forget(plan: "ReplayPlan", runs: "ClickHouseRuns", folder: "ReplayFolder", summary: "Summary") -> NoReturn:
    """A run without any row says nothing: it is taken away again."""
    runs.drop(runs.find(plan.run), time.time_ns() // 1_000_000)
    folder.remove()
    span = f"{time_text(plan.wanted.from_ms)} to {time_text(plan.wanted.to_ms)} UTC"
    lost = f", and retention has removed {summary.lost:,} before they could be read" if summary.lost else ""
    raise ConfigurationError(
        f"no row is of {span}: nothing happened then ({summary.events:,} records were read{lost}); give a range in "
        "which there were events"
    )


def _report(plan: "ReplayPlan", summary: "Summary", runs: "ClickHouseRuns", told: Telling) -> None:
    from streams.jobs.replay_compare import compare
    from streams.jobs.replay_kept import forgotten
    from streams.jobs.replay_report import rules_of

    info, other = runs.find(plan.run), told.other
    differences = compare(runs, info, other) if other else []
    remarks = forgotten(runs, info, other) if other else []
    rate = summary.events_per_s
    if told.as_json:
        starts = [start._asdict() for start in summary.starts]
        document = {"run": plan.run, **summary._asdict(), "events_per_s": rate, "starts": starts}
        print_json({**document, "remarks": remarks, "campaigns": documents(differences)})
    else:
        _tell(plan, summary, rate)
        if other:
            show_differences(differences, other, rules_of(runs, info, other)[1], info.campaigns, remarks)
    if other:
        write_reports(runs, info, other, differences, told.paths)


def _tell(plan: "ReplayPlan", summary: "Summary", rate: float) -> None:
    from streams.commands.replay_words import read_back

    told = (
        f"run {plan.run}: {summary.events:,} records in {summary.seconds:.1f} s ({rate:,.0f}/s), {summary.rows:,} rows"
    )
    out().print(told, soft_wrap=True)
    for line in read_back(summary, plan.wanted.from_ms):
        out().print(line, soft_wrap=True)
