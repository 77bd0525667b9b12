"""The second Faust app: ordinary topics and agents for what is low-rate, in a consumer group of its own.

Its rebalances never stall the worker's hot path. It hosts delivery, and the agents of other parts that are there
(`PARTS`). It runs as a process of its own (`campaign-streams notifier`) or beside a worker (`LowRate`).
"""

import asyncio
import logging
import threading
import time
from typing import Any, Final, NamedTuple

import faust
from faust import web
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from mode.threads import WorkerThread
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from streams.adapters.kafka_client import client_options
from streams.agents.delivery import Delivery, DeliveryCounts, add_delivery
from streams.agents.delivery_metrics import DeliveryCollector
from streams.agents.pools import PoolsCollector, PoolsDesk, add_pools
from streams.errors import CampaignStreamsError
from streams.settings import KafkaSettings, Settings

log = logging.getLogger(__name__)

APP_ID: Final = "campaign-streams-delivery"
"""Also the name of its consumer group."""
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
POLL_S: Final = 0.25
STOP_S: Final = 5.0
"""The second app gets this long to stop, before the worker goes on to its own last rows."""


class SecondApp(NamedTuple):
    """The app, and what it hosts; no delivery where nobody is to be told."""

    app: faust.App
    pools: PoolsDesk
    delivery: Delivery | None


def delivers(settings: Settings) -> bool:
    """Whether there is anybody to tell."""
    return settings.delivery.enabled and bool(settings.delivery.routes)


def create_second_app(settings: Settings, counts: DeliveryCounts, *, is_strict: bool, web_port: int = 0) -> SecondApp:
    """The app with everything that it hosts. Nothing is connected before it starts. No web server with port 0."""
    kafka, directory = settings.kafka, settings.worker.state_dir / "faust-second"
    directory.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        APP_ID,
        broker=[f"kafka://{server.strip()}" for server in kafka.bootstrap_servers.split(",")],
        broker_credentials=_credentials(kafka),
        broker_session_timeout=kafka.session_timeout_ms / 1000,
        broker_heartbeat_interval=min(3.0, kafka.session_timeout_ms / 3000),
        broker_commit_interval=1.0,
        store="memory://",
        datadir=str(directory),
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        producer_linger=0.05,
        stream_wait_empty=False,
        web_enabled=bool(web_port),
        web_host=settings.worker.web_host,
        web_bind=settings.worker.web_host,
        web_port=web_port or None,
        web_in_thread=False,
        autodiscover=False,
    )
    delivery = add_delivery(app, settings, counts, is_strict=is_strict) if delivers(settings) else None
    return SecondApp(app, add_pools(app, settings), delivery)


def _credentials(kafka: KafkaSettings) -> Any:
    """As `client_options` has them, in Faust's own terms; None for plain text."""
    options = client_options(kafka)
    context = options.get("ssl_context")
    if kafka.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=kafka.sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None


class LowRate(faust.Service):
    """Runs the second app beside a worker's own, and keeps its failures away from it.

    It has a thread and an event loop to itself: Faust's consumer blocks the loop while it stops, which may take as long
    as Kafka does not answer. When the app crashes, it alone is started anew after a pause; when it does not stop in
    time, it is left to end with the process: what it knows is in the logs.
    """

    def __init__(self, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.counts = DeliveryCounts()
        self.collectors = (
            DeliveryCollector(self.counts, lambda: self.delivery),
            PoolsCollector(lambda: self._hosted and self._hosted.pools),
        )
        """To be registered with the worker's metrics."""
        self.restarts = 0
        self._hosted: SecondApp | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="second-app", daemon=True)

    @property
    def delivery(self) -> Delivery | None:
        """What delivers now; None between two apps, and where nobody is to be told."""
        return self._hosted and self._hosted.delivery

    async def on_start(self) -> None:
        """Starts the thread; the app connects in it."""
        AIOKafkaConsumerThread.Worker = _DaemonThread
        self._thread.start()

    async def on_stop(self) -> None:
        """Waits for its end, for a bounded time."""
        self._ending.set()
        await asyncio.to_thread(self._thread.join, STOP_S)
        if self._thread.is_alive():
            log.warning("the second app did not stop in %.0f s; what it knows is in the logs", STOP_S)

    def _run(self) -> None:
        asyncio.run(self._supervise())

    async def _supervise(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._ending.is_set():
            started = time.monotonic()
            try:
                await self._run_once()
            except CampaignStreamsError as error:
                log.error("alerts wait: %s", error)
            except Exception:
                log.exception("the second app ended")
            if self._ending.is_set():
                return
            self.restarts += 1
            pause_s = FIRST_PAUSE_S if time.monotonic() - started > LONGEST_PAUSE_S else pause_s
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _run_once(self) -> None:
        self._hosted = create_second_app(self.settings, self.counts, is_strict=False)
        app = self._hosted.app
        starting = asyncio.ensure_future(app.start())
        try:
            while not self._ending.is_set() and not app.crashed:
                await asyncio.sleep(POLL_S)
                if starting.done():
                    starting.result()
        finally:
            self._hosted = None
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await app.stop()
        if app.crash_reason is not None:
            raise app.crash_reason


class _DaemonThread(WorkerThread):
    """Of Faust's consumer: one that hangs does not keep the process from ending."""

    def __init__(self, service: Any, **kwargs: Any) -> None:
        super().__init__(service, **kwargs)
        self.daemon = True


def create_notifier(settings: Settings) -> faust.App:
    """The second app as a process of its own, with metrics and health at `delivery.web_port`."""
    counts = DeliveryCounts()
    app, pools, delivery = create_second_app(settings, counts, is_strict=True, web_port=settings.delivery.web_port)
    registry = CollectorRegistry()
    registry.register(DeliveryCollector(counts, lambda: delivery))
    registry.register(PoolsCollector(lambda: pools))

    @app.page("/metrics")
    async def metrics(self: web.View, request: Any) -> Any:
        return self.bytes(generate_latest(registry), content_type=CONTENT_TYPE_LATEST.split(";")[0])

    @app.page("/health/live")
    async def live(self: web.View, request: Any) -> Any:
        return self.json({"live": True, "owner": delivery is not None and delivery.is_owner})

    @app.page("/health/ready")
    async def ready(self: web.View, request: Any) -> Any:
        is_ready = delivery is None or delivery.is_ready
        return self.json({"ready": is_ready}, status=200 if is_ready else 503)

    app.conf.web_host  # noqa: B018 - finalises the settings, so that a wrong one is told now
    return app
