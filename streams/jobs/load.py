"""Log files into the input topics: rows become events, in event-time order, with their own times as the records'.

    files ─► rows ─► mapping ─► identity ─► check ─► order ─► publish
      readers.py    mapping.py  identity.py   the pipeline's own decoder

Everything before `load` is pure but for the files that it reads. A row that does not fit is counted and shown, and
stops nothing; whatever is yielded is valid for the pipeline, and is encoded without its nulls.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

import msgspec
import tenacity

from streams.errors import Unavailable
from streams.events import EVENT_TYPES, Event, Input, Reason, Rejected, Traffic
from streams.jobs.identity import Identity
from streams.jobs.mapping import Mapping
from streams.jobs.mapping_targets import Document
from streams.jobs.ordering import LoadedEvent, in_event_time_order
from streams.jobs.readers import BadRow, Row, read_rows
from streams.ports import Outbox, Outgoing
from streams.stages.decode import Decoder
from streams.topics import INPUT_TOPICS

MAX_EXAMPLES: Final = 20
BATCH_RECORDS: Final = 1_000
GIVE_UP_AFTER_S: Final = 120.0

Order = Literal["event_time", "file"]


class Publishable(Protocol):
    """What `load` publishes: loaded or generated events."""

    @property
    def input(self) -> Input: ...
    @property
    def event_time_ms(self) -> int: ...
    @property
    def key(self) -> str: ...
    @property
    def value(self) -> bytes: ...


class RowProblem(NamedTuple):
    """A row that became no event: where and why."""

    file: str
    line: int
    reason: str


@dataclass
class LoadReport:
    """What became of the rows: `rows` = rows with events + `without_event` + `misfits`. Filled while iterating."""

    rows: int = 0
    without_event: int = 0
    """Rows for which no `when` of the mapping held."""
    misfits: int = 0
    events: dict[Input, int] = field(default_factory=lambda: dict.fromkeys(Input, 0))
    examples: list[RowProblem] = field(default_factory=list)
    """The first `MAX_EXAMPLES` misfits."""
    first_ms: int | None = None
    last_ms: int | None = None

    @property
    def total_events(self) -> int:
        """Events of all inputs."""
        return sum(self.events.values())


def events_from_files(
    paths: Sequence[Path],
    mapping: Mapping,
    order: Order = "event_time",
    identity: Identity | None = None,
    report: LoadReport | None = None,
) -> Iterator[LoadedEvent]:
    """The events of the files, by event time across all of them (stable: files as given, then lines), or as they lie.

    Ordering holds at most `ordering.SORT_IN_MEMORY` events in memory; `order="file"` holds none.

    Raises:
        ConfigurationError: a file cannot be read or is another mapping's, or there are too many events to order.
    """
    counted = report if report is not None else LoadReport()
    events = _in_file_order(paths, mapping, identity or Identity(), counted)
    return in_event_time_order(events) if order == "event_time" else events


async def load(
    events: Iterable[Publishable],
    outbox: Outbox,
    *,
    batch_records: int = BATCH_RECORDS,
    progress: Callable[[int], object] | None = None,
    give_up_after_s: float = GIVE_UP_AFTER_S,
) -> int:
    """Publishes the events in order, in batches; returns how many. Records carry the event times as their own.

    `progress` is told the number of events published so far, after each batch. While the broker does not answer,
    a batch is tried again with back-off (duplicates are recognised by their ids).

    Raises:
        Unavailable: the broker did not answer for `give_up_after_s`.
        ConfigurationError: as `events_from_files`.
    """
    source = iter(events)
    published = 0
    # Reading, mapping and sorting happen beside the event loop, so that whatever else runs in it goes on.
    while batch := await asyncio.to_thread(_take, source, batch_records):
        await publish_patiently(outbox, [_record(event) for event in batch], give_up_after_s)
        published += len(batch)
        if progress is not None:
            progress(published)
    return published


async def publish_patiently(
    outbox: Outbox,
    messages: Sequence[Outgoing],
    give_up_after_s: float = GIVE_UP_AFTER_S,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Publishes, and waits out a broker that does not answer.

    Raises:
        Unavailable: it did not answer for `give_up_after_s`.
    """
    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(Unavailable),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=10),
        stop=tenacity.stop_after_delay(give_up_after_s),
        sleep=sleep,
        reraise=True,
    )
    await retrying(outbox.publish, messages)


