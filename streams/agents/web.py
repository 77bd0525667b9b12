"""The worker's pages: metrics, health, status, and read-only SQL for whoever is on the same machine."""

import ipaddress
from typing import Any

import faust
import orjson
from faust import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from streams.adapters.clickhouse_query import QueryLimits
from streams.agents.status import status
from streams.errors import CampaignStreamsError, QueryRefused

MAX_SQL_BYTES = 100_000
JSON = "application/json"
NOT_READY = "the worker is starting"


def is_loopback(request: Any) -> bool:
    """Whether a request comes from this machine."""
    try:
        return ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False


def add_pages(app: faust.App, engine: Any) -> None:
    """Registers the pages with Faust's web server, before it starts. Until the engine is ready they answer 503."""

    @app.page("/metrics")
    async def metrics(self: web.View, request: Any) -> Any:
        return self.bytes(generate_latest(engine.registry), content_type=CONTENT_TYPE_LATEST.split(";")[0])

    @app.page("/health/live")
    async def live(self: web.View, request: Any) -> Any:
        return self.json({"live": True})

    @app.page("/health/ready")
    async def ready(self: web.View, request: Any) -> Any:
        if not engine.is_ready:
            return self.error(503, NOT_READY)
        keeper = engine.keeper
        is_ready = bool(keeper.owners) and not keeper.is_saturated
        return self.json({"ready": is_ready, "partitions": sorted(keeper.owners)}, status=200 if is_ready else 503)

    @app.page("/api/status")
    async def tell(self: web.View, request: Any) -> Any:
        if not engine.is_ready:
            return self.error(503, NOT_READY)
        limit = engine.settings.worker.top_campaigns
        asked = request.query.get("top", "")
        top = min(limit, int(asked)) if asked.isdecimal() else limit
        document = status(engine.keeper, engine.publisher, engine.source.highwater, top)
        return self.bytes(orjson.dumps(document), content_type=JSON)

    @app.page("/api/query")
    class Query(web.View):
        """POST a statement; answered only on loopback, with rows and time bounded."""

        async def post(self, request: Any) -> Any:
            """Runs a read-only statement."""
            if not is_loopback(request):
                return self.error(403, "SQL is answered on loopback only; query ClickHouse itself")
            if not engine.is_ready:
                return self.error(503, NOT_READY)
            body = await request.read()
            if len(body) > MAX_SQL_BYTES:
                return self.error(413, "the statement is too long")
            try:
                result = await engine.reader.query(body.decode("utf-8", "replace"), QueryLimits())
            except (QueryRefused, CampaignStreamsError) as error:
                return self.error(400, str(error))
            document = {
                "columns": result.columns,
                "types": result.types,
                "rows": result.rows,
                "truncated": result.truncated,
            }
            return self.bytes(orjson.dumps(document, default=str), content_type=JSON)
