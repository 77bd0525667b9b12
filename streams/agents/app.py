"""Wires one worker: the Faust app, its channel and agent, the source, the owners, the sink and the web pages."""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import socket
from collections.abc import Coroutine
from typing import Any, cast

import faust
from faust.app.base import BootStrategy
from prometheus_client import CollectorRegistry, ProcessCollector

from streams.adapters.checkpoint_stores import store_of
from streams.adapters.clickhouse import ClickHouseSink
from streams.adapters.clickhouse_query import ClickHouseReader
from streams.adapters.clock import SystemClock
from streams.adapters.kafka_admin import partitions_for_worker
from streams.adapters.kafka_journal import KafkaJournal
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.adapters.lists import with_lists
from streams.agents.delivery_app import STOP_S, LowRate
from streams.agents.keeper import RELEASE_TIMEOUT_S, Keeper
from streams.agents.metrics import PipelineCollector
from streams.agents.publisher import Publisher
from streams.agents.source import LEAVE_S, Source
from streams.agents.web import add_console, add_pages
from streams.errors import CampaignStreamsError, ConfigurationError, Unavailable
from streams.settings import LOOPBACK, Settings
from streams.state.owner import OwnerConfig, Ports
from streams.state.pins import Pins

log = logging.getLogger(__name__)

CHANNEL_BATCHES = 8
"""Fetched ranges that may wait for the agent: the back-pressure."""
CATCH_UP_FACTOR = 5
"""While records wait in Kafka, ticks are this much rarer: nobody sees fresh numbers then, and rows are fewer."""
LEAST_PAUSE_S = 0.05
"""Between two ticks, however long the first one took."""
LAST_TICK_S = 5.0
"""At shutdown, for the tick under way and one more; where Kafka is away, what they had is read again."""
LAST_FLUSH_S = 10.0
"""At shutdown, ClickHouse gets this long to take what is dirty; the checkpoint has the rest."""
LAST_WORDS_S = 2.0
"""At shutdown, for the rows of the tick behind which the last checkpoint is written: few, and it has them, too."""
CLOSE_S = 5.0
"""At shutdown, for all connections together."""
STOPS_WITHIN_S = STOP_S + LAST_TICK_S + LAST_FLUSH_S + RELEASE_TIMEOUT_S + LAST_WORDS_S + CLOSE_S + LEAVE_S
"""SIGTERM to exit at the very worst, with nothing that answers; seconds otherwise. deploy/ allows for more."""


class OwnSourceOnly(BootStrategy):
    """Faust's own consumer and producer stay off: the event topics are read by our source."""

    enable_kafka_consumer = False
    enable_kafka_producer = False


class Engine(faust.Service):
    """Starts the adapters in order, runs the clockwork, and ends in the order in which nothing is lost."""

    def __init__(self, settings: Settings, app: faust.App, inlet: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.app = app
        self.inlet = inlet
        self.journal: KafkaJournal
        self.keeper: Keeper
        self.publisher: Publisher
        self.source: Source
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory and CPU, for sizing
        self.is_ready = False
        self._sink_is_prepared = False
        self._is_closed = False
        self._turned_at: float | None = None

    async def on_start(self) -> None:
        """Opens everything; what cannot be reached is a clear error before the first record is read."""
        try:
            await self._open()
        except Exception:
            await self._close()
            raise

    async def _open(self) -> None:
        settings = self.settings
        partitions = await partitions_for_worker(settings.kafka)
        self.journal = KafkaJournal(settings.kafka, partitions)
        self.store = store_of(settings)
        self.outbox = KafkaOutbox(settings.kafka)
        self.sink = ClickHouseSink(settings.clickhouse)
        self.reader = ClickHouseReader(settings.clickhouse)
        await self.journal.start()
        await self.store.start()
        await self.outbox.start()
        config = OwnerConfig(
            partitions=partitions,
            log_epoch=settings.worker.log_epoch,
            worker=f"{socket.gethostname()}/{os.getpid()}",
            rules=with_lists(settings.parsed_rules(), settings),
            checkpoint_ms=settings.worker.checkpoint_ms,
            pins=Pins(settings.worker.pinned_checkpoints, settings.worker.pin_every_ms),
        )
        self.keeper = Keeper(config, Ports(self.journal, self.store, self.outbox), SystemClock(), settings.worker)
        self.publisher = Publisher(self.keeper, self.sink, settings.clickhouse.max_rows_per_insert)
        await self._prepare_sink()
        self.source = Source(settings, self.keeper, self.inlet, loop=self.loop, beacon=self.beacon)
        self.registry.register(
            PipelineCollector(self.keeper, self.publisher, self.source.highwater, settings.worker.top_campaigns)
        )
        self.app.flow_control.resume()  # channels stay shut until Faust's own consumer has partitions, and ours is off
        await self.add_runtime_dependency(self.source)
        self.is_ready = True

    async def consume(self, stream: Any) -> None:
        """The agent's loop: items in order. An exception here would be a broken invariant: it ends the process."""
        async for item in stream:
            try:
                await self.keeper.handle(item)
            except Exception as error:
                await self.crash(error)
                raise
            await asyncio.sleep(0)

    @faust.Service.task
    async def tick(self) -> None:
        """The wall clock schedules ticks, and decides nothing else."""
        while not self.should_stop:
            started = self._turned_at = self.loop.time()
            await self.keeper.tick_all()
            factor = CATCH_UP_FACTOR if self.source.is_behind else 1
            pause = self.settings.worker.tick_ms * factor / 1000 - (self.loop.time() - started)
            await self.sleep(max(pause, LEAST_PAUSE_S))

    @property
    def turned_s_ago(self) -> float | None:
        """Since the clockwork began its last turn; None before the first."""
        return None if self._turned_at is None else self.loop.time() - self._turned_at

    @faust.Service.task
    async def checkpoint(self) -> None:
        """Writes what ticks have captured."""
        while not self.should_stop:
            await self.sleep(0.1)
            await self.keeper.checkpoint_all()

    @faust.Service.task
    async def publish(self) -> None:
        """Inserts what ticks have released; waits after a failure."""
        while not self.should_stop:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.keeper.released.wait(), 1.0)
            self.keeper.released.clear()
            if await self._prepare_sink():
                await self.publisher.flush(everything=False)
            pause = self.publisher.pause_s() or self.settings.clickhouse.flush_ms / 1000
            await self.sleep(pause)

    async def _prepare_sink(self) -> bool:
        """Migrations first; a worker that restarts during an outage of ClickHouse waits for it like any other."""
        if not self._sink_is_prepared:
            try:
                await self.sink.start()
                await self.sink.record_rules(self.keeper.config.rules, self.keeper.clock.now_ms())
            except Unavailable as error:
                self.publisher.failed(error)
                return False
            self._sink_is_prepared = True
        return True

    async def on_stop(self) -> None:
        """SIGTERM: the last ticks, what they release, the last checkpoint; then the connections."""
        await self._close()

    async def _close(self) -> None:
        """Once: Mode also stops a service that could not start."""
        if self._is_closed:
            return
        self._is_closed = True
        self.is_ready = False
        if hasattr(self, "keeper"):
            self.keeper.stopping = True
            await _within(LAST_TICK_S, self.keeper.tick_all(), "Kafka did not take the last tick in time")
            late = "ClickHouse did not take the last rows in time; the checkpoint keeps them"
            is_there = await _within(LAST_FLUSH_S, self.publisher.flush(), late)
            await self.keeper.finish()
            if is_there:  # what arrived while the rows went out has been counted by the last tick
                await _within(LAST_WORDS_S, self.publisher.flush(), late)
            self.keeper.owners.clear()
        await _within(CLOSE_S, self._disconnect(), "connections did not close in time; they end with the process")

    async def _disconnect(self) -> None:
        for part, closing in (("sink", "close"), ("reader", "close"), ("outbox", "stop"), ("store", "stop")):
            await _stop(getattr(self, part, None), closing)
        await _stop(getattr(self, "journal", None), "stop")


