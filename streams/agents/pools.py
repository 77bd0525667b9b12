"""Balances and shared budgets: an ordinary Faust agent that adds up spends, and hands every campaign its allowance.

Lives in the second app (`streams.agents.delivery_app`), beside any number of others: Kafka shares the partitions of
ads.spends out, and all reports of one pool stand in one partition. Documents of ads.accounts are few: every process
reads all of them, whole at first and then what is appended. What it knows is lost with the process, and rebuilt from
these two topics (`streams.stages.pools` says how, and what that means for the money).

What Prometheus sees (`PoolsCollector`), all of this process: `campaign_streams_pools_reports_total{outcome}` (taken, or
why refused), `…_undecodable_records_total{topic}`, `…_allowances_total`, `…_waiting_allowances`,
`…_known{what}` (pools, known_pools, campaigns).
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import faust
import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.accounts import decode_account, key_of
from streams.adapters.clock import SystemClock
from streams.adapters.kafka_fetch import OffsetOutOfRange, PartitionReader
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.errors import CampaignStreamsError
from streams.events import Rejected
from streams.ports import Outgoing
from streams.settings import KafkaSettings, Settings
from streams.signals import Allowance
from streams.stages.pools import Pools, Refusal, decode_report
from streams.topics import ACCOUNTS, ALLOWANCES, SPENDS

log = logging.getLogger(__name__)

TURN_S: Final = 5.0
"""Time between two rounds of allowances."""
FOLLOW_S: Final = 1.0
"""Time between two looks for new documents."""
PATIENCE_S: Final = 2.0
"""Wait after Kafka did not answer."""
PREFIX: Final = "campaign_streams_pools_"


class AccountsReader:
    """Follows ads.accounts from its beginning: every document of every partition."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._reader = PartitionReader(kafka, ACCOUNTS)
        self._positions: dict[int, int] = {}
        self._is_started = False

    async def read(self, pools: Pools, undecodable: Counter[str]) -> None:
        """Applies what is there now, up to the high watermarks. After an error, call again: it goes on.

        Raises:
            BrokerUnavailable, ConfigurationError: see `PartitionReader`.
        """
        if not self._is_started:
            await self._reader.start()
            self._is_started = True
        for partition in range(self._reader.partitions):
            await self._read_partition(partition, pools, undecodable)

    async def _read_partition(self, partition: int, pools: Pools, undecodable: Counter[str]) -> None:
        if partition not in self._positions:
            self._positions[partition] = await self._reader.beginning(partition)
        while True:
            try:
                fetched = await self._reader.fetch(partition, self._positions[partition])
            except OffsetOutOfRange:
                self._positions[partition] = await self._reader.beginning(partition)
                continue
            for record in fetched.records:
                _take_document(pools, record.key, record.value, undecodable)
            is_at_end = (
                fetched.next_offset >= fetched.high_watermark or fetched.next_offset == self._positions[partition]
            )
            self._positions[partition] = fetched.next_offset
            if is_at_end:
                return

    async def stop(self) -> None:
        """Closes the connection."""
        if self._is_started:
            await self._reader.stop()


def _take_document(pools: Pools, key: bytes | None, value: bytes | None, undecodable: Counter[str]) -> None:
    """A document that cannot be read changes nothing: the one before it goes on holding."""
    if not value:
        pools.take_account((key or b"").decode(errors="replace"), None)
        return
    account = decode_account(value)
    if isinstance(account, Rejected):
        undecodable[ACCOUNTS] += 1
        log.warning("a document of %s is none (%s at %s)", ACCOUNTS, account.reason, account.path)
    elif not pools.take_account(key_of(account), account):
        log.error("there are too many pools: %s gets no allowances", key_of(account))


