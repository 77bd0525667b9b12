"""A real Prometheus for a test: the deployment's own rules, looked at every second, on free loopback ports."""

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Final, Self

import yaml  # type: ignore[import-untyped]

from streams.adapters.embedded_broker import dies_with_parent, free_port
from streams.settings import LOOPBACK
from tests.support.prometheus_rules import ALERTS, RECORDING
from tests.support.tools import tool

EVERY: Final = "1s"
READY_S: Final = 30.0
ALWAYS: Final = {
    "groups": [
        {
            "name": "of the test",
            "rules": [{"alert": "AlwaysFires", "expr": "vector(1)", "labels": {"severity": "warning"}}],
        }
    ]
}
"""So that there is an alert whatever the machine's speed."""


class Prometheus:
    """`with Prometheus(directory, "127.0.0.1:6066") as prometheus:`; then `prometheus.ask(expression)`."""

    def __init__(self, directory: Path, target: str) -> None:
        self.directory = directory
        self.target = target
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        binary = tool("prometheus")
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in (RECORDING, ALERTS):
            self._write(path.name, _often(yaml.safe_load(path.read_text(encoding="utf-8"))))
        self._write("always.rules.yml", ALWAYS)
        self._write("prometheus.yml", self._configuration())
        with (self.directory / "prometheus.log").open("ab") as out:
            self._process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={self.directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self.directory / 'data'}",
                    f"--web.listen-address={LOOPBACK}:{self.port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=dies_with_parent(),
            )
        self._until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def _write(self, name: str, document: dict[str, Any]) -> None:
        (self.directory / name).write_text(yaml.safe_dump(document), encoding="utf-8")

    def _configuration(self) -> dict[str, Any]:
        return {
            "global": {"scrape_interval": EVERY, "evaluation_interval": EVERY},
            "rule_files": ["*.rules.yml"],
            "scrape_configs": [{"job_name": "campaign-streams", "static_configs": [{"targets": [self.target]}]}],
        }

    def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}/-/ready", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.directory / "prometheus.log").read_text()[-3000:])

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query, now.

        Raises:
            ValueError: Prometheus refuses the expression.
        """
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}/api/v1/query?{query}", timeout=10) as answer:
                data = json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.loads(error.read())["error"]) from None
        found: list[dict[str, Any]] = data["result"]
        assert data["resultType"] == "vector", expression
        return found


def _often(document: dict[str, Any]) -> dict[str, Any]:
    for group in document["groups"]:
        group["interval"] = EVERY
    return document
