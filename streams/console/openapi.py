"""The OpenAPI 3.1 description, made from the operations and the types that handlers use."""

from typing import Any, Final

import msgspec

from streams import __version__
from streams.console.documents import Login, Problem, Session
from streams.console.parameters import EventsAsked, Parameters
from streams.console.problems import MEDIA_TYPE
from streams.console.routes import BASE, OPERATIONS, Operation

REF: Final = "#/components/schemas/{name}"
JSON: Final = "application/json"
_ABOUT: Final = (
    "Live figures of campaigns. Operators see everything. Agencies, advertisers, shops and creators see their own "
    "campaigns, and of these what is billed: fields marked `x-operators-only` are left out for them. Money is in "
    "micros of the currency beside it, times are UTC, and a ratio over zero is null."
)
_REASONS: Final = {
    "400": "A parameter is wrong; the detail names it.",
    "401": "A token is needed, or it does not hold.",
    "403": "This is for operators, or for this machine only.",
    "404": "It is not there, or not yours.",
    "429": "Too many requests; Retry-After tells when to come back.",
    "503": "The worker is starting, or ClickHouse does not answer.",
}


def description() -> dict[str, Any]:
    """The whole document."""
    kinds = [operation.answer for operation in OPERATIONS] + [Session, Login, Problem]
    asked = [operation.parameters for operation in OPERATIONS] + [EventsAsked]
    _, components = msgspec.json.schema_components([*kinds, *asked], ref_template=REF)
    names = {kind.__name__ for kind in asked}
    parameters = {kind.__name__: _parameters(kind, components) for kind in asked}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Campaign Streams", "version": __version__, "description": _ABOUT},
        "servers": [{"url": BASE}],
        "security": [{"token": []}, {"cookie": []}],
        "paths": _paths(parameters),
        "components": {
            "schemas": {name: each for name, each in sorted(components.items()) if name not in names},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "campaign_streams"},
            },
        },
    }


def _paths(parameters: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for operation in OPERATIONS:
        found[operation.path] = {"get": _operation(operation, parameters[operation.parameters.__name__])}
    found["/session"] = _session()
    found["/events"] = {
        "get": {
            "operationId": "streamEvents",
            "summary": "Live updates as server-sent events: `figures` (as /campaigns), `alert`, and `health`.",
            "parameters": parameters[EventsAsked.__name__],
            "responses": {
                "200": {"description": "A stream.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
                **_problems("400", "401", "403", "429", "503"),
            },
        }
    }
    return found


def _operation(operation: Operation, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    campaign = {
        "name": "campaign_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    }
    reasons = [*_REASONS] if operation.is_of_campaign else [each for each in _REASONS if each != "404"]
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": ([campaign] if operation.is_of_campaign else []) + parameters,
        "responses": {"200": _answer(operation.answer), **_problems(*reasons)},
    }
    if operation.operators_only:
        found["x-operators-only"] = True
    return found


def _answer(kind: type[Any]) -> dict[str, Any]:
    schema = {"$ref": REF.format(name=kind.__name__)}
    return {"description": (kind.__doc__ or "").strip().splitlines()[0], "content": {JSON: {"schema": schema}}}


def _problems(*codes: str) -> dict[str, Any]:
    schema = {"$ref": REF.format(name=Problem.__name__)}
    return {code: {"description": _REASONS[code], "content": {MEDIA_TYPE: {"schema": schema}}} for code in codes}


def _session() -> dict[str, Any]:
    login = {"$ref": REF.format(name=Login.__name__)}
    return {
        "get": {
            "operationId": "getSession",
            "summary": "Who asks, and how this console is set up.",
            "responses": {"200": _answer(Session), **_problems("401", "403", "429")},
        },
        "post": {
            "operationId": "logIn",
            "summary": "A token for a cookie (HttpOnly, SameSite=Strict).",
            "security": [],
            "requestBody": {"required": True, "content": {JSON: {"schema": login}}},
            "responses": {"200": _answer(Session), **_problems("400", "401", "403", "429")},
        },
        "delete": {
            "operationId": "logOut",
            "summary": "Ends the cookie.",
            "security": [],
            "responses": {"204": {"description": "It has ended."}, **_problems("403")},
        },
    }


def _parameters(kind: type[Parameters], components: dict[str, Any]) -> list[dict[str, Any]]:
    """A struct of parameters as those of a query string. Absent is absent: null cannot be said there."""
    schema = components[kind.__name__]
    found = []
    for name, each in schema.get("properties", {}).items():
        whole = _resolved(each, components)
        text = whole.pop("description", None)
        parameter: dict[str, Any] = {"name": name, "in": "query", "required": False, "schema": whole}
        found.append(parameter | ({"description": text} if text else {}))
    return found


def _resolved(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """Without the alternative null, and with what a reference leads to."""
    found = dict(schema)
    if "anyOf" in found:
        (only,) = [each for each in found.pop("anyOf") if each.get("type") != "null"]
        found = {**only, **found}
    reference = found.pop("$ref", None)
    if reference:
        found = {**components[reference.rsplit("/", 1)[1]], **found}
        found.pop("title", None)
    if found.get("default", ...) is None:
        del found["default"]
    return found
