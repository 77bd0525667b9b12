"""deploy/helm: rendered with several sets of values, checked against Kubernetes' schemas and against the settings."""

import json
import os
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from streams import __version__
from streams.agents.app import STOPS_WITHIN_S
from streams.settings import Settings, load_settings
from tests.support.tools import DEPLOY, run

CHART = DEPLOY / "helm" / "campaign-streams"
KUBERNETES = "1.33.0"
SECURE = (
    "settings.kafka.security_protocol=SASL_SSL",
    "settings.kafka.sasl_mechanism=SCRAM-SHA-512",
    "settings.kafka.sasl_username=ads",
    "secrets.existing={ads-secrets}",
    "tls.secretName=ads-tls",
    "tls.cert=tls.crt",
    "tls.key=tls.key",
)
VALUES: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "secure": SECURE,
    "everything": (
        *SECURE,
        "autoscaling.enabled=true",
        "autoscaling.sasl.secretName=keda",
        "notifier.enabled=true",
        "serviceMonitor.enabled=true",
        "serviceMonitor.labels.release=prometheus",
        "prometheusRule.enabled=true",
        "networkPolicy.enabled=true",
        "networkPolicy.from[0].namespaceSelector.matchLabels.name=monitoring",
        "networkPolicy.egress[0].ports[0].port=9093",
        "image.pullSecrets[0].name=registry",
        "worker.podAnnotations.team=ads",
        "worker.nodeSelector.disk=fast",
        "worker.tolerations[0].operator=Exists",
        "settings.invalid.data_centres=/etc/lists/data-centres.txt",
        "settings.invalid.data_centres_as_of=2026-11-01",
        "worker.extraVolumes[0].name=lists",
        "worker.extraVolumes[0].configMap.name=lists",
        "worker.extraVolumeMounts[0].name=lists",
        "worker.extraVolumeMounts[0].mountPath=/etc/lists",
    ),
    "small": (
        "settings.kafka.partitions=4",
        "worker.replicas=4",
        "worker.disruptionBudget.enabled=false",
        "worker.topologySpread=false",
        "serviceAccount.create=false",
        "settings.rules.pane_ms=5000",
        "settings.rules.horizons.clicks.lateness_ms=86400000",
        "settings.rules.horizons.clicks.dedupe_ms=172800000",
        "settings.worker.tick_ms=1000",
        "settings.delivery.lookback_ms=604800000",
        "secrets.create.CAMPAIGN_STREAMS_CLICKHOUSE__DSN=clickhouse://ads:secret@clickhouse:8123/ads",
    ),
}
everywhere = pytest.mark.parametrize("values", VALUES)
OF_OPERATORS = {"ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PrometheusRule"}
"""Kinds of KEDA and of the Prometheus Operator: Kubernetes has no schemas of them."""
HELD_BACK = {"CAMPAIGN_STREAMS_KAFKA__SASL_PASSWORD": "secret"}
"""What the Secret in `secrets.existing` would hold."""


def template(*values: str, file: Path | None = None, release: str = "ads") -> tuple[int, str, str]:
    options: list[str | Path] = [option for value in values for option in ("--set", value)]
    options += ["--values", file] if file else []
    done = run("helm", "template", release, CHART, "--kube-version", KUBERNETES, *options)
    return done.returncode, done.stdout, done.stderr


@cache
def rendered(values: str) -> tuple[dict[str, Any], ...]:
    code, out, errors = template(*VALUES[values])
    assert code == 0, errors
    return tuple(document for document in yaml.safe_load_all(out) if document)


def of_kind(values: str, kind: str) -> list[dict[str, Any]]:
    return [document for document in rendered(values) if document["kind"] == kind]


def pods(values: str) -> dict[str, dict[str, Any]]:
    """Pod specifications by component."""
    found = {}
    for kind in ("StatefulSet", "Deployment"):
        for document in of_kind(values, kind):
            template = document["spec"]["template"]
            found[template["metadata"]["labels"]["app.kubernetes.io/component"]] = template["spec"]
    return found


