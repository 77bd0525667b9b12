"""How `generate` carries its traffic out: into the topics, live or as history, or into files."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

import msgspec
import yaml  # type: ignore[import-untyped]  # has no stubs of its own
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from streams.adapters.clock import SystemClock
from streams.adapters.kafka_admin import partitions_for_worker
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.campaigns import CampaignSettings
from streams.commands.campaigns import append, read_campaigns
from streams.commands.options import length_text, notes
from streams.errors import ConfigurationError
from streams.jobs.attacks import truth_line
from streams.jobs.generate import (
    GeneratedEvent,
    GeneratorReport,
    TrafficProfile,
    account_messages,
    generate,
    generate_accounts,
    generate_campaigns,
    generate_sessions,
    run_generator,
    traffic_profile,
)
from streams.jobs.load import load
from streams.jobs.traffic_networks import data_centre_networks
from streams.jobs.traffic_profile import USUAL_SHARES, Attack, Oddity
from streams.settings import KafkaSettings

FAR_BEHIND_MS: Final = 1_000
"""A generator that is so far behind the clock says so."""


def mixture(attacks: list[str] | None, oddities: list[str] | None) -> dict[str, dict[str, float]]:
    """The profile's `attacks` and `oddities` that repeated options `NAME[=SHARE]` ask for; all: every one.

    Raises:
        ConfigurationError: a name is unknown, or a share is none.
    """
    usual = {kind.value: share for kind, share in traffic_profile().oddities.items()}
    return {
        "attacks": _shares("--attack", attacks or [], Attack),
        "oddities": {**usual, **_shares("--oddity", oddities or [], Oddity)},
    }


def _shares(option: str, texts: list[str], kinds: type[Attack] | type[Oddity]) -> dict[str, float]:
    names = [kind.value for kind in kinds]
    found: dict[str, float] = {}
    for text in texts:
        name, _, given = text.partition("=")
        if name not in (*names, "all"):
            raise ConfigurationError(f"{option}: {name!r} is unknown; choose of {', '.join(names)}, or all")
        try:
            share = float(given) if given else None
        except ValueError:
            raise ConfigurationError(f"{option}: {given!r} is no share; write {name}=0.02 for two per cent") from None
        for chosen in names if name == "all" else [name]:
            found[chosen] = USUAL_SHARES[chosen] if share is None else share
    return found


def write_data_centres(profile: TrafficProfile, file: Path) -> None:
    """Writes the list that `data_centre` bots are found by, a network a line.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    lines = ["# data centres of generated traffic (networks that belong to nobody)", *data_centre_networks(profile)]
    try:
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--data-centres: {file}: {error.strerror}; give a file to write to") from None


@contextlib.contextmanager
def _truth_file(file: Path | None) -> Iterator[Callable[[GeneratedEvent], None]]:
    """What writes down the truth about an event; once for each, however often it is delivered."""
    if file is None:
        yield lambda _: None
        return
    try:
        opened = file.open("wb")
    except OSError as error:
        raise ConfigurationError(f"--truth: {file}: {error.strerror}; give a file to write to") from None
    with opened:
        yield lambda event: _write_truth(event, opened)


def _write_truth(event: GeneratedEvent, file: IO[bytes]) -> None:
    if event.attack and not event.duplicate:
        file.write(truth_line(event))


