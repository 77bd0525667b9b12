"""Delivers alerts: ordinary Faust topics and agents around the pure dispatcher, and a sender for each receiver.

The three topics have one partition each, so Kafka's group gives all of them to one process: that one delivers, and when
it dies another does. What it knows is rebuilt from the logs whenever it is given the partitions, and now and then
besides: Faust acknowledges what an agent failed on, and may skip records around a rebalance; the logs do not forget.

In order, for each message: its receipt `composed` is appended; it is sent; its outcome is appended. A crash in between
sends it again, under the same id.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, cast

import faust
import msgspec
from faust.types import TP

from streams.adapters.clock import SystemClock
from streams.adapters.delivery_channels import Attempt, Channel, TryAgain
from streams.adapters.delivery_log import records_since
from streams.adapters.delivery_routes import channel_of, plan_of
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.agents.delivery_sender import Sender, SenderCounts
from streams.errors import CampaignStreamsError, ConfigurationError, Unavailable
from streams.events import Rejected
from streams.ports import Outgoing
from streams.settings import Settings
from streams.stages.delivery.dispatcher import Dispatcher
from streams.stages.delivery.messages import (
    Message,
    Outcome,
    Receipt,
    decode_alert,
    decode_command,
    decode_receipt,
    receipt_of,
)
from streams.topics import ALERT_COMMANDS, ALERTS, DELIVERIES

log = logging.getLogger(__name__)

TURN_S: Final = 0.25
"""Time between two looks at what is due."""
REBUILD_S: Final = 900.0
"""Time between two rebuilds from the logs while nothing happens."""
PRUNE_S: Final = 60.0
PATIENCE_S: Final = 2.0
"""Wait after Kafka did not answer."""


class Unusable:
    """The channel of a route that is not configured well: its messages wait until it is."""

    is_dry = False

    def __init__(self, detail: str) -> None:
        self.detail = detail

    async def send(self, message: Message) -> Attempt:
        """Always to be tried again."""
        return TryAgain(self.detail)

    async def close(self) -> None:
        """Nothing is open."""


class DeliveryCounts:
    """Counters that outlive a restart of the second app. `streams.agents.delivery_metrics` shows them."""

    def __init__(self) -> None:
        self.senders: dict[str, SenderCounts] = {}
        self.dispatcher: Counter[str] = Counter()
        """See `streams.stages.delivery.dispatcher`; of the dispatchers that were replaced."""
        self.undecodable: Counter[str] = Counter()
        """Records by topic that are none."""
        self.internal_errors = 0
        self.rebuilds = 0


class Delivery(faust.Service):
    """Runs while it is given the partitions; `arrived` is called by the agents."""

    def __init__(self, settings: Settings, counts: DeliveryCounts, is_strict: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.counts = counts
        self.is_strict = is_strict
        """Whether a route that cannot work keeps it from starting."""
        self.clock = SystemClock()
        self.outbox = KafkaOutbox(settings.kafka)
        self.dispatcher = Dispatcher(plan_of(settings.delivery))
        self.senders: dict[str, Sender] = {}
        self.is_owner = False
        self.was_told = False
        """Whether Kafka has shared the partitions out at all."""
        self._is_built = asyncio.Event()
        self._rebuild_wanted = asyncio.Event()
        self._meanwhile: list[Receipt] = []
        """Receipts that were appended during a rebuild."""
        self._sending: list[asyncio.Task[None]] = []

    async def on_start(self) -> None:
        """Opens the channels and the producer."""
        for name in self.settings.delivery.routes:
            counts = self.counts.senders.setdefault(name, SenderCounts())
            self.senders[name] = Sender(
                name, self._channel(name), self.settings.delivery, self.append, self.clock, counts
            )
        await self.outbox.start()

    def _channel(self, name: str) -> Channel:
        try:
            return channel_of(name, self.settings.delivery.routes[name], self.settings.delivery)
        except ConfigurationError as error:
            if self.is_strict:
                raise
            log.error("%s", error)
            return Unusable(str(error))

    async def on_stop(self) -> None:
        """What is under way is in the log; whoever comes next sends it."""
        await self._stop_sending()
        for sender in self.senders.values():
            await sender.channel.close()
        await self.outbox.stop()

    # Partitions

    async def on_assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        """Kafka has shared the partitions out anew: only the owner of all three delivers."""
        held = {tp.topic for tp in assigned}
        self.is_owner = {ALERTS, ALERT_COMMANDS, DELIVERIES} <= held
        self.was_told = True
        self._is_built.clear()
        self._rebuild_wanted.set()

    @property
    def is_ready(self) -> bool:
        """Whether it delivers, or stands by while another process does."""
        return self.was_told and (self._is_built.is_set() or not self.is_owner)

    async def on_revoked(self, _app: Any, revoked: set[TP], **_: Any) -> None:
        """Whoever is next may begin at once: nothing more is sent from here."""
        if any(tp.topic in (ALERTS, ALERT_COMMANDS, DELIVERIES) for tp in revoked):
            self.is_owner = False
            self._is_built.clear()
            self._rebuild_wanted.set()
            await self._stop_sending()

    # In

    async def arrived(self, topic: str, value: bytes | None) -> None:
        """One record, applied when the state is there. Never raises: what fails is counted, and rebuilt."""
        while self.is_owner and not self.should_stop and not self._is_built.is_set():
            await self.sleep(TURN_S)
        if not self.is_owner or self.should_stop:
            return
        try:
            self._take(topic, value, self.dispatcher)
        except Exception:
            self._failed(f"a record of {topic}")

    def _take(self, topic: str, value: bytes | None, dispatcher: Dispatcher) -> None:
        if topic == ALERTS:
            alert = decode_alert(value)
            if not isinstance(alert, Rejected):
                return dispatcher.take_alert(alert, self.clock.now_ms())
        elif topic == ALERT_COMMANDS:
            command = decode_command(value)
            if not isinstance(command, Rejected):
                return dispatcher.take_command(command)
        else:
            receipt = decode_receipt(value)
            if not isinstance(receipt, Rejected):
                return dispatcher.take_receipt(receipt)
        self.counts.undecodable[topic] += 1
        return None

    def _failed(self, what: str) -> None:
        log.exception("delivery: %s; the state is rebuilt from the logs", what)
        self.counts.internal_errors += 1
        self._rebuild_wanted.set()

    # Out

    @faust.Service.task
    async def deliver(self) -> None:
        """Rebuilds when there is a reason to, and sends what is due while it is the owner."""
        while not self.should_stop:
            if not self.is_owner:
                await self.sleep(TURN_S)
                continue
            try:
                await self._rebuild()
                await self._turns()
            except Unavailable as error:
                log.warning("delivery waits: %s", error)
                await self.sleep(PATIENCE_S)
            except CampaignStreamsError as error:
                log.error("delivery waits: %s", error)
                await self.sleep(10 * PATIENCE_S)
            except Exception:
                self._failed("an internal error")
                await self.sleep(PATIENCE_S)

    async def _rebuild(self) -> None:
        """Reads the logs to their ends; agents wait meanwhile, and senders go on with what they have."""
        self._is_built.clear()
        self._rebuild_wanted.clear()
        self._meanwhile.clear()
        dispatcher = Dispatcher(plan_of(self.settings.delivery))
        since_ms = self.clock.now_ms() - self.settings.delivery.lookback_ms
        for topic, begin_ms in ((ALERT_COMMANDS, 0), (DELIVERIES, 0), (ALERTS, since_ms)):
            async for record in records_since(self.settings.kafka, topic, begin_ms):
                try:
                    self._take(topic, record.value, dispatcher)
                except Exception:  # the others are not to wait for a mistake to be mended
                    log.exception("delivery: %s at offset %d is passed over", topic, record.offset)
                    self.counts.internal_errors += 1
            await asyncio.sleep(0)
        for receipt in self._meanwhile:
            dispatcher.take_receipt(receipt)
        dispatcher.is_in_hand((s.name, identity) for s in self.senders.values() for identity in s.message_ids)
        self.counts.dispatcher += self.dispatcher.counts
        dispatcher.counts.clear()  # of what was read again
        self.dispatcher = dispatcher
        self.counts.rebuilds += 1
        if self.is_owner and not self._rebuild_wanted.is_set():
            self._start_sending()
            self._is_built.set()

    async def _turns(self) -> None:
        """Until it is time for a rebuild."""
        started = pruned = self.loop.time()
        while self.is_owner and not self.should_stop and not self._rebuild_wanted.is_set():
            await self._send(self.dispatcher.due(self.clock.now_ms()))
            now = self.loop.time()
            if now - pruned > PRUNE_S:
                self.dispatcher.prune(self.clock.now_ms())
                pruned = now
            if now - started > (PRUNE_S if self._has_room_again() else REBUILD_S):
                return
            await self.sleep(TURN_S)

    def _has_room_again(self) -> bool:
        """Alerts were refused for want of room, and there is room: they stand in the log."""
        dispatcher = self.dispatcher
        return dispatcher.is_incomplete and len(dispatcher.lives) < dispatcher.plan.max_alerts // 2

    async def _send(self, messages: Sequence[Message]) -> None:
        """In the log first, so that whoever takes over sends the same."""
        now_ms = self.clock.now_ms()
        new = [receipt_of(message, Outcome.COMPOSED, now_ms) for message in messages if not message.is_recorded]
        await self._publish(new)
        for message in messages:
            self.senders[message.route].put(message)

    async def append(self, receipt: Receipt) -> None:
        """Appends a receipt durably, however long that takes, and tells the dispatcher."""
        await self._publish([receipt])
        self._meanwhile.append(receipt)
        self.dispatcher.take_receipt(receipt)

    async def _publish(self, receipts: Sequence[Receipt]) -> None:
        outgoing = [
            Outgoing(DELIVERIES, 0, receipt.message_id.encode(), msgspec.json.encode(receipt)) for receipt in receipts
        ]
        while outgoing:
            try:
                return await self.outbox.publish(outgoing)
            except Unavailable as error:
                log.warning("delivery waits: %s", error)
                await asyncio.sleep(PATIENCE_S)
        return None

    def _start_sending(self) -> None:
        if not self._sending:
            self._sending = [self.loop.create_task(sender.run()) for sender in self.senders.values()]

    async def _stop_sending(self) -> None:
        tasks, self._sending = self._sending, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sender in self.senders.values():
            sender.clear()


def add_delivery(app: faust.App, settings: Settings, counts: DeliveryCounts, *, is_strict: bool) -> Delivery:
    """Registers the agents and the service with the second app, before it starts."""
    delivery = Delivery(settings, counts, is_strict)
    app.service(cast(Any, delivery))
    app.on_partitions_assigned.connect(cast(Any, delivery.on_assigned), weak=False)
    app.on_partitions_revoked.connect(cast(Any, delivery.on_revoked), weak=False)
    for topic in (ALERTS, ALERT_COMMANDS, DELIVERIES):
        _add_agent(app, topic, delivery)
    return delivery


def _add_agent(app: faust.App, topic: str, delivery: Delivery) -> None:
    channel = app.topic(topic, key_serializer="raw", value_serializer="raw", allow_empty=True)

    @app.agent(channel, name=f"deliver-{topic}")
    async def take(stream: Any) -> None:
        async for value in stream:
            await delivery.arrived(topic, value)
