"""The console on the worker's web server: the API's handlers, the login, the stream, and the page's files."""

import logging
from collections.abc import Awaitable, Callable
from functools import cache
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from streams import __version__
from streams.console.access import LOCAL_OPERATOR, Principal
from streams.console.documents import Login, Session
from streams.console.gate import COOKIE, HEADERS, PAGE, Gate
from streams.console.live import RETRY_MS, Hub
from streams.console.openapi import description
from streams.console.parameters import BadCursor, EventsAsked, Nothing
from streams.console.problems import Trouble, response_of
from streams.console.routes import BASE, OPERATIONS, Asked, Operation
from streams.console.service import Backstage, Service
from streams.console.source import Source
from streams.console.tokens import TokenBook
from streams.errors import CampaignStreamsError, QueryRefused
from streams.settings import ClickHouseSettings, ConsoleSettings

log = logging.getLogger(__name__)

MAX_BODY: Final = 4_096
MAX_QUERY: Final = 4_096
JSON: Final = "application/json"
TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
WHO: Final = web.RequestKey("who", Principal)
T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Asset(NamedTuple):
    """A file of the page."""

    body: bytes
    kind: str
    tag: str


@cache
def assets() -> dict[str, Asset]:
    """The page's files by name."""
    found = {}
    for file in files("streams.console").joinpath("static").iterdir():
        suffix = "." + file.name.rsplit(".", 1)[-1]
        if suffix in TYPES:
            body = file.read_bytes()
            found[file.name] = Asset(body, TYPES[suffix], f'"{sha256(body).hexdigest()[:32]}"')
    return found


