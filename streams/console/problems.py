"""Problems as documents (RFC 9457), without a word about what the caller may not see."""

from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from streams.console.documents import Problem

MEDIA_TYPE: Final = "application/problem+json"


class Trouble(Exception):
    """Ends a request with a problem."""

    def __init__(self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


def not_found(what: str) -> Trouble:
    """Also for what is there but not the caller's: both are the same answer."""
    return Trouble(HTTPStatus.NOT_FOUND, f"there is no such {what}, or it is not yours")


def response_of(trouble: Trouble) -> web.Response:
    """The problem as a response."""
    status = HTTPStatus(trouble.status)
    body = Problem(title=status.phrase, status=status.value, detail=trouble.detail)
    return web.Response(
        status=status.value, body=msgspec.json.encode(body), content_type=MEDIA_TYPE, headers=trouble.headers
    )
