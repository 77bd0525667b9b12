"""What Prometheus sees of the console: how much is asked, and how often nobody was let in. Never who."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.agents.metrics import PREFIX
from streams.console.web import Console


class ConsoleCollector(Collector):
    """Counters of one worker's web server."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def collect(self) -> Iterator[Metric]:
        """At this moment."""
        console = self._console
        answered = CounterMetricFamily(
            PREFIX + "web_requests", "Requests answered, by class of status.", labels=["status"]
        )
        for status, count in list(console.requests.items()):
            answered.add_metric([status], count)
        refused = CounterMetricFamily(
            PREFIX + "web_refused",
            "Requests that were not let in: token, scope, rate, streams, not_local.",
            labels=["reason"],
        )
        for why, count in list(console.gate.refused.counts.items()):
            refused.add_metric([why], count)
        yield from (answered, refused)
        text = "Addresses and tokens that the bounded rate limit forgot."
        yield CounterMetricFamily(PREFIX + "web_limits_forgotten", text, value=float(console.gate.forgotten))
        yield GaugeMetricFamily(PREFIX + "console_streams", "Open streams of live updates.", value=console.streams)