def record_key(event: Event) -> str:
    """The record's key: the campaign, else shop or creator; else the event's own id, so that redeliveries meet."""
    return event.campaign_id or event.shop_id or event.creator_id or event.event_id


def compact_json(event: Event) -> bytes:
    """An event as JSON without the fields that are null or empty."""
    names = event.__struct_fields__
    values = msgspec.structs.astuple(event)
    return msgspec.json.encode({n: v for n, v in zip(names, values, strict=True) if v is not None and v != ()})


def rejection_beyond_types(event: Event) -> Rejected | None:
    """What the types cannot say, but the pipeline refuses: paid traffic without a campaign, money without currency."""
    if event.traffic is Traffic.PAID and event.campaign_id is None:
        return Rejected(Reason.PAID_WITHOUT_CAMPAIGN, "$.campaign_id")
    if event.currency is None and _has_money(event):
        return Rejected(Reason.MONEY_WITHOUT_CURRENCY, "$.currency")
    return None


def _has_money(event: Event) -> bool:
    amounts = ("clearing_price_millimicros", "value_micros", "cost_of_goods_micros", "discount_micros", "amount_micros")
    return any(getattr(event, name, None) for name in amounts)


def _in_file_order(
    paths: Sequence[Path], mapping: Mapping, identity: Identity, report: LoadReport
) -> Iterator[LoadedEvent]:
    decoders = {source: Decoder(source) for source in mapping.inputs}
    for path in paths:
        for row in read_rows(path, mapping.layout, mapping.check_columns):
            found = _events_of_row(row, path, mapping, identity, decoders)
            _count(report, path, found)
            if not isinstance(found, BadRow):
                yield from found


def _events_of_row(
    row: Row | BadRow, path: Path, mapping: Mapping, identity: Identity, decoders: dict[Input, Decoder]
) -> list[LoadedEvent] | BadRow:
    documents = row if isinstance(row, BadRow) else mapping.documents_of(row, path)
    if isinstance(documents, BadRow):
        return documents
    events = []
    for source, document in documents:
        event = _event(source, document, identity, decoders[source])
        if isinstance(event, str):
            return BadRow(row.number, event)
        events.append(event)
    return events


def _event(source: Input, document: Document, identity: Identity, decoder: Decoder) -> LoadedEvent | str:
    """The event, or why the document is none."""
    try:
        identity.apply(document)
        mapped = msgspec.convert(document, EVENT_TYPES[source], strict=False)
        value = compact_json(mapped)
    except msgspec.ValidationError as error:
        return str(error)
    except UnicodeEncodeError:
        return "not UTF-8"
    event = decoder.decode(value)
    if not isinstance(event, Rejected):
        event = rejection_beyond_types(event) or event
    if isinstance(event, Rejected):
        return f"{event.reason.value} at {event.path}"
    return LoadedEvent(source, event.event_time_ms, record_key(event), value)


def _count(report: LoadReport, path: Path, found: list[LoadedEvent] | BadRow) -> None:
    report.rows += 1
    if isinstance(found, BadRow):
        report.misfits += 1
        if len(report.examples) < MAX_EXAMPLES:
            report.examples.append(RowProblem(path.name, found.number, found.reason))
        return
    report.without_event += not found
    for event in found:
        report.events[event.input] += 1
        moment = event.event_time_ms
        report.first_ms = moment if report.first_ms is None else min(report.first_ms, moment)
        report.last_ms = moment if report.last_ms is None else max(report.last_ms, moment)


def _record(event: Publishable) -> Outgoing:
    return Outgoing(INPUT_TOPICS[event.input], None, event.key.encode(), event.value, event.event_time_ms)


def _take(source: Iterator[Publishable], count: int) -> list[Publishable]:
    return list(itertools.islice(source, count))
