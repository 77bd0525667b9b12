"""The small parts of delivery: addresses, signatures, circuits, settings, documents."""

from pathlib import Path

import msgspec
import pytest

from streams.adapters.delivery_addresses import is_public
from streams.adapters.delivery_circuit import Circuit, CircuitState
from streams.adapters.delivery_routes import plan_of
from streams.adapters.webhooks import MAX_ALERTS, body_of, signature, verify
from streams.agents.delivery import DeliveryCounts
from streams.agents.delivery_app import delivers
from streams.agents.delivery_metrics import DeliveryCollector
from streams.agents.delivery_sender import SenderCounts
from streams.errors import ConfigurationError
from streams.events import Reason, Rejected
from streams.settings import DeliverySettings, Settings, load_settings
from streams.stages.delivery.dispatcher import Dispatcher
from streams.stages.delivery.messages import (
    Action,
    AlertCommand,
    Outcome,
    decode_alert,
    decode_command,
    decode_receipt,
    receipt_of,
)
from streams.stages.delivery.plan import DeliveryPlan, RoutePlan
from tests.support.delivery import NOON_MS, SECRET, alert

URL = "https://hooks.example/t"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("CAMPAIGN_STREAMS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:10.0.0.1", "2002:0a00:0001::1", "64:ff9b::a00:1", "no address", ""),
    ],
)
def test_what_is_not_of_the_internet_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


# Signatures


def test_a_signature_holds_for_its_body_time_and_secret_alone() -> None:
    signed = signature(SECRET, "1000", b"{}")
    assert signed == "v1=1e65e07b2d7e66504af097fc9b882761e0ae942c0635063792329cf38a85cff1"
    assert verify(SECRET, "1000", b"{}", signed, 1_200.0)
    assert not verify(SECRET, "1000", b"{} ", signed, 1_000.0)
    assert not verify(SECRET, "1001", b"{}", signed, 1_000.0)
    assert not verify("other", "1000", b"{}", signed, 1_000.0)
    assert not verify(SECRET, "1000", b"{}", signed, 1_301.0)
    assert not verify(SECRET, "never", b"{}", signed, 1_000.0)


def test_a_body_names_all_alerts_and_shows_the_newest() -> None:
    found = Dispatcher(DeliveryPlan(routes=(RoutePlan(name="default"),)))
    for n in range(MAX_ALERTS + 10):
        found.take_alert(alert(f"a{n}", at_ms=NOON_MS + n), NOON_MS)
    (message,) = found.due(NOON_MS + 60_000)
    document = msgspec.json.decode(body_of(message))
    assert len(document["told"]["firing"]) == MAX_ALERTS + 10
    assert (len(document["alerts"]), document["alerts_left_out"]) == (MAX_ALERTS, 10)
    assert document["alerts"][-1]["alert_id"] == f"a{MAX_ALERTS + 9}"
    assert body_of(message) == body_of(message)


# Circuits


def test_a_circuit_opens_after_failures_in_a_row_and_lets_one_probe_through() -> None:
    circuit = Circuit(failures=3, open_s=10)
    circuit.failed(0)
    circuit.failed(1)
    circuit.succeeded()
    for now_s in (2, 3):
        circuit.failed(now_s)
    assert circuit.state(3) is CircuitState.CLOSED
    circuit.failed(4)
    assert (circuit.state(5), circuit.wait_s(5)) == (CircuitState.OPEN, 9)
    assert circuit.state(14) is CircuitState.HALF_OPEN
    circuit.failed(14)
    assert circuit.state(15) is CircuitState.OPEN
    circuit.succeeded()
    assert circuit.state(15) is CircuitState.CLOSED


# Settings


def refused(**delivery: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(delivery=delivery)
    return str(caught.value)


def test_routes_come_from_the_file_and_their_secrets_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "campaign-streams.toml").write_text(
        f'[delivery]\nhourly_cap = 5\n[delivery.routes.ops]\nurl = "{URL}"\noperations = true\nlanguage = "zh"\n'
    )
    monkeypatch.setenv("CAMPAIGN_STREAMS_DELIVERY__ROUTES__OPS__SECRET", SECRET)
    settings = load_settings()
    (plan,) = plan_of(settings.delivery).routes
    assert (plan.name, plan.is_for_operations, plan.language, plan.hourly_cap) == ("ops", True, "zh", 5)
    assert SECRET not in repr(settings)
    assert URL not in repr(settings)
    assert delivers(settings)


