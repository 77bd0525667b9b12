"""What Prometheus sees of delivery; all names begin with `campaign_streams_delivery_`.

* `owner`: 1 where this process delivers, 0 where another does;
* `messages_total{route, kind, outcome}`: delivered, failed (for good) and dry_run messages;
* `attempts_total{route}`, `retries_total{route}`: requests, and those after a message's first;
* `circuit_open{route}`: 1 while a receiver is left in peace; `circuit_opened_total{route}`;
* `queued_messages{route}`: composed, and neither delivered nor refused;
* `pending_alerts{route}`: alerts of which something is untold (they wait for their like, for quiet hours, a digest, …);
* `held_alerts{route}`: of these, what the hourly cap holds back;
* `alerts_total{event}`: without_route, unknown_routes, too_old, repeated, reopened, acknowledged, left_out, digest_off,
  refused (see `streams.stages.delivery.dispatcher`);
* `undecodable_records_total{topic}`, `internal_errors_total`, `rebuilds_total`.
"""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.adapters.delivery_circuit import CircuitState
from streams.agents.delivery import Delivery, DeliveryCounts

PREFIX: Final = "campaign_streams_delivery_"
EVENTS: Final = (
    *("without_route", "unknown_routes", "too_old", "repeated", "reopened"),
    *("acknowledged", "left_out", "digest_off", "refused"),
)


class DeliveryCollector(Collector):
    """Reads the counters, and the service that runs now, if any does: from any thread, of copies made at once."""

    def __init__(self, counts: DeliveryCounts, current: Callable[[], Delivery | None]) -> None:
        self.counts = counts
        self.current = current

    def collect(self) -> Iterator[Metric]:
        """Everything, at this moment."""
        delivery = self.current()
        yield GaugeMetricFamily(
            PREFIX + "owner", "Whether this process delivers.", value=float(delivery is not None and delivery.is_owner)
        )
        yield from self._counters(delivery)
        if delivery is not None:
            yield from _gauges(delivery)

    def _counters(self, delivery: Delivery | None) -> Iterator[Metric]:
        messages = _counter("messages", "Messages by what became of them.", "route", "kind", "outcome")
        attempts = _counter("attempts", "Attempts to deliver.", "route")
        retries = _counter("retries", "Attempts after the first of a message.", "route")
        for route, counts in dict(self.counts.senders).items():
            for (kind, outcome), count in dict(counts.outcomes).items():
                messages.add_metric([route, kind, outcome], count)
            attempts.add_metric([route], counts.attempts)
            retries.add_metric([route], counts.retries)
        alerts = _counter("alerts", "Alerts by what was done other than telling them.", "event")
        parts = [dict(self.counts.dispatcher), dict(delivery.dispatcher.counts) if delivery is not None else {}]
        for event in EVENTS:
            alerts.add_metric([event], sum(part.get(event, 0) for part in parts))
        undecodable = _counter("undecodable_records", "Records that are none.", "topic")
        for topic, count in dict(self.counts.undecodable).items():
            undecodable.add_metric([topic], count)
        yield from (messages, attempts, retries, alerts, undecodable)
        for name, value, text in (
            ("internal_errors", self.counts.internal_errors, "Mistakes after which the state was rebuilt."),
            ("rebuilds", self.counts.rebuilds, "Rebuilds of the state from the logs."),
        ):
            yield CounterMetricFamily(PREFIX + name, text, value=float(value))


def _gauges(delivery: Delivery) -> Iterator[Metric]:
    opened = _counter("circuit_opened", "How often a receiver's circuit has opened.", "route")
    is_open = _gauge("circuit_open", "Whether a receiver is left in peace.", "route")
    queued = _gauge("queued_messages", "Messages composed and not delivered.", "route")
    pending = _gauge("pending_alerts", "Alerts of which something is untold.", "route")
    held = _gauge("held_alerts", "Alerts that the hourly cap holds back.", "route")
    now_s = delivery.loop.time()
    for name, receiver in delivery.dispatcher.receivers.items():
        queued.add_metric([name], len(receiver.under_way))
        pending.add_metric([name], len(receiver.pending))
        held.add_metric([name], receiver.held_by_cap)
    for name, sender in dict(delivery.senders).items():
        is_open.add_metric([name], float(sender.circuit.state(now_s) is not CircuitState.CLOSED))
        opened.add_metric([name], sender.circuit.opened)
    yield from (opened, is_open, queued, pending, held)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, text, labels=labels)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)
