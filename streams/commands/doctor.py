"""`campaign-streams doctor`: is everything that a worker needs there, and as it must be?"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.commands.options import out, print_json, run
from streams.errors import CampaignStreamsError
from streams.settings import LOOPBACK, Settings, load_settings
from streams.topics import EVIDENCE, READ_TOPICS, VERDICTS, partition_of

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from streams.adapters.clickhouse_dsn import Target
    from streams.adapters.kafka_admin import Cluster, Finding
    from streams.adapters.kafka_fetch import Record

CHECK_TIMEOUT_S: Final = 30.0
ASK_TIMEOUT_S: Final = 10.0
SAMPLE_RECORDS: Final = 200
"""Records looked at near the end of each partition."""
PLACED: Final = frozenset({EVIDENCE, VERDICTS})
"""Topics in which workers put records without a key where they belong; reviews among the verdicts have one."""
OLD_LIST_DAYS: Final = 90
"""A list of data centres is old after a quarter: networks change hands, and new ones are missing."""
SAMPLED_PARTITIONS: Final = 16
"""Partitions looked at of each topic, spread over all."""
CLOCK_SKEW_LIMIT_MS: Final = 1_000
EXIT_CODE: Final = {"ok": 0, "warning": 1, "error": 2}
STYLE: Final = {"ok": "green", "warning": "yellow", "error": "bold red"}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> None:
    """Check everything that a worker needs; each finding comes with its remedy.

    Settings, broker, topics, partition counts, the partitioner (do records stand in the partition that their key
    leads to?), ClickHouse and its schema version, the clocks, the list of data centres and its age, and the worker, if
    one runs here.

    Exit code 0: all is well; 1: warnings; 2: errors. Nothing is changed, but for one empty record in ads.manifests
    with which the broker's clock is read. It ends within a minute, whatever is unreachable.
    """
    findings = examine()
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        _show(findings, out())
    raise typer.Exit(max(EXIT_CODE[finding.severity] for finding in findings))


def examine() -> "list[Finding]":
    """All findings. Raises nothing that is an operating error."""
    try:
        settings = load_settings()
    except CampaignStreamsError as error:
        return [finding_of("settings", error)]
    return run(_examine(settings))


async def _examine(settings: Settings) -> "list[Finding]":
    found = await asyncio.gather(
        _bounded("broker", lambda: _kafka(settings)),
        _bounded("clickhouse", lambda: asyncio.to_thread(_clickhouse, settings)),
        _bounded("data_centres", lambda: asyncio.to_thread(_data_centres, settings)),
        _bounded("worker", lambda: asyncio.to_thread(_worker, settings)),
        _bounded("console", lambda: asyncio.to_thread(_console, settings)),
    )
    return [finding for findings in found for finding in findings]


def finding_of(check: str, error: CampaignStreamsError) -> "Finding":
    """An operating error as a finding: its message ends with the remedy."""
    from streams.adapters.kafka_admin import Finding

    what, _, remedy = str(error).rpartition("; ")
    return Finding(check, "error", what or remedy, remedy if what else None)


async def _bounded(check: str, look: "Callable[[], Awaitable[list[Finding]]]") -> "list[Finding]":
    from streams.adapters.kafka_admin import Finding

    try:
        return await asyncio.wait_for(look(), CHECK_TIMEOUT_S)
    except TimeoutError:
        detail = f"no result within {CHECK_TIMEOUT_S:.0f} s"
        return [Finding(check, "error", detail, "check the address and the network in between")]
    except CampaignStreamsError as error:
        return [finding_of(check, error)]


async def _kafka(settings: Settings) -> "list[Finding]":
    from streams.adapters.kafka_admin import check_kafka, describe_cluster

    found = await check_kafka(settings.kafka)
    if any(finding.check == "broker" and finding.severity == "error" for finding in found):
        return found
    return [*found, await _partitioner(settings, await describe_cluster(settings.kafka))]


async def _partitioner(settings: Settings, cluster: "Cluster") -> "Finding":
    present = [topic for topic in READ_TOPICS if topic in cluster.topics]
    samples: list[tuple[str, int, int, list[Record]]] = []
    for topic in present:
        samples += await _sample(settings, topic, cluster.topics[topic])
    return judge_partitioner(samples)


async def _sample(settings: Settings, topic: str, partitions: int) -> "list[tuple[str, int, int, list[Record]]]":
    """The newest records of some partitions: (topic, partition, partition count, records)."""
    from streams.adapters.kafka_fetch import OffsetOutOfRange, PartitionReader

    reader = PartitionReader(settings.kafka, topic)
    await reader.start()
    found = []
    try:
        for partition in range(0, partitions, -(-partitions // SAMPLED_PARTITIONS)):
            begin = await reader.beginning(partition)
            end = (await reader.fetch(partition, begin, max_bytes=1)).high_watermark
            try:
                records = (await reader.fetch(partition, max(begin, end - SAMPLE_RECORDS))).records
            except OffsetOutOfRange:  # retention has passed meanwhile
                continue
            found.append((topic, partition, partitions, records[-SAMPLE_RECORDS:]))
    finally:
        await reader.stop()
    return found


def judge_partitioner(samples: "Iterable[tuple[str, int, int, list[Record]]]") -> "Finding":
    """Whether records stand in the partition that their key leads to. Pure."""
    from streams.adapters.kafka_admin import Finding

    total, keyless, astray = 0, 0, dict[str, list[str]]()
    for topic, partition, partitions, records in samples:
        for record in records:
            if topic in PLACED and not record.key:
                continue
            total += 1
            key = _text(record.key)
            if not key:
                keyless += 1
            elif partition_of(key, partitions) != partition:
                where = f"key {key!r} stands in {partition}, leads to {partition_of(key, partitions)}"
                astray.setdefault(topic, []).append(where)
    if astray:
        counts = ", ".join(f"{topic} {len(found):,}" for topic, found in astray.items())
        example = next(iter(astray.values()))[0]
        detail = f"of {total:,} records sampled some stand in a wrong partition: {counts} ({example})"
        remedy = (
            "let producers key by campaign_id and partition by murmur2, Java's default "
            "(librdkafka: partitioner=murmur2_random)"
        )
        return Finding("partitioner", "error", detail, remedy)
    if keyless:
        detail = f"{keyless:,} of {total:,} records sampled have no key, or one that is no UTF-8"
        remedy = "let producers key by campaign_id (organic traffic: by shop or creator)"
        return Finding("partitioner", "warning", detail, remedy)
    if not total:
        return Finding("partitioner", "ok", "no records yet: nothing to judge by")
    return Finding("partitioner", "ok", f"{total:,} records sampled stand where their keys lead")


def _text(key: bytes | None) -> str:
    try:
        return (key or b"").decode()
    except UnicodeDecodeError:
        return ""


def _clickhouse(settings: Settings) -> "list[Finding]":
    from streams.adapters.clickhouse import connect
    from streams.adapters.clickhouse_dsn import ChdbTarget, parse_dsn
    from streams.adapters.clickhouse_errors import is_operating, mapped
    from streams.adapters.kafka_admin import Finding
    from streams.commands.worker_api import is_running, worker_of_settings

    try:
        target = parse_dsn(settings.clickhouse.dsn.get_secret_value())
        if isinstance(target, ChdbTarget):
            if not target.directory.is_dir():  # opening it would make it
                detail = f"there is no embedded ClickHouse at {target.directory} yet"
                return [Finding("clickhouse", "warning", detail, "start a worker, which makes it; or mend the DSN")]
            worker = worker_of_settings(settings)
            if is_running(worker):
                return [Finding("clickhouse", "ok", f"{target} is held by the worker at {worker}, which migrated it")]
        client = connect(settings.clickhouse.model_copy(update={"timeout_s": ASK_TIMEOUT_S}), create_database=False)
    except CampaignStreamsError as error:
        return [finding_of("clickhouse", error)]
    try:
        return _schema_findings(client, target)
    except CampaignStreamsError as error:
        return [finding_of("schema", error)]
    except Exception as error:
        if not is_operating(error):
            raise
        return [finding_of("clickhouse", mapped(error, target, "asking ClickHouse"))]
    finally:
        client.close()


def _schema_findings(client: "Client", target: "Target") -> "list[Finding]":
    from streams.adapters.clickhouse_dsn import ChdbTarget
    from streams.adapters.clickhouse_migrations import schema_state
    from streams.adapters.kafka_admin import Finding

    state = schema_state(client)
    before_ms = time.time() * 1000
    theirs_ms = int(str(client.command("SELECT toUnixTimestamp64Milli(now64(3))")))
    skew_ms = round(theirs_ms - (before_ms + time.time() * 1000) / 2)
    version = client.command("SELECT version()")
    found = [Finding("clickhouse", "ok", f"{target} answers, version {version}")]
    if state.is_current:
        found.append(Finding("schema", "ok", f"version {state.applied}"))
    else:
        detail = f"version {state.applied} of {state.known}"
        found.append(Finding("schema", "warning", detail, "start a worker of this version: it migrates the schema"))
    return [*found, _clock(skew_ms)] if not isinstance(target, ChdbTarget) else found


def _clock(skew_ms: int) -> "Finding":
    from streams.adapters.kafka_admin import Finding

    detail = f"ClickHouse's clock is {skew_ms:+d} ms from ours"
    if abs(skew_ms) > CLOCK_SKEW_LIMIT_MS:
        return Finding("clock", "warning", detail, "synchronise the clocks (NTP) of ClickHouse and of this machine")
    return Finding("clock", "ok", detail)


def _data_centres(settings: Settings) -> "list[Finding]":
    """The list that the rule `data_centre` looks up: whether there is one that can be read, and how old it is."""
    from streams.adapters.kafka_admin import Finding
    from streams.adapters.lists import read_networks
    from streams.invalid import Mode, Rule

    path, rules = settings.invalid.data_centres, settings.parsed_rules().invalid
    if rules.mode(Rule.DATA_CENTRE) is Mode.OFF:
        return [Finding("data_centres", "ok", "the rule data_centre is off: no list is looked up")]
    if path is not None:
        found = read_networks(path, settings.invalid.data_centres_as_of)
        detail = f"{path} names {found.entries:,} networks"
        return [judge_list(detail, found.as_of, found.entries, found.too_small, datetime.now(UTC).date())]
    if rules.lists.networks:
        return [judge_list("the rules name networks", rules.lists.networks_as_of, 1, 0, datetime.now(UTC).date())]
    detail = "no list of data centres is configured: the rule data_centre finds nothing, and their clicks are billed"
    remedy = (
        "name a file with one CIDR a line in invalid.data_centres (README: Invalid traffic), or set the rule to off"
    )
    return [Finding("data_centres", "warning", detail, remedy)]


def judge_list(detail: str, as_of: str, entries: int, too_small: int, today: date) -> "Finding":
    """What to say of a list with this date (ISO 8601). Pure."""
    from streams.adapters.kafka_admin import Finding

    try:
        age_days = (today - date.fromisoformat(as_of)).days
    except ValueError:
        remedy = "date it: the comment `# as of YYYY-MM-DD`, or invalid.data_centres_as_of"
        return Finding("data_centres", "warning", f"{detail}, of no known date", remedy)
    detail += f", as of {as_of}"
    if age_days < 0:
        return Finding("data_centres", "warning", f"{detail}, which is yet to come", "mend its date")
    if age_days > OLD_LIST_DAYS:
        remedy = "get its present edition and restart the workers: addresses change hands, and people's may be on it"
        return Finding("data_centres", "warning", f"{detail}: {age_days} days old", remedy)
    if too_small * 2 > entries:
        remedy = "give wider networks: events carry /24 (IPv4) and /48 (IPv6)"
        return Finding("data_centres", "warning", f"{detail}; {too_small:,} are too small to be found", remedy)
    return Finding("data_centres", "ok", f"{detail}: {age_days} days old")


def _worker(settings: Settings) -> "list[Finding]":
    """No worker here is no fault: it may run elsewhere, or not yet."""
    import msgspec

    from streams.adapters.kafka_admin import Finding
    from streams.commands.top import Health
    from streams.commands.worker_api import WorkerUnavailable, worker_of_settings

    worker = worker_of_settings(settings)
    try:
        health = msgspec.convert(worker.status(), Health)
    except WorkerUnavailable as error:
        return [Finding("worker", "ok", str(error).rpartition("; ")[0])]
    found = [Finding("worker", "ok", f"{worker} owns {len(health.partitions)} partitions, lag {health.lag_records:,}")]
    if not health.sink_up:
        remedy = "check that ClickHouse runs and that clickhouse.dsn names it; rows wait, and none is lost"
        found.append(Finding("worker", "warning", f"{health.dirty_rows:,} rows wait for ClickHouse", remedy))
    if health.recovering:
        listed = ", ".join(map(str, health.recovering))
        found.append(Finding("worker", "warning", f"recovers partitions {listed}", "wait; its log tells how far it is"))
    return found


def _console(settings: Settings) -> "list[Finding]":
    """Who is served: holders of tokens, or this machine only."""
    from streams.adapters.kafka_admin import Finding
    from streams.console.tokens import TokenBook

    book = TokenBook(settings.console)
    if settings.console.is_closed:
        if book.count:
            return [Finding("console", "ok", f"a token is needed; {book.count} configured")]
        remedy = "add one: campaign-streams tokens new --scope operator"
        return [Finding("console", "warning", "nobody is let in: the file of tokens holds none", remedy)]
    detail = "no token is configured: whoever is on this machine is served, as operator, and nobody else"
    if settings.worker.web_host == LOOPBACK:
        return [Finding("console", "ok", detail)]
    remedy = "make a token (campaign-streams tokens new), and name its file in console.tokens_file"
    return [Finding("console", "warning", f"{detail}, though it is bound to {settings.worker.web_host}", remedy)]


def _show(findings: "list[Finding]", console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("check", "", "finding"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        text = Text(finding.detail)
        if finding.remedy:
            text.append(f"\n→ {finding.remedy}", style="bold")
        table.add_row(finding.check, Text(finding.severity, style=STYLE[finding.severity]), text)
    console.print(table)
