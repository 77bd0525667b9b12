"""deploy/compose.yaml and the Dockerfile: by the specification, and in agreement with the settings and each other."""

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer
import yaml  # type: ignore[import-untyped]
from typer.testing import CliRunner

from streams import __version__
from streams.agents.app import STOPS_WITHIN_S
from streams.cli import app
from streams.settings import ConsoleSettings, Settings, load_settings
from tests.support.console import bearer, served
from tests.support.tools import DEPLOY, REPOSITORY

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
OURS = {name for name, service in SERVICES.items() if str(service["image"]).startswith("campaign-streams:")}
PREFIX = "CAMPAIGN_STREAMS_"


def filled_in(text: str) -> str:
    """`${NAME:-default}` as compose sees it where nothing is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def environment(service: str) -> dict[str, str]:
    return {name: filled_in(str(value)) for name, value in SERVICES[service].get("environment", {}).items()}


def settings_of(service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """The settings that a container of ours would load; a variable that is no setting is an error."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    image = dict(re.findall(rf"({PREFIX}\w+)=(\S+)", DOCKERFILE))
    assert image
    for name, value in (image | environment(service)).items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value)
    return load_settings()


def published(service: str) -> dict[int, int]:
    """Ports of a container by ports of this machine."""
    found = {}
    for port in SERVICES[service].get("ports", ()):
        host, outside, inside = port.split(":")
        assert host == "127.0.0.1", f"{service} is published to everybody"
        found[int(outside)] = int(inside)
    return found


# Compose


def test_the_file_is_as_the_specification_says() -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="pip install compose-spec")
    found = compose_spec.PyCompose.from_json(filled_in(json.dumps(COMPOSE)))
    assert set(found.service_names()) == SERVICES.keys()


def test_the_specification_would_find_a_mistake() -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="pip install compose-spec")
    with pytest.raises(ValueError, match="healthi"):
        compose_spec.PyCompose.from_json(
            json.dumps({"services": {"a": {"image": "x", "depends_on": {"b": {"condition": "healthi"}}}}})
        )


def test_everything_that_is_asked_for_is_there() -> None:
    assert {"kafka", "clickhouse", "prometheus", "alertmanager", "grafana", "topics", "worker", "generator"} <= set(
        SERVICES
    )


def test_images_are_pinned_and_ours_has_this_version() -> None:
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[\w./-]+:v?\d+(\.\d+)+", service["image"]), name
    assert {SERVICES[name]["image"] for name in OURS} == {f"campaign-streams:{__version__}"}
    assert {"topics", "worker", "generator", "notifier"} == OURS


def test_kafka_is_the_version_that_the_tests_run_against() -> None:
    pom = (REPOSITORY / "tests/support/kafka/pom.xml").read_text()
    tested = re.search(r"kafka_2.13</artifactId>\s*<version>([\d.]+)<", pom)
    assert tested
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{tested[1]}"


def test_whoever_is_waited_for_can_be_and_nobody_waits_in_a_circle() -> None:
    order: list[str] = []
    while len(order) < len(SERVICES):
        ready = [n for n, s in SERVICES.items() if n not in order and set(s.get("depends_on", {})) <= set(order)]
        assert ready, "a circle"
        order += ready
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            check = SERVICES[other].get("healthcheck", {})
            if how["condition"] == "service_healthy":
                assert "test" in check, f"{name} waits for {other}, which has no health check"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert SERVICES[other]["restart"] == "no"
    assert order.index("kafka") < order.index("topics") < order.index("worker") < order.index("generator")


def test_volumes_and_mounted_files_are_there() -> None:
    named = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            if isinstance(volume, dict):
                continue  # chosen by a variable: test_the_console_lets_nobody_in_until_a_token_is_made
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            else:
                named.add(source)
    assert named == set(COMPOSE["volumes"])


