"""From the settings: the plan of the pure dispatcher, and a channel to each receiver."""

from urllib.parse import urlsplit

from streams.adapters.delivery_channels import Channel, DryRun
from streams.adapters.notifiers import Notifier
from streams.adapters.webhooks import Webhook
from streams.settings import DeliverySettings, RouteSettings
from streams.stages.delivery.plan import DeliveryPlan, RoutePlan


def plan_of(settings: DeliverySettings) -> DeliveryPlan:
    """What the dispatcher needs to know."""
    return DeliveryPlan(
        routes=tuple(_route_plan(name, route, settings) for name, route in settings.routes.items()),
        group_wait_ms=settings.group_wait_ms,
        push_resolved=settings.push_resolved,
        push_within_ms=settings.push_within_ms,
        lookback_ms=settings.lookback_ms,
        max_under_way=settings.queue_messages,
    )


def _route_plan(name: str, route: RouteSettings, settings: DeliverySettings) -> RoutePlan:
    return RoutePlan(
        name=name,
        advertisers=route.advertisers,
        agencies=route.agencies,
        is_for_operations=route.operations,
        language=route.language,
        hourly_cap=route.hourly_cap or settings.hourly_cap,
        digest=route.digest or settings.digest,
        digest_hour=settings.digest_hour if route.digest_hour is None else route.digest_hour,
        time_zone=route.time_zone or settings.time_zone,
    )


def channel_of(name: str, route: RouteSettings, settings: DeliverySettings) -> Channel:
    """A way to the receiver. Call inside a running event loop.

    Raises:
        ConfigurationError: apprise is needed and missing, or does not understand the URL.
    """
    if settings.dry_run:
        return DryRun()
    url, timeout_s = route.url.get_secret_value(), settings.timeout_ms / 1000
    if route.kind == "apprise":
        return Notifier(name, url, timeout_s=timeout_s)
    secret = route.secret.get_secret_value() if route.secret else ""
    return Webhook(url, secret, timeout_s=timeout_s, allow_private=settings.allow_private_networks)


def masked_url(url: str) -> str:
    """Scheme and host of an https URL; of others the scheme alone, for what follows may be a token."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        return f"{parts.scheme}://{parts.hostname or ''}/…"
    return f"{parts.scheme or url.partition(':')[0]}://…"