async def _within(seconds: float, work: Coroutine[Any, Any, Any], otherwise: str) -> Any:
    """A step of the shutdown, which must not keep the others waiting; returns what it returns, None: not in time."""
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError:
        log.warning("%s", otherwise)
        return None


async def _stop(part: Any, closing: str) -> None:
    stop = getattr(part, closing, None)
    if stop is not None:
        await stop()


class _OneLine(logging.Filter):
    """Keeps Mode's tracebacks of operating errors out of the log: the command line tells them in one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], CampaignStreamsError))


class Worker(faust.Worker):
    """Faust's worker, which remembers why it could not start."""

    failure: Exception | None = None

    async def start(self) -> None:
        """Starts everything."""
        try:
            await super().start()
        except Exception as error:
            self.failure = _explained(error, self.app.conf.web_port)
            raise self.failure from error.__cause__

    def _setup_logging(self) -> None:
        super()._setup_logging()
        for handler in logging.getLogger().handlers:
            handler.addFilter(_OneLine())


def _explained(error: Exception, web_port: int) -> Exception:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return ConfigurationError(f"port {web_port} of the web server is taken; set worker.web_port to a free one")
    return error


def create_app(settings: Settings) -> faust.App:
    """A Faust app whose agent runs the pipeline. Nothing is connected before it starts."""
    app = faust.App(
        "campaign-streams",
        broker=f"kafka://{settings.kafka.bootstrap_servers.split(',')[0]}",
        store="memory://",
        datadir=str(settings.worker.state_dir / "faust"),
        topic_disable_leader=True,
        web_enabled=True,
        web_host=settings.worker.web_host,
        web_bind=settings.worker.web_host,
        web_port=settings.worker.web_port,
        web_in_thread=False,
        autodiscover=False,
    )
    app.boot_strategy = OwnSourceOnly(app)
    inlet = app.channel(maxsize=CHANNEL_BATCHES)
    engine = Engine(settings, app, inlet)
    app.service(cast(Any, engine))
    if settings.delivery.in_worker:
        low_rate = LowRate(settings)
        app.service(cast(Any, low_rate))  # after the engine, which sees to the topics
        for collector in low_rate.collectors:
            engine.registry.register(collector)
    add_pages(app, engine)
    add_console(app, engine)
    app.conf.web_host  # noqa: B018 - finalises the settings, so that a wrong one is told now

    @app.agent(inlet, name="measure")
    async def measure(stream: Any) -> None:
        await engine.consume(stream)

    if settings.worker.web_host != LOOPBACK and not settings.console.is_closed:
        log.warning(
            "the web server is bound to %s, but serves this machine only: no token is configured (console.tokens_file)",
            settings.worker.web_host,
        )
    return app


def run_worker(settings: Settings) -> None:
    """Runs a worker until SIGTERM or SIGINT. Ends the process.

    Raises:
        CampaignStreamsError: what kept it from starting, or ended it.
    """
    (settings.worker.state_dir / "faust").mkdir(parents=True, exist_ok=True)
    app = create_app(settings)
    gc.freeze()
    worker = Worker(app, loglevel=settings.worker.log_level)
    try:
        worker.execute_from_commandline()
    except SystemExit:
        reason = worker.failure or worker.crash_reason
        if isinstance(reason, CampaignStreamsError):
            raise reason from None
        raise
