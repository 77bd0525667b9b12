"""The worker's pages: metrics, health, status, and read-only SQL for whoever is on the same machine."""

import ipaddress
from typing import Any, cast

import faust
import orjson
from faust import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from streams.adapters.clickhouse_query import QueryLimits
from streams.agents.backstage import WorkerBackstage
from streams.agents.health import STARTING, document, liveness, readiness
from streams.agents.metrics_console import ConsoleCollector
from streams.agents.status import status
from streams.console.web import Console
from streams.errors import CampaignStreamsError, QueryRefused

MAX_SQL_BYTES = 100_000
JSON = "application/json"


def is_loopback(request: Any) -> bool:
    """Whether a request comes from this machine."""
    try:
        return ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False


def add_console(app: faust.App, engine: Any) -> None:
    """Puts the gate in front of every page, and adds the console's. Raises ConfigurationError for a wrong token."""
    settings = engine.settings
    console = Console(settings.console, settings.clickhouse, WorkerBackstage(engine))
    engine.registry.register(ConsoleCollector(console))
    console.install(cast(Any, app.web).web_app)


def add_pages(app: faust.App, engine: Any) -> None:
    """Registers the pages with Faust's web server, before it starts. Until the engine is ready they answer 503."""

    @app.page("/metrics")
    async def metrics(self: web.View, request: Any) -> Any:
        return self.bytes(generate_latest(engine.registry), content_type=CONTENT_TYPE_LATEST.split(";")[0])

    @app.page("/health/live")
    async def live(self: web.View, request: Any) -> Any:
        verdict = liveness(engine.turned_s_ago)
        return self.json(document("live", verdict), status=verdict.status)

    @app.page("/health/ready")
    async def ready(self: web.View, request: Any) -> Any:
        if not engine.is_ready:
            return self.json({"ready": False, "reasons": [STARTING]}, status=503)
        verdict = readiness(engine.keeper, engine.source.mine)
        partitions, sink_up = sorted(engine.keeper.owners), engine.publisher.failures_in_a_row == 0
        body = document("ready", verdict, partitions=partitions, sink_up=sink_up)
        return self.json(body, status=verdict.status)

    @app.page("/api/status")
    async def tell(self: web.View, request: Any) -> Any:
        if not engine.is_ready:
            return self.error(503, STARTING)
        limit = engine.settings.worker.top_campaigns
        asked = request.query.get("top", "")
        top = min(limit, int(asked)) if asked.isdecimal() else limit
        state = status(engine.keeper, engine.publisher, engine.source.highwater, top)
        return self.bytes(orjson.dumps(state), content_type=JSON)

    @app.page("/api/query")
    class Query(web.View):
        """POST a statement; answered only on loopback, with rows and time bounded."""

        async def post(self, request: Any) -> Any:
            """Runs a read-only statement."""
            if not is_loopback(request):
                return self.error(403, "SQL is answered on loopback only; query ClickHouse itself")
            if not engine.is_ready:
                return self.error(503, STARTING)
            body = await request.read()
            if len(body) > MAX_SQL_BYTES:
                return self.error(413, "the statement is too long")
            try:
                result = await engine.reader.query(body.decode("utf-8", "replace"), QueryLimits())
            except (QueryRefused, CampaignStreamsError) as error:
                return self.error(400, str(error))
            answer = {
                "columns": result.columns,
                "types": result.types,
                "rows": result.rows,
                "truncated": result.truncated,
            }
            return self.bytes(orjson.dumps(answer, default=str), content_type=JSON)
