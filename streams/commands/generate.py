"""`campaign-streams generate`: realistic traffic, paced by the clock or as history, into topics or files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from streams.commands.options import duration_ms, length_text, out, print_json, run, time_ms, time_text
from streams.errors import ConfigurationError
from streams.settings import load_settings

if TYPE_CHECKING:
    from streams.jobs.generate import GeneratorReport

DEFAULT_LENGTH: Final = "1d"
EPILOG: Final = """
Examples:

  campaign-streams generate --rate 500
  campaign-streams generate --rate 20000 --duration 10m --campaigns 1000 --no-cycle
  campaign-streams generate --history --from 2026-11-02 --length 7d --rate 50 --seed 3
  campaign-streams generate --history --length 1h --to-file traffic/
  campaign-streams generate --attack all --oddity all --truth truth.ndjson
  campaign-streams generate --history --length 6h --attack click_farm=0.03 --attack crawler --to-file traffic/

An attack's share is of all clicks. Attacks: crawler, data_centre, click_farm, flooding, injection, replay, botnet,
double_click. Oddities of honest traffic: office, carrier (on unless told otherwise), prefetch, viral_burst,
flash_sale, one_tap, late_conversion.
"""

_TRAFFIC: Final = "Traffic"
_HISTORY: Final = "History and files"
_INVALID: Final = "Invalid traffic"


def generate(
    rate: Annotated[float, typer.Option(min=0.001, max=1e7, help="Events of all inputs per second, in the mean.")] = (
        2_000.0
    ),
    seed: Annotated[int, typer.Option(help="The same seed, start and options give the same events.")] = 0,
    duration: Annotated[
        str | None, typer.Option(help="End after this long (60s, 5m, 2h). Without: until Ctrl-C.")
    ] = None,
    campaigns: Annotated[
        int, typer.Option(min=1, max=100_000, help="Campaigns; Zipf-distributed.", rich_help_panel=_TRAFFIC)
    ] = 20,
    users: Annotated[
        int, typer.Option(min=1, max=100_000_000, help="Users; Zipf-distributed.", rich_help_panel=_TRAFFIC)
    ] = 50_000,
    ctr: Annotated[float, typer.Option(min=0, max=0.2, help="Clicks per impression.", rich_help_panel=_TRAFFIC)] = 0.03,
    cvr: Annotated[float, typer.Option(min=0, max=0.5, help="Conversions per click.", rich_help_panel=_TRAFFIC)] = 0.04,
    cycle: Annotated[
        bool,
        typer.Option("--cycle/--no-cycle", help="Daily and weekly cycle, or a flat rate.", rich_help_panel=_TRAFFIC),
    ] = True,
    time_zone: Annotated[
        str, typer.Option(help="IANA time zone of the cycle and of most campaigns.", rich_help_panel=_TRAFFIC)
    ] = "Asia/Shanghai",
    live_share: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of the first campaign while its live shop is on.", rich_help_panel=_TRAFFIC
        ),
    ] = 0.5,
    refund_share: Annotated[float, typer.Option(min=0, max=1, help="Of paid orders.", rich_help_panel=_TRAFFIC)] = 0.08,
    duplicate_share: Annotated[
        float, typer.Option(min=0, max=1, help="Events delivered twice.", rich_help_panel=_TRAFFIC)
    ] = 0.005,
    out_of_order_share: Annotated[
        float, typer.Option(min=0, max=1, help="Events delivered late, by up to 20 s.", rich_help_panel=_TRAFFIC)
    ] = 0.01,
    compress: Annotated[
        float,
        typer.Option(
            min=0.00001,
            max=1,
            help="Scales delays of conversions: with 0.001 an hour is 3.6 s.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = 1.0,
    history: Annotated[
        bool,
        typer.Option("--history", help="As fast as possible, with event times of the past.", rich_help_panel=_HISTORY),
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="TIME", help="First event time; without: 2026-11-02 00:00 UTC.", rich_help_panel=_HISTORY
        ),
    ] = None,
    length: Annotated[
        str | None, typer.Option(help="Event time covered: 1h, 1d, 2w.  [default: 1d]", rich_help_panel=_HISTORY)
    ] = None,
    to_file: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --history: write DIR/<input>.ndjson and DIR/campaigns.yaml; needs no broker.",
            rich_help_panel=_HISTORY,
        ),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=SHARE]", help="Mix in an attacker, or all; repeat.", rich_help_panel=_INVALID),
    ] = None,
    oddity: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=SHARE]", help="Honest traffic that looks strange, or all; repeat.", rich_help_panel=_INVALID
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write who made what (NDJSON: event_id, input, attack).", rich_help_panel=_INVALID
        ),
    ] = None,
    data_centres: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the list of the data centres (CIDR) of this traffic's world.",
            rich_help_panel=_INVALID,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was generated as JSON.")] = False,
) -> None:
    """Generate realistic traffic, live or as history.

    Impressions, plays, clicks, conversions with a long-tailed delay, refunds, engagements; a daily and weekly cycle,
    a live-shop evening with half the traffic on one campaign, CTR and CVR of each creative's own, out-of-order and
    duplicate deliveries. With --attack also what is not honest; who made what is written aside, with --truth, and
    never into the events. The campaigns' settings are published first, where they have changed.

    Live (the default) event times advance with the clock, at --rate, until --duration or Ctrl-C. With --history the
    events of --length from --from on are published as fast as the broker takes them, each with its event time as the
    record's own timestamp.
    """
    from streams.commands.generating import mixture, to_files, to_topics, write_data_centres
    from streams.jobs.generate import traffic_profile

    _check(history, start, length, duration, to_file)
    profile = traffic_profile(
        rate=rate,
        campaigns=campaigns,
        users=users,
        ctr=ctr,
        cvr=cvr,
        cycle=cycle,
        time_zone=time_zone,
        live_share=live_share,
        refund_share=refund_share,
        duplicate_share=duplicate_share,
        out_of_order_share=out_of_order_share,
        compress=compress,
        **mixture(attack, oddity),
        start_ms=None if start is None else time_ms("--from", start),
        duration_ms=_duration(history, duration, length),
    )
    if data_centres:
        write_data_centres(profile, data_centres)
    if to_file:
        report = to_files(profile, seed, to_file, truth)
    else:
        report = run(to_topics(profile, seed, history, load_settings().kafka, truth))
    if as_json:
        print_json(_document(report, seed))
    else:
        _show(report, seed, out())


def _check(history: bool, start: str | None, length: str | None, duration: str | None, to_file: Path | None) -> None:
    if not history and (start or length or to_file):
        raise ConfigurationError("--from, --length and --to-file go with --history; add it, or leave them out")
    if history and duration:
        raise ConfigurationError("--duration is for live traffic; with --history give --length, for example 1d")


def _duration(history: bool, duration: str | None, length: str | None) -> int | None:
    if history:
        return duration_ms("--length", length or DEFAULT_LENGTH)
    return None if duration is None else duration_ms("--duration", duration)


def _show(report: "GeneratorReport", seed: int, console: Console) -> None:
    from streams.commands.generating import FAR_BEHIND_MS

    console.print(
        f"{report.delivered:,} events ({report.duplicates:,} of them duplicates), "
        f"seed {seed}, from {time_text(report.start_ms)} UTC"
    )
    listed = ", ".join(f"{source.value} {count:,}" for source, count in report.events.items() if count)
    if listed:
        console.print(listed)
    if report.attacks:
        attacks = ", ".join(f"{name} {count:,}" for name, count in sorted(report.attacks.items()))
        console.print(f"of them by attackers: {attacks}")
    if report.behind_ms > FAR_BEHIND_MS:
        console.print(
            f"at the end {length_text(report.behind_ms)} behind the clock: the rate is more than is taken here"
        )
    if report.cut:
        console.print(f"{report.cut:,} later events were given up: too many were waiting")


def _document(report: "GeneratorReport", seed: int) -> dict[str, object]:
    return {
        "seed": seed,
        "start_ms": report.start_ms,
        "delivered": report.delivered,
        "duplicates": report.duplicates,
        "events": {source.value: count for source, count in report.events.items()},
        "attacks": report.attacks,
        "behind_ms": report.behind_ms,
        "cut": report.cut,
    }