@pytest.mark.parametrize(
    ("route", "what"),
    [
        ({"url": URL}, "routes.ops: secret is needed"),
        ({"url": "ftp://x", "secret": "s"}, "url must begin with https://"),
        ({"url": "http://x", "secret": "s"}, "routes.ops.url must begin with https://"),
        ({"kind": "apprise", "url": "slack"}, "url must be one of apprise"),
        *(
            (
                {"kind": "apprise", "url": f"{scheme}://127.0.0.1/hooks.example"},
                "routes.ops.url is a webhook whose address",
            )
            for scheme in ("json", "jsons", "XML", "forms", "apprise")
        ),
        ({"url": URL, "secret": "s", "time_zone": "Mars/Base"}, "time_zone: is no IANA time zone"),
        ({"url": URL, "secret": "s", "hourly_cup": 3}, "hourly_cup: is no setting; did you mean hourly_cap?"),
    ],
)
def test_a_route_that_makes_no_sense_is_refused_with_its_path_and_without_its_secret(
    route: dict[str, object], what: str
) -> None:
    told = refused(routes={"ops": route})
    assert what in told
    assert "hooks.example" not in told


def test_apprises_own_webhooks_are_taken_where_private_networks_are_allowed_and_chat_anywhere() -> None:
    routes = {"ops": {"kind": "apprise", "url": "json://127.0.0.1/x"}}
    assert DeliverySettings.model_validate({"routes": routes, "allow_private_networks": True}).routes
    assert DeliverySettings.model_validate({"routes": {"ops": {"kind": "apprise", "url": "feishu://TOKEN"}}}).routes


def test_names_of_routes_are_those_that_the_environment_can_name() -> None:
    assert "routes.Ops" in refused(routes={"Ops": {"url": URL, "secret": "s"}})


def test_without_routes_nothing_is_delivered_and_nothing_runs() -> None:
    assert not delivers(Settings())


# Documents


def test_documents_survive_their_way_through_the_topics() -> None:
    fired = alert("a1")
    said = AlertCommand(action=Action.SNOOZE, cause="k", until_ms=NOON_MS, by="x", at_ms=NOON_MS)
    found = Dispatcher(DeliveryPlan(routes=(RoutePlan(name="default"),)))
    found.take_alert(fired, NOON_MS)
    (message,) = found.due(NOON_MS + 60_000)
    receipt = receipt_of(message, Outcome.COMPOSED, NOON_MS)
    assert decode_alert(msgspec.json.encode(fired)) == fired
    assert decode_command(msgspec.json.encode(said)) == said
    assert decode_receipt(msgspec.json.encode(receipt)) == receipt


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", Rejected(Reason.EMPTY)),
        (b"{", Rejected(Reason.MALFORMED_JSON)),
        (b'{"action":"ack","by":"x","at_ms":1}', Rejected(Reason.MISSING_FIELD, "$.alert_id")),
        (b'{"action":"snooze","alert_id":"a","by":"x","at_ms":1}', Rejected(Reason.MISSING_FIELD, "$.until_ms")),
        (b'{"action":"ack","alert_id":"a","by":"","at_ms":1}', Rejected(Reason.OUT_OF_RANGE, "$.by")),
    ],
)
def test_a_command_that_is_none_is_a_value(raw: bytes, expected: Rejected) -> None:
    assert decode_command(raw) == expected


@pytest.mark.parametrize("raw", [None, b"", b"{", b"[]", b"\xff", b"[" * 10_000, b" " * 2_000_000])
def test_receipts_and_alerts_that_are_none_are_values(raw: bytes | None) -> None:
    assert isinstance(decode_receipt(raw), Rejected)
    assert isinstance(decode_alert(raw), Rejected)


# Metrics


def test_the_collector_tells_counters_when_no_service_runs() -> None:
    counts = DeliveryCounts()
    counts.senders["ops"] = SenderCounts()
    counts.senders["ops"].outcomes["push", "delivered"] = 3
    counts.dispatcher["too_old"] = 2
    samples = {
        (s.name, *s.labels.values()): s.value
        for metric in DeliveryCollector(counts, lambda: None).collect()
        for s in metric.samples
    }
    assert samples["campaign_streams_delivery_messages_total", "ops", "push", "delivered"] == 3
    assert samples["campaign_streams_delivery_alerts_total", "too_old"] == 2
    assert samples["campaign_streams_delivery_owner",] == 0
