"""Sends one receiver's messages, one at a time: attempts with back-off and jitter, and a circuit around them.

A message leaves the queue when its receipt is in the log. One that is not taken goes behind the others, so that it
holds up none; the dispatcher bounds how many there are. Nothing is given up before it is too old to be told.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_result
from tenacity.wait import wait_random_exponential

from streams.adapters.delivery_channels import Attempt, Channel, Delivered, Refused, TryAgain
from streams.adapters.delivery_circuit import Circuit, CircuitState
from streams.ports import Clock
from streams.settings import DeliverySettings
from streams.stages.delivery.messages import Message, Outcome, Receipt, receipt_of

log = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0
Record = Callable[[Receipt], Awaitable[None]]


class SenderCounts:
    """What happened on the way to one receiver; survives the sender."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """Messages by kind and outcome."""
        self.attempts = 0
        self.retries = 0
        """Attempts after the first of a message."""


class Sender:
    """`record` appends a receipt durably; it returns when that is done."""

    def __init__(
        self,
        name: str,
        channel: Channel,
        settings: DeliverySettings,
        record: Record,
        clock: Clock,
        counts: SenderCounts,
    ) -> None:
        self.name = name
        self.channel = channel
        self.settings = settings
        self.counts = counts
        self.circuit = Circuit(settings.circuit_failures, settings.circuit_open_ms / 1000)
        self._record = record
        self._clock = clock
        self._waiting: deque[tuple[Message, int]] = deque()
        self._arrived = asyncio.Event()
        self._backoff = wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S)

    @property
    def message_ids(self) -> list[str]:
        """What it holds, the message in hand included."""
        return [message.message_id for message, _ in self._waiting]

    def put(self, message: Message) -> None:
        """Adds a message at the end."""
        self._waiting.append((message, 0))
        self._arrived.set()

    def clear(self) -> None:
        """Forgets what it holds: it is another's now, or comes again with a rebuild."""
        self._waiting.clear()

    async def run(self) -> None:
        """Until cancelled. A message in hand stays in the queue, as it does in the log."""
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            await asyncio.sleep(self.circuit.wait_s(self._now_s()))
            message, before = self._waiting[0]
            attempt, tried = await self._round(message)
            self._waiting[0] = message, before + tried
            if not await self._settled(message, attempt, before + tried):
                self._waiting.rotate(-1)
                asked_s = attempt.after_s if isinstance(attempt, TryAgain) else None
                await asyncio.sleep(max(asked_s or 0.0, self.settings.circuit_open_ms / 1000 / len(self._waiting)))

    async def _round(self, message: Message) -> tuple[Attempt, int]:
        """Attempts until one is final, `attempts` have failed, or the circuit has opened."""
        if not message.alerts or self._is_too_old(message):
            return Refused("too old to be told"), 0
        retrying = AsyncRetrying(
            retry=retry_if_result(lambda attempt: isinstance(attempt, TryAgain)),
            stop=self._is_enough,
            wait=self._wait_s,
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else TryAgain("no attempt"),
        )
        attempt: Attempt = await retrying(self._attempt, message)
        return attempt, int(retrying.statistics.get("attempt_number", 1))

    async def _attempt(self, message: Message) -> Attempt:
        self.counts.attempts += 1
        try:
            attempt = await self.channel.send(message)
        except Exception as error:  # a mistake of ours must not end the sender
            log.exception("delivery to %s", self.name)
            attempt = TryAgain(type(error).__name__)
        if isinstance(attempt, TryAgain):
            self.circuit.failed(self._now_s())
            log.warning("delivery to %s: %s; it will be tried again", self.name, attempt.detail)
        else:
            self.circuit.succeeded()
        return attempt

    def _wait_s(self, state: RetryCallState) -> float:
        """Back-off with jitter, and never sooner than the receiver asks for."""
        self.counts.retries += 1
        attempt = state.outcome.result() if state.outcome else None
        asked_s = attempt.after_s if isinstance(attempt, TryAgain) else None
        return max(self._backoff(state), asked_s or 0.0)

    async def _settled(self, message: Message, attempt: Attempt, tried: int) -> bool:
        """Records what is final, and lets the message go."""
        if isinstance(attempt, TryAgain):
            return False
        outcome = Outcome.FAILED if isinstance(attempt, Refused) else Outcome.DELIVERED
        if isinstance(attempt, Delivered) and self.channel.is_dry:
            outcome = Outcome.DRY_RUN
        if outcome is Outcome.FAILED:
            log.error("delivery to %s failed for good: %s; %s", self.name, attempt.detail, message.title)
        await self._record(receipt_of(message, outcome, self._clock.now_ms(), attempt.detail, tried))
        self.counts.outcomes[message.kind, outcome] += 1
        self._waiting.popleft()
        return True

    def _is_too_old(self, message: Message) -> bool:
        return message.composed_ms < self._clock.now_ms() - self.settings.lookback_ms

    def _is_enough(self, state: RetryCallState) -> bool:
        is_closed = self.circuit.state(self._now_s()) is CircuitState.CLOSED
        return state.attempt_number >= self.settings.attempts or not is_closed

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()