class Console:
    """One worker's console. `install` it before the web server starts."""

    def __init__(self, settings: ConsoleSettings, clickhouse: ClickHouseSettings, backstage: Backstage) -> None:
        """Raises ConfigurationError where a token is wrong."""
        self.settings = settings
        self.book = TokenBook(settings)
        self.gate = Gate(settings, self.book)
        self._backstage = backstage
        self._clickhouse = clickhouse
        self.requests: dict[str, int] = {}
        self._source: Source | None = None
        self._service: Service | None = None
        self._hub: Hub | None = None

    def install(self, app: web.Application) -> None:
        """Puts the gate in front of every page, and adds the console's own."""
        app.middlewares.append(self._middleware)
        app.on_response_prepare.append(_secure)
        app.on_shutdown.append(self._on_shutdown)
        app.on_cleanup.append(self._on_cleanup)
        if not self.settings.enabled:
            return
        router = app.router
        for operation in OPERATIONS:
            router.add_get(BASE + operation.path, self._handler(operation), allow_head=False)
        router.add_get(f"{BASE}/openapi.json", self._description, allow_head=False)
        router.add_get(f"{BASE}/session", self._session, allow_head=False)
        router.add_post(f"{BASE}/session", self._log_in)
        router.add_delete(f"{BASE}/session", self._log_out)
        router.add_get(f"{BASE}/events", self._events, allow_head=False)
        router.add_get("/", _to_page)
        router.add_get(PAGE, _to_page)
        router.add_get(f"{PAGE}/", _file)
        router.add_get(f"{PAGE}/{{name}}", _file)

    @property
    def streams(self) -> int:
        """Open streams of live updates."""
        return self._hub.count if self._hub else 0

    async def _on_shutdown(self, app: web.Application) -> None:
        if self._hub is not None:
            await self._hub.close()

    async def _on_cleanup(self, app: web.Application) -> None:
        if self._source is not None:
            await self._source.close()

    def _served(self) -> tuple[Service, Hub]:
        """Made when first asked for: ClickHouse is not open before the worker is."""
        if self._service is None or self._hub is None:
            settings = self.settings
            self._source = Source(
                self._clickhouse, fresh_ms=settings.refresh_ms // 2, timeout_s=settings.query_timeout_s
            )
            self._service = Service(self._source, self._backstage)
            self._hub = Hub(
                self._service, every_ms=settings.refresh_ms, most=settings.max_streams, holds=self.book.holds
            )
        return self._service, self._hub

    # In front of everything

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets in who may, and makes documents of problems. What went wrong inside is told to the log alone."""
        try:
            who = await self.gate.admit(request)
            request[WHO] = who or LOCAL_OPERATOR._replace(scopes=())
            response = await handler(request)
        except Trouble as trouble:
            response = response_of(trouble)
        except web.HTTPException as error:
            if error.status < HTTPStatus.BAD_REQUEST:
                raise
            response = _as_problem(error)
        except (BadCursor, msgspec.ValidationError) as error:
            response = response_of(Trouble(HTTPStatus.BAD_REQUEST, str(error)))
        except QueryRefused as error:
            log.warning("console: %s: %s", request.path, error)
            response = response_of(Trouble(HTTPStatus.SERVICE_UNAVAILABLE, "this takes too long; ask for less"))
        except CampaignStreamsError as error:
            log.warning("console: %s: %s", request.path, error)
            response = response_of(Trouble(HTTPStatus.SERVICE_UNAVAILABLE, "ClickHouse does not answer; try again"))
        except Exception:
            log.exception("console: %s", request.path)
            response = response_of(Trouble(HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong; the log tells"))
        status = f"{response.status // 100}xx"
        self.requests[status] = self.requests.get(status, 0) + 1
        return response

    # The API

    def _handler(self, operation: Operation) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            who = request[WHO]
            if operation.operators_only and not who.is_operator:
                raise Trouble(HTTPStatus.FORBIDDEN, "this is for operators")
            campaign_id = _campaign_id(request) if operation.is_of_campaign else ""
            asked = Asked(who, campaign_id, _parameters(request, operation.parameters))
            service, _ = self._served()
            return _json(await operation.handle(service, asked))

        return handle

    async def _description(self, request: web.Request) -> web.StreamResponse:
        _parameters(request, Nothing)
        return web.Response(body=_described(), content_type=JSON, headers={"Cache-Control": "no-cache"})

    def _session_of(self, who: Principal) -> Session:
        return Session(
            scopes=[str(scope) for scope in who.scopes],
            is_operator=who.is_operator,
            is_open=not self.book.is_configured,
            refresh_ms=self.settings.refresh_ms,
            version=__version__,
        )

    async def _session(self, request: web.Request) -> web.StreamResponse:
        _parameters(request, Nothing)
        return _json(self._session_of(request[WHO]))

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        _refuse_other_sites(request)
        if request.content_type != JSON:
            raise Trouble(HTTPStatus.BAD_REQUEST, "the body must be JSON")
        body = await request.content.read(MAX_BODY + 1)
        if len(body) > MAX_BODY:
            raise Trouble(HTTPStatus.BAD_REQUEST, "the body is too long")
        try:
            login = msgspec.json.decode(body, type=Login)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Trouble(HTTPStatus.BAD_REQUEST, "the body must be an object with the field token") from None
        if not self.book.is_configured:
            return _json(self._session_of(request[WHO]))
        who = await self.gate.verified(request, login.token.strip())
        response = _json(self._session_of(who))
        response.set_cookie(
            COOKIE,
            login.token.strip(),
            max_age=self.settings.session_ms // 1000,
            httponly=True,
            samesite="Strict",
            secure=self.settings.secure_cookie or request.secure,
            path="/",
        )
        return response

    async def _log_out(self, request: web.Request) -> web.StreamResponse:
        _refuse_other_sites(request)
        response = web.Response(status=HTTPStatus.NO_CONTENT)
        response.del_cookie(COOKIE, path="/")
        return response

    async def _events(self, request: web.Request) -> web.StreamResponse:
        asked, who = _parameters(request, EventsAsked), request[WHO]
        _, hub = self._served()
        if hub.is_full:
            raise Trouble(HTTPStatus.SERVICE_UNAVAILABLE, "too many streams are open", {"Retry-After": "10"})
        if hub.has_its_share(who):
            self.gate.refused.add("streams")
            raise Trouble(
                HTTPStatus.TOO_MANY_REQUESTS, "this token has as many streams as one may", {"Retry-After": "10"}
            )
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        listener = hub.listen(who, asked.window)
        try:
            await response.prepare(request)
            await response.write(f"retry: {RETRY_MS}\n\n".encode())
            while not listener.is_closed:
                await response.write(await listener.next())
        except (ConnectionError, TimeoutError):  # whoever listened has gone
            pass
        finally:
            hub.leave(listener, asked.window)
        return response


@cache
def _described() -> bytes:
    return msgspec.json.encode(description())


def _json(document: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type=JSON, headers={"Cache-Control": "no-store"})


def _campaign_id(request: web.Request) -> str:
    text = request.match_info["campaign_id"]
    if not 0 < len(text) <= 128:
        raise Trouble(HTTPStatus.BAD_REQUEST, "campaign_id: 1 to 128 characters")
    return text


def _parameters(request: web.Request, kind: type[T]) -> T:
    """The query string as its type says.

    Raises:
        Trouble: a name is unknown or given twice, or a value is not of its type; the detail names it.
    """
    query = request.query
    if len(request.query_string) > MAX_QUERY:
        raise Trouble(HTTPStatus.BAD_REQUEST, "the query string is too long")
    twice = next((name for name in query if len(query.getall(name)) > 1), None)
    if twice is not None:
        raise Trouble(HTTPStatus.BAD_REQUEST, "a parameter is given twice")
    try:
        given = {name: value.encode("utf-8", "replace").decode() for name, value in query.items()}
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Trouble(HTTPStatus.BAD_REQUEST, f"parameters: {error}") from None


def _refuse_other_sites(request: web.Request) -> None:
    """Only our own page changes a session: browsers tell where a request comes from."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise Trouble(HTTPStatus.FORBIDDEN, "a session is changed from this console's own page only")


def _as_problem(error: web.HTTPException) -> web.StreamResponse:
    """What the web server itself refuses."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return response_of(Trouble(HTTPStatus(error.status), "there is no such page, or not with this method", headers))


async def _secure(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.pop("Server", None)


async def _to_page(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(f"{PAGE}/")


async def _file(request: web.Request) -> web.StreamResponse:
    asset = assets().get(request.match_info.get("name", "index.html"))
    if asset is None:
        raise web.HTTPNotFound
    headers = {"ETag": asset.tag, "Cache-Control": "no-cache"}
    if request.headers.get("If-None-Match") == asset.tag:
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return web.Response(body=asset.body, content_type=asset.kind, charset="utf-8", headers=headers)