async def to_topics(
    profile: TrafficProfile, seed: int, is_history: bool, kafka: KafkaSettings, truth: Path | None = None
) -> GeneratorReport:
    """Publishes the campaigns that have changed, then the traffic, until its end, Ctrl-C or SIGTERM.

    Raises:
        ConfigurationError, BrokerUnavailable: the broker or its topics are not as they must be.
    """
    await partitions_for_worker(kafka)
    outbox = KafkaOutbox(kafka)
    await outbox.start()
    report = GeneratorReport(start_ms=profile.first_ms)
    try:
        changed = await _publish_campaigns(kafka, outbox, generate_campaigns(profile))
        notes().print(f"{profile.campaigns:,} campaigns, {changed:,} of them published to ads.campaigns", style="dim")
        with _stoppable() as stopping, _bar() as progress, _truth_file(truth) as told:
            shown = _Shown(progress)
            if is_history:
                events = _counted(generate(profile, seed), report, told, stopping)
                await load(events, outbox, progress=shown.history)
            else:
                clock, stop = SystemClock(), stopping.is_set
                now_ms = clock.now_ms()
                await outbox.publish(account_messages(generate_accounts(profile, now_ms)))
                sessions = generate_sessions(profile, now_ms)
                await run_generator(
                    *(profile, seed, outbox, clock),
                    stop=stop,
                    progress=shown.live,
                    report=report,
                    sessions=sessions,
                    sent=lambda batch: [told(event) for event in batch],
                )
    finally:
        await outbox.stop()
    return report


async def _publish_campaigns(kafka: KafkaSettings, outbox: KafkaOutbox, campaigns: list[CampaignSettings]) -> int:
    """Appends those whose latest version is another; returns how many."""
    known = {c.settings.campaign_id: c.settings for c in (await read_campaigns(kafka)).campaigns}
    changed = [c for c in campaigns if known.get(c.campaign_id) != c]
    await append(outbox, changed)
    return len(changed)


def _counted(
    events: Iterator[GeneratedEvent],
    report: GeneratorReport,
    told: Callable[[GeneratedEvent], None],
    stopping: asyncio.Event | None = None,
) -> Iterator[GeneratedEvent]:
    for event in events:
        if stopping is not None and stopping.is_set():
            return
        report.add(event)
        told(event)
        yield event


def to_files(profile: TrafficProfile, seed: int, directory: Path, truth: Path | None = None) -> GeneratorReport:
    """Writes DIR/<input>.ndjson, each in order of delivery, and DIR/campaigns.yaml. Files that are there are replaced.

    Where data centres attack, DIR/data-centres.txt is the list that they are found by.

    Raises:
        ConfigurationError: the directory cannot be written.
    """
    report = GeneratorReport(start_ms=profile.first_ms)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_campaigns(directory / "campaigns.yaml", generate_campaigns(profile))
        if profile.attacks.get(Attack.DATA_CENTRE):
            write_data_centres(profile, directory / "data-centres.txt")
        with contextlib.ExitStack() as stack, _truth_file(truth) as told:
            files: dict[str, IO[bytes]] = {}
            for event in _counted(generate(profile, seed), report, told):
                name = event.input.value
                if name not in files:
                    files[name] = stack.enter_context((directory / f"{name}.ndjson").open("wb"))
                files[name].write(event.value + b"\n")
    except OSError as error:
        raise ConfigurationError(f"--to-file: {directory}: {error.strerror}; give a directory to write to") from None
    return report


def _write_campaigns(file: Path, campaigns: list[CampaignSettings]) -> None:
    documents = [{k: v for k, v in msgspec.to_builtins(c).items() if v is not None} for c in campaigns]
    file.write_text(yaml.safe_dump({"campaigns": documents}, allow_unicode=True, sort_keys=False), encoding="utf-8")


@contextlib.contextmanager
def _stoppable() -> Iterator[asyncio.Event]:
    """Set by Ctrl-C or SIGTERM: what is under way is finished, and the report is printed."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    names = (signal.SIGINT, signal.SIGTERM)
    for name in names:
        loop.add_signal_handler(name, stop.set)
    try:
        yield stop
    finally:
        for name in names:
            loop.remove_signal_handler(name)


class _Shown:
    """The progress line."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None)

    def live(self, report: GeneratorReport) -> None:
        behind = f", {length_text(report.behind_ms)} behind" if report.behind_ms > FAR_BEHIND_MS else ""
        self._progress.update(self._task, description=f"{report.delivered:,} events{behind}; Ctrl-C ends")

    def history(self, published: int) -> None:
        self._progress.update(self._task, description=f"{published:,} events published; Ctrl-C ends")


def _bar() -> Progress:
    console = notes()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
