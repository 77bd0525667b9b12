"""Chat and mail through the optional package apprise: Slack, Feishu, DingTalk, WeCom, SMTP and some hundred more.

apprise blocks, so each attempt runs in a daemon thread with a time-out: one that hangs delays nobody, and ends with
the process. While it hangs no second one is started.
"""

import asyncio
import importlib
import re
import threading
from typing import Any, Final

from streams.adapters.delivery_channels import Attempt, Delivered, TryAgain
from streams.errors import ConfigurationError
from streams.stages.delivery.messages import Message, MessageKind

EXTRA: Final = "campaign-streams[notify]"
MAX_DETAIL: Final = 200
_SECRETS: Final = re.compile(r"[^\s/:@?&=,;]{6,}")


def apprise_module(route: str) -> Any:
    """The package, imported when it is first needed.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module("apprise")
    except ImportError:
        raise ConfigurationError(
            f"delivery.routes.{route}: kind apprise needs the package apprise; pip install '{EXTRA}'"
        ) from None


class Notifier:
    """A `Channel` to one URL of apprise."""

    is_dry = False

    def __init__(self, route: str, url: str, *, timeout_s: float) -> None:
        """Reads the URL; connects to nothing.

        Raises:
            ConfigurationError: apprise is missing, or does not understand the URL.
        """
        self._apprise = apprise_module(route)
        self._url = url
        self._timeout_s = timeout_s
        self._hangs = False
        """An attempt is under way, perhaps one that nobody waits for any more."""
        self._target = self._apprise.Apprise()
        if not self._target.add(url):
            raise ConfigurationError(
                f"delivery.routes.{route}.url is none that apprise understands; "
                "its wiki lists them (https://github.com/caronc/apprise/wiki)"
            )

    async def send(self, message: Message) -> Attempt:
        """One notification; apprise tells success, and for the rest only what it logs."""
        if self._hangs:
            return TryAgain("an earlier attempt still hangs")
        self._hangs = True
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Attempt] = loop.create_future()
        arguments = (message, loop, answer)
        threading.Thread(target=self._notify, args=arguments, name=f"notify-{message.route}", daemon=True).start()
        try:
            return await asyncio.wait_for(answer, self._timeout_s)
        except TimeoutError:
            return TryAgain("no answer in time")

    async def close(self) -> None:
        """Nothing stays open; a thread that hangs is left to end with the process."""

    def _notify(self, message: Message, loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[Attempt]") -> None:
        """In the thread. Whatever apprise or one of its plugins raises is an attempt that failed."""
        attempt: Attempt
        try:
            attempt = self._notified(message)
        except Exception as error:
            attempt = TryAgain(self._masked(f"{type(error).__name__}: {error}"))
        self._hangs = False
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, answer, attempt)

    def _notified(self, message: Message) -> Attempt:
        apprise = self._apprise
        kind = apprise.NotifyType.INFO if message.kind in (MessageKind.DIGEST, MessageKind.TEST) else "warning"
        with apprise.LogCapture(level=apprise.logging.WARNING) as said:
            is_sent = self._target.notify(
                title=message.title, body=message.text, notify_type=kind, body_format=apprise.NotifyFormat.TEXT
            )
            words = said.getvalue()
        if is_sent:
            return Delivered("handed to the service")
        return TryAgain(self._masked(words) or "the service did not take it")

    def _masked(self, text: str) -> str:
        """One short line without what the URL holds."""
        line = " ".join(text.split())[:MAX_DETAIL]
        for secret in sorted(set(_SECRETS.findall(self._url.partition("://")[2])), key=len, reverse=True):
            line = line.replace(secret, "***")
        return line


def _settle(answer: "asyncio.Future[Attempt]", attempt: Attempt) -> None:
    if not answer.done():
        answer.set_result(attempt)
