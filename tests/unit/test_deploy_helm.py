"""deploy/helm: rendered with several sets of values, checked against Kubernetes' schemas and against the settings."""

import os
import tomllib
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


def template(*values: str) -> tuple[int, str, str]:
    options = [option for value in values for option in ("--set", value)]
    done = run("helm", "template", "ads", CHART, "--kube-version", KUBERNETES, *options)
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
        (("settings.kafka.security_protocol=SASL_SSL",), "CAMPAIGN_STREAMS_KAFKA__SASL_PASSWORD"),
        ((*SECURE, "autoscaling.enabled=true"), "autoscaling.sasl names no Secret"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: tuple[str, ...], told: str) -> None:
    code, _, errors = template(*values)
    assert code != 0
    assert told in errors


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
