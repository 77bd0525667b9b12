"""Thin start of the partition's alerts: overwrite me with the real one (same interface)."""

from typing import Any

from streams.signals import Alert
from streams.stages.alerting.facts import PartitionFacts


class PartitionAlerts:
    def evaluate(self, facts: PartitionFacts) -> list[Alert]:
        return []

    def snapshot(self) -> Any:
        return None

    def restore(self, snapshot: Any) -> None: ...
