"""Webhooks: JSON, signed, never redirected, never into a private network.

A request carries

* `Idempotency-Key`: the message's id, the same in every attempt: who has seen it has the message already;
* `X-Campaign-Streams-Timestamp`: when this attempt was signed, seconds since 1970 (UTC);
* `X-Campaign-Streams-Signature`: `v1=` and the hexadecimal HMAC-SHA256 of `TIMESTAMP.BODY` under the route's secret.

A receiver checks it before it believes anything (`verify` below does the same):

    import hashlib, hmac, time

    def is_genuine(secret: str, headers, body: bytes) -> bool:
        timestamp = headers["X-Campaign-Streams-Timestamp"]
        signed = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        is_recent = abs(time.time() - int(timestamp)) < 300
        return is_recent and hmac.compare_digest(headers["X-Campaign-Streams-Signature"], f"v1={signed}")

Any 2xx is a delivery. 408, 429 and 5xx are tried again (429 and 503 when `Retry-After` says); any other answer is a
refusal for good, redirects among them.
"""

import hashlib
import hmac
import time
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
import msgspec

from streams import __version__
from streams.adapters.delivery_addresses import Guard
from streams.adapters.delivery_channels import Attempt, Delivered, Refused, TryAgain
from streams.signals import AlertState
from streams.stages.delivery.messages import Message, ids_in

KEY_HEADER: Final = "Idempotency-Key"
TIMESTAMP_HEADER: Final = "X-Campaign-Streams-Timestamp"
SIGNATURE_HEADER: Final = "X-Campaign-Streams-Signature"
TOLERANCE_S: Final = 300
"""How old a signature may be."""
MAX_ALERTS: Final = 500
"""Alerts in a body with all their fields, the newest; the ids of all are in it, whatever their number."""
LONGEST_RETRY_AFTER_S: Final = 3_600.0
_PASSING: Final = frozenset({408, 425, 429})


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over `timestamp.body`, as it stands in the header."""
    signed = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"v1={signed.hexdigest()}"


def verify(secret: str, timestamp: str, body: bytes, given: str, now_s: float) -> bool:
    """Whether a request is genuine and recent: for receivers."""
    if not timestamp.isdecimal() or abs(now_s - int(timestamp)) > TOLERANCE_S:
        return False
    return hmac.compare_digest(signature(secret, timestamp, body).encode(), given.encode())


def body_of(message: Message) -> bytes:
    """The JSON document of a message: the same bytes in every attempt."""
    shown = message.alerts[-MAX_ALERTS:]
    firing, resolved = (ids_in(message.alerts, state) for state in (AlertState.FIRING, AlertState.RESOLVED))
    document = {
        "version": 1,
        "message_id": message.message_id,
        "kind": message.kind,
        "route": message.route,
        "cause": message.cause,
        "language": message.language,
        "title": message.title,
        "text": message.text,
        "composed_ms": message.composed_ms,
        "told": {"firing": firing, "resolved": resolved},
        "alerts": [msgspec.structs.asdict(alert) for alert in shown],
        "alerts_left_out": len(message.alerts) - len(shown),
    }
    return msgspec.json.encode(document)


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Seconds to wait, from seconds or an HTTP date, at most an hour; None where it says nothing sensible."""
    if not header:
        return None
    try:
        wait_s = float(header) if header.strip().isdecimal() else parsedate_to_datetime(header).timestamp() - now_s
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, wait_s), LONGEST_RETRY_AFTER_S)


class Webhook:
    """A `Channel` to one URL. Open only inside a running event loop."""

    is_dry = False

    def __init__(self, url: str, secret: str, *, timeout_s: float, allow_private: bool) -> None:
        self._url = url
        self._secret = secret
        self._guard = Guard(allow_private)
        # no cookies, no proxies from the environment, no connection that outlives its check
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=self._guard.socket, force_close=True, use_dns_cache=False),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            trust_env=False,
            auto_decompress=False,
        )

    async def send(self, message: Message) -> Attempt:
        """One request. The answer's body is not read."""
        body = body_of(message)
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"campaign-streams/{__version__}",
            KEY_HEADER: message.message_id,
            TIMESTAMP_HEADER: timestamp,
            SIGNATURE_HEADER: signature(self._secret, timestamp, body),
        }
        self._guard.refused = ""
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                return _attempt(answer.status, answer.headers.get("Retry-After"))
        except TimeoutError:
            return TryAgain("no answer in time")
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError):
            return Refused("the URL is none; mend the route's url")
        except (aiohttp.ClientError, OSError) as error:
            if self._guard.refused:
                return Refused(
                    f"it leads to {self._guard.refused}, inside a private network; "
                    "mend the route's url, or set delivery.allow_private_networks = true"
                )
            return TryAgain(_reason(error))

    async def close(self) -> None:
        """Closes the session."""
        await self._session.close()


def _reason(error: Exception) -> str:
    """Without the URL, which may hold a token."""
    name = type(error).__name__
    return f"{name}: {error.strerror}" if isinstance(error, OSError) and error.strerror else name


def _attempt(status: int, retry_after: str | None) -> Attempt:
    if 200 <= status < 300:
        return Delivered(f"HTTP {status}")
    if status in _PASSING or status >= 500:
        return TryAgain(f"HTTP {status}", retry_after_s(retry_after, time.time()))
    if 300 <= status < 400:
        return Refused(f"HTTP {status}: redirects are not followed; give the final URL")
    return Refused(f"HTTP {status}")
