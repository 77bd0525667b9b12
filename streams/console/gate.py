"""Who may reach which page: judged once, in front of every page of the worker's web server.

With a token configured, every request needs one: in the header Authorization, or in the cookie that the page's login
sets. Without any, only this machine is served, as operator: the peer is on loopback, the name in Host is one of
loopback (a page elsewhere may have let its own name lead here), and no proxy has passed the request on.
"""

import ipaddress
import math
from http import HTTPStatus
from typing import Final, NamedTuple

from aiohttp import web

from streams.console.access import LOCAL_OPERATOR, Principal
from streams.console.limits import RateLimit, address_key
from streams.console.problems import Trouble
from streams.console.routes import BASE
from streams.console.tokens import TokenBook
from streams.settings import ConsoleSettings

COOKIE: Final = "campaign_streams"
PAGE: Final = "/console"
MAX_TOKEN: Final = 200
PROBES: Final = frozenset({"/health/live", "/health/ready"})
OPEN: Final = frozenset({"/", f"{BASE}/openapi.json"})
METRICS: Final = "/metrics"
_FORWARDED: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")
_LOCAL_NAMES: Final = frozenset({"localhost"})
_ONLY_HERE: Final = (
    "no token is configured, so only this machine is served; make one with `campaign-streams tokens new`"
)
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Refusals(NamedTuple):
    """How often nobody was let in, by why: for /metrics."""

    counts: dict[str, int]

    def add(self, why: str) -> None:
        """One more."""
        self.counts[why] = self.counts.get(why, 0) + 1


class Gate:
    """Judges requests by their peer and their token."""

    def __init__(self, settings: ConsoleSettings, book: TokenBook) -> None:
        self.settings = settings
        self.book = book
        self.refused = Refusals({})
        self._by_token = RateLimit(settings.requests_per_minute)
        self._by_address = RateLimit(settings.requests_per_minute)
        self._failures = RateLimit(settings.failures_per_minute)

    @property
    def forgotten(self) -> int:
        """Addresses and tokens that the bounded maps have let go of."""
        return sum(limit.forgotten for limit in (self._by_token, self._by_address, self._failures))

    async def admit(self, request: web.Request) -> Principal | None:
        """Who asks; None where the page is for everybody.

        Raises:
            Trouble: nobody who may.
        """
        path = request.path
        if path in PROBES or (path == METRICS and self.settings.open_metrics):
            return None
        is_api = path.startswith(f"{BASE}/")
        if not self.book.is_configured:
            self._judge_local(request)
            if is_api:
                self._charge(self._by_address, address_key(request.remote))
            return LOCAL_OPERATOR
        if path in OPEN or path == PAGE or path.startswith(f"{PAGE}/") or self._is_session_change(request):
            self._charge(self._by_address, address_key(request.remote))
            return None
        who = await self.known(request)
        self._charge(self._by_token, who.token_id)
        if not is_api and not who.is_operator:
            raise self._trouble("scope", HTTPStatus.FORBIDDEN, "this is for operators")
        return who

    def _is_session_change(self, request: web.Request) -> bool:
        return request.path == f"{BASE}/session" and request.method in ("POST", "DELETE")

    def _judge_local(self, request: web.Request) -> None:
        if is_local(request):
            return
        raise self._trouble("not_local", HTTPStatus.FORBIDDEN, _ONLY_HERE)

    async def known(self, request: web.Request) -> Principal:
        """Whose token the request carries.

        Raises:
            Trouble: it carries none, or none that holds.
        """
        token = token_of(request)
        if token is None:
            self._charge(self._by_address, address_key(request.remote))
            raise self._unknown("a token is needed: in the header Authorization, or by the page's login")
        return await self.verified(request, token)

    async def verified(self, request: web.Request, token: str) -> Principal:
        """Whose token this is. Wrong ones are counted against the address, before anything costly is done.

        Raises:
            Trouble: it does not hold, or there were too many wrong ones.
        """
        who = self.book.remembered(token)
        if who is not None:
            return who
        address = address_key(request.remote)
        wait_s = self._failures.wait_s(address)
        if wait_s:
            raise self._too_many(wait_s)
        who = await self.book.verify(token)
        if who is None:
            self._failures.take(address)
            raise self._unknown("the token does not hold")
        return who

    def _charge(self, limit: RateLimit, key: str) -> None:
        wait_s = limit.take(key)
        if wait_s:
            raise self._too_many(wait_s)

    def _too_many(self, wait_s: float) -> Trouble:
        headers = {"Retry-After": str(math.ceil(wait_s))}
        return self._trouble("rate", HTTPStatus.TOO_MANY_REQUESTS, "too many requests; come back later", headers)

    def _unknown(self, detail: str) -> Trouble:
        headers = {"WWW-Authenticate": 'Bearer realm="campaign-streams"'}
        return self._trouble("token", HTTPStatus.UNAUTHORIZED, detail, headers)

    def _trouble(self, why: str, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> Trouble:
        self.refused.add(why)
        return Trouble(status, detail, headers)


def token_of(request: web.Request) -> str | None:
    """The token that a request carries. The header is stronger than the cookie."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()[:MAX_TOKEN]
    cookie = request.cookies.get(COOKIE)
    return cookie[:MAX_TOKEN] if cookie else None


def is_local(request: web.Request) -> bool:
    """Whether a request was made on this machine, to this machine, by its own name."""
    if any(name in request.headers for name in _FORWARDED):
        return False
    return _is_loopback(request.remote or "") and _is_local_name(request.headers.get("Host", ""))


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def _is_local_name(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() in _LOCAL_NAMES or _is_loopback(name)
