"""How a message leaves: the port that webhooks and notifiers implement, and a channel that only says what it would do.

What happens to an attempt is a value: delivered, to be tried again, or refused for good. Nothing here raises for what
a receiver does.
"""

import logging
from typing import NamedTuple, Protocol

from streams.stages.delivery.messages import Message

log = logging.getLogger(__name__)


class Delivered(NamedTuple):
    """The receiver has it."""

    detail: str


class TryAgain(NamedTuple):
    """It may have it or not; waiting can help."""

    detail: str
    after_s: float | None = None
    """What the receiver asks for."""


class Refused(NamedTuple):
    """Trying again would not help."""

    detail: str


Attempt = Delivered | TryAgain | Refused


class Channel(Protocol):
    """A way to one receiver."""

    @property
    def is_dry(self) -> bool:
        """Whether it sends nothing."""
        ...

    async def send(self, message: Message) -> Attempt:
        """One attempt, for a bounded time."""
        ...

    async def close(self) -> None:
        """Ends its connections."""
        ...


class DryRun:
    """Logs what would be sent."""

    is_dry = True

    async def send(self, message: Message) -> Attempt:
        """Nothing leaves."""
        log.info("dry run, to %s: %s (%d alerts)", message.route, message.title, len(message.alerts))
        return Delivered("dry run: nothing was sent")

    async def close(self) -> None:
        """Nothing is open."""