def settings_of(values: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """The settings that a pod would load."""
    for name in [name for name in os.environ if name.startswith("CAMPAIGN_STREAMS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (config,) = of_kind(values, "ConfigMap")
    secrets = {name: text for secret in of_kind(values, "Secret") for name, text in secret["stringData"].items()}
    for name, value in (config["data"] | secrets | (HELD_BACK if "sasl" in str(VALUES[values]) else {})).items():
        monkeypatch.setenv(name, value)
    return load_settings()


# By helm


def test_the_chart_is_without_a_fault() -> None:
    done = run("helm", "lint", "--strict", CHART, "--kube-version", KUBERNETES)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (("settings.kafka.partitions=0",), "partitions"),
        (("setings.kafka.partitions=1",), "setings"),
        (("settings.kafka.sasl_password=x",), "kafka"),
        (("settings.clickhouse.dsn=clickhouse://x",), "clickhouse"),
        (("settings.worker.checkpoint_store=directory",), "checkpoint_store"),
        (("secrets.create.PASSWORD=x",), "PASSWORD"),
        (("worker.replicas=13",), "only 12 workers can have a partition"),
        (("worker.terminationGracePeriodSeconds=10",), "terminationGracePeriodSeconds"),
        (("autoscaling.enabled=true", "autoscaling.maxReplicas=13"), "only 12 workers can have a partition"),
        (("autoscaling.enabled=true", "autoscaling.minReplicas=13"), "minReplicas is 13, but at most 12 are allowed"),
        (
            ("autoscaling.enabled=true", "autoscaling.minReplicas=4", "autoscaling.maxReplicas=3"),
            "minReplicas is 4, but at most 3 are allowed",
        ),
        (("settings.kafka.security_protocol=SASL_SSL",), "CAMPAIGN_STREAMS_KAFKA__SASL_PASSWORD"),
        ((*SECURE, "autoscaling.enabled=true"), "autoscaling.sasl names no Secret"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: tuple[str, ...], told: str) -> None:
    code, _, errors = template(*values)
    assert code != 0
    assert told in errors


LARGE = 10_000_000
LARGE_NUMBERS: dict[str, dict[str, Any]] = {
    "settings": {
        "kafka": {"retention_bytes": 17_179_869_184},
        "worker": {"max_dirty_rows": LARGE},
        "delivery": {"lookback_ms": 604_800_000},
        "rules": {"max_pane_keys": LARGE},
    },
    "worker": {"terminationGracePeriodSeconds": LARGE, "disruptionBudget": {"maxUnavailable": LARGE}},
    "autoscaling": {
        "enabled": True,
        "lagThreshold": LARGE,
        "pollingIntervalSeconds": LARGE,
        "scaleDownStabilizationSeconds": LARGE,
    },
    "notifier": {"enabled": True, "terminationGracePeriodSeconds": LARGE},
}
"""Every number of the values that has no small bound."""


def options_of(values: Any, path: str = "") -> list[str]:
    """The same values as for --set."""
    if not isinstance(values, dict):
        return [f"{path}={json.dumps(values)}"]
    return [option for name, value in values.items() for option in options_of(value, f"{path}.{name}".lstrip("."))]


@pytest.mark.parametrize("way", ["file", "set"])
def test_large_numbers_stay_whole(way: str, tmp_path: Path) -> None:
    """Helm reads numbers of a file as floating point, and would print them as 1e+07."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(LARGE_NUMBERS))
    code, out, errors = template(file=file) if way == "file" else template(*options_of(LARGE_NUMBERS))
    assert code == 0, errors
    assert "e+" not in out
    found = {document["kind"]: document for document in yaml.safe_load_all(out)}
    for kind in ("StatefulSet", "Deployment"):
        assert found[kind]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == LARGE
    assert found["PodDisruptionBudget"]["spec"]["maxUnavailable"] == LARGE
    scaled = found["ScaledObject"]["spec"]
    assert scaled["pollingInterval"] == LARGE
    behavior = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == LARGE
    assert scaled["triggers"][0]["metadata"]["lagThreshold"] == str(LARGE)
    config = found["ConfigMap"]["data"]
    assert config["CAMPAIGN_STREAMS_KAFKA__RETENTION_BYTES"] == "17179869184"
    assert json.loads(config["CAMPAIGN_STREAMS_RULES"]) == {"max_pane_keys": LARGE}


@pytest.mark.parametrize(("written", "meant"), [(0, 0), (2, 2), ("3", 3), ("50%", "50%")])
def test_a_disruption_budget_is_a_number_or_a_share(written: int | str, meant: int | str, tmp_path: Path) -> None:
    """Kubernetes takes a text for a share: one without % is refused."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"worker": {"disruptionBudget": {"maxUnavailable": written}}}))
    code, out, errors = template(file=file)
    assert code == 0, errors
    (budget,) = [each for each in yaml.safe_load_all(out) if each["kind"] == "PodDisruptionBudget"]
    assert budget["spec"]["maxUnavailable"] == meant


def test_names_that_look_like_numbers_stay_names(tmp_path: Path) -> None:
    """Labels, and names of Secrets, are text; a Service's name begins with a letter."""
    values: dict[str, Any] = {
        "settings": {"kafka": {"security_protocol": "SASL_SSL", "sasl_username": "ads"}},
        "secrets": {"existing": ["123"]},
        "tls": {"secretName": "456", "cert": "7", "key": "8"},
        "image": {"pullSecrets": [{"name": "789"}]},
        "autoscaling": {"enabled": True, "sasl": {"secretName": "12", "usernameKey": "1", "passwordKey": "2"}},
        **{name: {"enabled": True} for name in ("notifier", "serviceMonitor", "networkPolicy")},
    }
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    code, out, errors = template(file=file, release="123")
    assert code == 0, errors
    documents = list(yaml.safe_load_all(out))
    for document in documents:
        assert document["metadata"]["name"][0].isalpha()
        assert document["metadata"]["labels"]["app.kubernetes.io/instance"] == "123"
        assert not [value for key, value in named(document) if key in NAMES and not isinstance(value, str)]
    (monitor,) = [document for document in documents if document["kind"] == "ServiceMonitor"]
    assert monitor["spec"]["selector"]["matchExpressions"][0]["values"] == ["123"]


NAMES = {"name", "key", "secretName", "serviceAccountName", "app.kubernetes.io/instance"}


def named(document: Any) -> Iterator[tuple[str, Any]]:
    """Every field of a document that holds no further ones."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from named(value) if isinstance(value, dict | list) else ((key, value),)
    elif isinstance(document, list):
        for each in document:
            yield from named(each)


@pytest.mark.parametrize(
    ("values", "account"),
    [
        ((), "ads-campaign-streams"),
        (("serviceAccount.name=mine",), "mine"),
        (("serviceAccount.create=false",), "default"),
        (("serviceAccount.create=false", "serviceAccount.name=theirs"), "theirs"),
    ],
)
def test_pods_run_as_an_account_that_is_there(values: tuple[str, ...], account: str) -> None:
    """The namespace's own, where none is made and none is named."""
    code, out, errors = template(*values, "notifier.enabled=true")
    assert code == 0, errors
    documents = list(yaml.safe_load_all(out))
    specs = [d["spec"]["template"]["spec"] for d in documents if d["kind"] in ("StatefulSet", "Deployment")]
    assert [spec["serviceAccountName"] for spec in specs] == [account, account]
    made = {d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"}
    assert made == (set() if "serviceAccount.create=false" in values else {account})


# By Kubernetes' schemas


@everywhere
def test_manifests_are_valid_for_kubernetes(values: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for document in rendered(values):
        if document["kind"] not in OF_OPERATORS:
            kubernetes_validate.validate(document, KUBERNETES.rpartition(".")[0], strict=True)


# By what they mean


@everywhere
def test_the_settings_of_the_pods_load(values: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_of(values, monkeypatch, tmp_path)
    assert settings.worker.web_host == "0.0.0.0"
    assert settings.worker.checkpoint_store == "kafka"
    assert settings.delivery.in_worker == (values != "everything")
    if values == "small":
        assert settings.parsed_rules().pane_ms == 5000
        assert settings.delivery.lookback_ms == 604_800_000
    if values in ("secure", "everything"):
        assert settings.kafka.sasl_mechanism == "SCRAM-SHA-512"
        assert settings.kafka.ssl_keyfile == Path("/etc/campaign-streams/tls/tls.key")


@everywhere
def test_ports_and_probes_are_those_of_the_settings(
    values: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = settings_of(values, monkeypatch, tmp_path)
    ports = {"worker": settings.worker.web_port, "notifier": settings.delivery.web_port}
    for part, spec in pods(values).items():
        (container,) = spec["containers"]
        assert container["args"] == [part]
        assert container["ports"] == [{"name": "web", "containerPort": ports[part]}]
        assert container["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": "web"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "web"}
    for service in of_kind(values, "Service"):
        part = service["spec"]["selector"]["app.kubernetes.io/component"]
        assert service["spec"]["ports"][0]["port"] == ports[part]


@everywhere
def test_a_worker_has_time_to_end_and_few_rights(values: str) -> None:
    assert pods(values)["worker"]["terminationGracePeriodSeconds"] > STOPS_WITHIN_S
    for spec in pods(values).values():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


@everywhere
def test_what_is_referred_to_exists(values: str) -> None:
    names = {(document["kind"], document["metadata"]["name"]) for document in rendered(values)}
    known_secrets = {"ads-secrets", "ads-tls"} | {name for kind, name in names if kind == "Secret"}
    for spec in pods(values).values():
        for source in spec["containers"][0]["envFrom"]:
            if "configMapRef" in source:
                assert ("ConfigMap", source["configMapRef"]["name"]) in names
            else:
                assert source["secretRef"]["name"] in known_secrets
    for budget in of_kind(values, "PodDisruptionBudget"):
        labels = of_kind(values, "StatefulSet")[0]["spec"]["template"]["metadata"]["labels"]
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for service in of_kind(values, "Service"):
        templates = [
            d["spec"]["template"]["metadata"]["labels"]
            for k in ("StatefulSet", "Deployment")
            for d in of_kind(values, k)
        ]
        assert any(service["spec"]["selector"].items() <= labels.items() for labels in templates)


def test_scaling_ends_at_the_number_of_partitions_and_never_at_zero() -> None:
    (scaled,) = of_kind("everything", "ScaledObject")
    (config,) = of_kind("everything", "ConfigMap")
    assert scaled["spec"]["maxReplicaCount"] == int(config["data"]["CAMPAIGN_STREAMS_KAFKA__PARTITIONS"])
    assert scaled["spec"]["minReplicaCount"] >= 1
    assert scaled["spec"]["scaleTargetRef"]["name"] == of_kind("everything", "StatefulSet")[0]["metadata"]["name"]
    assert "replicas" not in of_kind("everything", "StatefulSet")[0]["spec"]
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["consumerGroup"] == Settings().kafka.group_id
    assert trigger["metadata"]["sasl"] == "scram_sha512"
    assert trigger["metadata"]["tls"] == "enable"
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    (access,) = of_kind("everything", "TriggerAuthentication")
    assert trigger["authenticationRef"]["name"] == access["metadata"]["name"]
    parameters = {reference["parameter"] for reference in access["spec"]["secretTargetRef"]}
    assert parameters == {"username", "password", "ca", "cert", "key"}


def test_prometheus_finds_workers_and_notifier_under_the_jobs_of_the_rules() -> None:
    (monitor,) = of_kind("everything", "ServiceMonitor")
    jobs = {service["metadata"]["labels"][monitor["spec"]["jobLabel"]] for service in of_kind("everything", "Service")}
    assert jobs == {"campaign-streams", "campaign-streams-notifier"}
    components = next(e["values"] for e in monitor["spec"]["selector"]["matchExpressions"] if "component" in e["key"])
    assert components == ["worker", "notifier"]


def test_the_rules_in_the_chart_are_those_of_prometheus() -> None:
    (rule,) = of_kind("everything", "PrometheusRule")
    files = ("alerts.rules.yml", "recording.rules.yml")
    groups = [group for name in files for group in yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["groups"]]
    assert rule["spec"]["groups"] == groups


def test_names_in_the_values_are_settings() -> None:
    """Without helm: what values.yaml says by default is known to the settings."""
    settings = yaml.safe_load((CHART / "values.yaml").read_text())["settings"]
    for section, fields in settings.items():
        if section != "rules":
            known = Settings.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
            assert fields.keys() <= known.keys(), section


def test_the_versions_are_one() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