@pytest.mark.parametrize("service", sorted(OURS))
def test_our_settings_load_and_reach_the_services(
    service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = settings_of(service, monkeypatch, tmp_path)
    host, port = settings.kafka.bootstrap_servers.split(":")
    assert f"INTERNAL://{host}:{port}" in SERVICES[host]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    dsn = urlsplit(settings.clickhouse.dsn.get_secret_value())
    engine = environment(dsn.hostname or "")
    assert dsn.path == f"/{engine['CLICKHOUSE_DB']}"
    assert (dsn.username, dsn.password) == (engine["CLICKHOUSE_USER"], engine["CLICKHOUSE_PASSWORD"])
    assert dsn.port in published("clickhouse").values()
    assert settings.worker.web_host == "0.0.0.0"
    assert settings.worker.state_dir == Path("/var/lib/campaign-streams")


def test_ports_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_of("worker", monkeypatch, tmp_path)
    assert list(published("worker").values()) == [settings.worker.web_port]
    assert list(published("notifier").values()) == [settings.delivery.web_port]
    assert f"127.0.0.1:{settings.worker.web_port}/health/ready" in str(SERVICES["worker"]["healthcheck"]["test"])
    assert f":{settings.delivery.web_port}/health/" in environment("notifier")["HEALTH_URL"]
    assert f"EXPOSE {settings.worker.web_port} {settings.delivery.web_port}\n" in DOCKERFILE
    for service in SERVICES:
        published(service)


def test_prometheus_scrapes_and_alerts_where_compose_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    document = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    targets = {t for job in document["scrape_configs"] for group in job["static_configs"] for t in group["targets"]}
    web_port = settings_of("worker", monkeypatch, tmp_path).worker.web_port
    assert targets == {f"worker:{web_port}", "127.0.0.1:9090"}
    (alerting,) = document["alerting"]["alertmanagers"]
    (target,) = alerting["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert int(port) in published(host).values()


def test_a_worker_has_time_to_end_in_order() -> None:
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > STOPS_WITHIN_S
    assert SERVICES["generator"]["init"] is True


def test_our_containers_have_few_rights() -> None:
    for name in OURS:
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert any("/var/lib/campaign-streams" in mount for mount in service["tmpfs"])


def test_what_our_containers_run_are_commands_with_their_options() -> None:
    root = typer.main.get_command(app)
    for name in OURS:
        words = [filled_in(word) for word in SERVICES[name]["command"]]
        command = root.commands[words[0]]  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            command = command.commands[words[1]]
        options = {opt for parameter in command.params for opt in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, name


async def test_the_console_lets_nobody_in_until_a_token_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No token by default. The line of the README makes one, into the file that the variable names."""
    settings = settings_of("worker", monkeypatch, tmp_path).console
    (mount,) = [volume for volume in SERVICES["worker"]["volumes"] if isinstance(volume, dict)]
    assert (mount["type"], mount["read_only"]) == ("bind", True)
    assert Path(mount["target"]) == settings.tokens_file
    assert mount["source"] == "${CONSOLE_TOKENS:-/dev/null}"
    nothing = settings.model_copy(update={"tokens_file": Path(filled_in(mount["source"]))})
    assert await answers(nothing) == {"/console/": 200, "/metrics": 200, "/api/v1/session": 401}

    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    compose = re.escape("docker compose -f deploy/compose.yaml")
    line = re.search(rf"{compose} run --rm --no-deps -T worker (tokens .*) >> deploy/([\w.]+)$", readme, re.MULTILINE)
    assert line
    assert f"export CONSOLE_TOKENS=./{line[2]}" in readme
    assert f"/deploy/{line[2]}" in (REPOSITORY / ".gitignore").read_text().splitlines()
    made = CliRunner().invoke(app, line[1].split())
    (token,) = (word for word in made.stderr.split() if word.startswith("cs_"))
    file = tmp_path / line[2]
    file.write_text(made.stdout)
    found = await answers(settings.model_copy(update={"tokens_file": file}), token)
    assert found == {"/console/": 200, "/metrics": 200, "/api/v1/session": 200}


async def answers(settings: ConsoleSettings, token: str = "") -> dict[str, int]:
    """What a worker with this console answers to another machine."""
    found = {}
    async with served(settings) as client:
        for path in ("/console/", "/metrics", "/api/v1/session"):
            headers = {"X-Forwarded-For": "192.0.2.1", **(bearer(token) if token else {})}
            async with client.get(path, headers=headers) as response:
                found[path] = response.status
    return found


def test_no_password_is_more_than_for_trying_out() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(re.findall(r"PASSWORD:-([^}]+)\}", text)) == {"only-for-trying-out"}


# The Dockerfile


def instructions() -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in joined.splitlines() if line.strip()]


def test_the_image_is_pinned_small_and_without_root() -> None:
    steps = instructions()
    assert [name for name, _ in steps].count("FROM") == 2
    last = steps[max(at for at, (name, _) in enumerate(steps) if name == "FROM") :]
    users = [words for name, words in last if name == "USER"]
    assert users == ["10001:10001"]
    assert not [words for name, words in last if name == "RUN" and "pip" in words]
    (base,) = [words for name, words in steps if name == "ARG" and words.startswith("PYTHON=")]
    assert re.fullmatch(r"PYTHON=3\.\d+\.\d+-slim-bookworm", base)
    required = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["requires-python"]
    assert tuple(map(int, base[7:].split(".")[:2])) >= tuple(map(int, required.removeprefix(">=").split(".")))


def test_the_image_runs_the_worker_and_tells_its_health() -> None:
    steps = dict(instructions())
    assert json.loads(steps["ENTRYPOINT"]) == ["campaign-streams"]
    assert json.loads(steps["CMD"]) == ["worker"]
    assert "HEALTH_URL" in steps["HEALTHCHECK"]
    assert f"HEALTH_URL=http://127.0.0.1:{Settings().worker.web_port}/health/live" in DOCKERFILE
    compile(json.loads(steps["HEALTHCHECK"].split("CMD ")[1])[2], "health check", "exec")


def test_what_is_copied_is_there_and_not_ignored() -> None:
    kept = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for name, words in instructions():
        if name == "COPY" and not words.startswith("--from"):
            copied |= set(words.split()[:-1])
    assert copied == kept
    assert all((REPOSITORY / path).exists() for path in copied)


def extras() -> list[str]:
    """The extras of the wheel that the image has."""
    return dict(words.split("=", 1) for name, words in instructions() if name == "ARG")["EXTRAS"].split(",")


def test_the_image_has_the_libraries_that_the_project_asks_for() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (DEPLOY / "constraints.txt").read_text(), re.MULTILINE))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for e in extras() for r in project["optional-dependencies"][e])]
    for requirement in wanted:
        name, version = re.split(r"[=>]=", requirement)
        assert pins[name] == version or ">=" in requirement, requirement


def test_the_image_has_what_the_runbook_asks_of_its_commands() -> None:
    """`archive` and `load` read and write Parquet unless told otherwise, and that is an extra."""
    command = typer.main.get_command(app).commands["archive"]  # type: ignore[attr-defined]
    (form,) = [parameter for parameter in command.params if parameter.name == "form"]
    assert form.default == "parquet"
    runbook = (DEPLOY / "RUNBOOK.md").read_text(encoding="utf-8")
    calls = re.findall(r"campaign-streams archive ([^`\n]+)", runbook)
    assert calls
    if not all("--format ndjson" in words for words in calls):
        assert "files" in extras()


# The example of the settings


def test_the_example_shows_every_section() -> None:
    document = tomllib.loads((DEPLOY / "campaign-streams.example.toml").read_text())
    assert document.keys() == Settings.model_fields.keys() - {"identity"}
    assert document["delivery"]["routes"]