class PoolsDesk(faust.Service):
    """Listens (`arrived`), and tells in turns. What cannot be sent is sent later, the latest of each."""

    def __init__(self, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.clock = SystemClock()
        self.outbox = KafkaOutbox(settings.kafka)
        self.pools = Pools()
        self.undecodable: Counter[str] = Counter()
        """Records by topic that are none."""
        self.told = 0
        """Allowances sent."""
        self._accounts = AccountsReader(settings.kafka)
        self._knows_accounts = False
        self._waiting: dict[tuple[str, str, str], Allowance] = {}

    async def on_stop(self) -> None:
        """Nothing is kept: whoever comes next rebuilds it."""
        await self._accounts.stop()
        await self.outbox.stop()

    def arrived(self, value: bytes | None, sent_ms: int) -> None:
        """One record of ads.spends. Never raises."""
        report = decode_report(value)
        if isinstance(report, Rejected):
            self.undecodable[SPENDS] += 1
            return
        self.pools.take_report(report, sent_ms, self.clock.now_ms())

    @faust.Service.task
    async def follow_accounts(self) -> None:
        """Reads what is put; until the first time that all of it is read, nothing is told."""
        while not self.should_stop:
            try:
                await self._accounts.read(self.pools, self.undecodable)
                self._knows_accounts = True
            except CampaignStreamsError as error:
                log.warning("pools wait for %s: %s", ACCOUNTS, error)
                await self.sleep(PATIENCE_S)
            await self.sleep(FOLLOW_S)

    @faust.Service.task
    async def tell(self) -> None:
        """Sends allowances in turns."""
        while not self.should_stop:
            if self._knows_accounts:
                await self.turn()
            await self.sleep(TURN_S)

    async def turn(self) -> None:
        """One round. What Kafka does not take waits for the next one."""
        for allowance in self.pools.due(self.clock.now_ms()):
            self._waiting[allowance.campaign_id, allowance.pool, allowance.pool_id] = allowance
        try:
            await self.outbox.publish([_record(allowance) for allowance in self._waiting.values()])
        except CampaignStreamsError as error:
            log.warning("%d allowances wait: %s", len(self._waiting), error)
            return
        self.told += len(self._waiting)
        self._waiting.clear()

    @property
    def waiting(self) -> int:
        """Allowances that Kafka has not taken yet: at most one for each campaign and pool."""
        return len(self._waiting)


class PoolsCollector(Collector):
    """Reads the counters of the service that runs now, if any does; from any thread."""

    def __init__(self, current: Callable[[], PoolsDesk | None]) -> None:
        self.current = current

    def collect(self) -> Iterator[Metric]:
        """Everything, at this moment."""
        desk = self.current()
        if desk is None:
            return
        reports = CounterMetricFamily(PREFIX + "reports", "Spend reports by outcome.", labels=["outcome"])
        reports.add_metric(["taken"], desk.pools.taken)
        for refusal in Refusal:
            reports.add_metric([refusal.value], desk.pools.refused[refusal])
        yield reports
        broken = CounterMetricFamily(PREFIX + "undecodable_records", "Records that are none.", labels=["topic"])
        for topic in (SPENDS, ACCOUNTS):
            broken.add_metric([topic], desk.undecodable[topic])
        yield broken
        yield CounterMetricFamily(PREFIX + "allowances", "Allowances sent.", value=desk.told)
        yield GaugeMetricFamily(PREFIX + "waiting_allowances", "Allowances not yet sent.", value=desk.waiting)
        known = GaugeMetricFamily(PREFIX + "known", "Pools and campaigns that are kept.", labels=["what"])
        for what, count in desk.pools.status().items():
            known.add_metric([what], count)
        yield known


def _record(allowance: Allowance) -> Outgoing:
    return Outgoing(ALLOWANCES, None, allowance.campaign_id.encode(), msgspec.json.encode(allowance))


def add_pools(app: faust.App, settings: Settings) -> PoolsDesk:
    """Registers the agent and the service with the second app, before it starts."""
    desk = PoolsDesk(settings)
    app.service(cast(Any, desk))
    channel = app.topic(SPENDS, key_serializer="raw", value_serializer="raw", allow_empty=True)

    @app.agent(channel, name=f"pools-{SPENDS}")
    async def take(stream: Any) -> None:
        async for event in stream.events():
            desk.arrived(event.value, _sent_ms(event.message, desk.clock))

    return desk


def _sent_ms(message: Any, clock: SystemClock) -> int:
    """When the record was appended, as its own timestamp says."""
    return clock.now_ms() if message.timestamp is None else int(message.timestamp * 1000)
