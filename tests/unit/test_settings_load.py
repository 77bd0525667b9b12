"""The settings: where they come from, what contradicts itself, and that secrets stay masked."""

import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from streams.errors import ConfigurationError
from streams.events import Input
from streams.rules import DAY_MS, Rules
from streams.settings import CONFIG_VARIABLE, KafkaSettings, Settings, load_settings

SECRET = "hunter2-correct-horse"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("CAMPAIGN_STREAMS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def written(tmp_path: Path, text: str, name: str = "campaign-streams.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def refused(**overrides: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**overrides)
    return str(caught.value)


# Sources


def test_without_anything_the_defaults_hold() -> None:
    settings = load_settings()
    assert settings.kafka.bootstrap_servers == "127.0.0.1:9092"
    assert settings.worker.web_host == "127.0.0.1"
    assert settings.parsed_rules() == Rules()


def test_a_toml_file_in_the_working_directory_is_read(tmp_path: Path) -> None:
    written(tmp_path, '[kafka]\nbootstrap_servers = "k:1"\n[rules]\npane_ms = 5000\n')
    settings = load_settings()
    assert settings.kafka.bootstrap_servers == "k:1"
    assert settings.parsed_rules().pane_ms == 5_000


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[kafka", "campaign-streams.toml is no TOML: "),
        (b"\xff", "campaign-streams.toml is no UTF-8 text; save it as UTF-8"),
        (
            b"[worker]\ntick_mss = 1\n",
            "worker.tick_mss: is no setting; did you mean tick_ms?; mend campaign-streams.toml",
        ),
        (b"[delivery.routes.o]\nurl='x'\nkinds='x'\n", "delivery.routes.o.kinds: is no setting; did you mean kind?"),
        (b"zzz = 1\n", "zzz: is no setting; known are kafka, clickhouse"),
        (b"[worker]\ntick_ms = 1\nfoo = 1\n", "50, and worker.foo: is no setting"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_the_file_and_a_remedy(
    tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "campaign-streams.toml").write_bytes(content)
    assert told in refused()


def test_the_file_that_the_environment_names_is_read_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, '[kafka]\nbootstrap_servers = "here:1"\n')
    monkeypatch.setenv(
        CONFIG_VARIABLE, str(written(tmp_path, '[kafka]\nbootstrap_servers = "named:1"\n', "other.toml"))
    )
    assert load_settings().kafka.bootstrap_servers == "named:1"


def test_a_file_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "none.toml"))
    message = refused()
    assert "none.toml" in message
    assert "create it or unset" in message


def test_the_environment_is_stronger_than_the_file_and_an_argument_stronger_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, '[kafka]\nbootstrap_servers = "file:1"\ngroup_id = "file"\npartitions = 9\n')
    monkeypatch.setenv("CAMPAIGN_STREAMS_KAFKA__BOOTSTRAP_SERVERS", "environment:1")
    monkeypatch.setenv("CAMPAIGN_STREAMS_KAFKA__GROUP_ID", "environment")
    kafka = load_settings(kafka={"bootstrap_servers": "argument:1"}).kafka
    assert (kafka.bootstrap_servers, kafka.group_id, kafka.partitions) == ("argument:1", "environment", 9)


def test_numbers_and_truths_of_the_environment_are_read_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGN_STREAMS_KAFKA__PARTITIONS", "12")
    monkeypatch.setenv("CAMPAIGN_STREAMS_KAFKA__CREATE_TOPICS", "true")
    monkeypatch.setenv("CAMPAIGN_STREAMS_CLICKHOUSE__TIMEOUT_S", "2.5")
    settings = load_settings()
    assert (settings.kafka.partitions, settings.kafka.create_topics, settings.clickhouse.timeout_s) == (12, True, 2.5)


def test_rules_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGN_STREAMS_RULES", '{"dimensions": ["region"]}')
    monkeypatch.setenv("CAMPAIGN_STREAMS_RULES__PANE_MS", "30000")
    rules = load_settings().parsed_rules()
    assert (rules.pane_ms, rules.dimensions) == (30_000, ("region",))


def test_one_value_of_one_horizon_may_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGN_STREAMS_RULES__HORIZONS__CLICKS__LATENESS_MS", "1000")
    horizons = load_settings().parsed_rules().horizons
    assert (horizons[Input.CLICKS].lateness_ms, horizons[Input.CLICKS].dedupe_ms) == (1_000, DAY_MS)
    assert {s: h for s, h in horizons.items() if s is not Input.CLICKS} == {
        s: h for s, h in Rules().horizons.items() if s is not Input.CLICKS
    }


# What is wrong


def test_every_wrong_field_is_named_at_once() -> None:
    assert "worker.web_port" in refused(worker={"web_port": 0})  # the worker is asked through it
    message = refused(kafka={"partitions": 0, "assignment": "some"}, worker={"tick_ms": 5, "web_port": 70_000})
    for name in ("kafka.partitions", "kafka.assignment", "worker.tick_ms", "worker.web_port"):
        assert name in message


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("kafka", "security_protocol", "TLS"),
        ("kafka", "sasl_mechanism", "GSSAPI"),
        ("kafka", "session_timeout_ms", 999),
        ("kafka", "replication_factor", 0),
        ("clickhouse", "flush_ms", 49),
        ("clickhouse", "max_rows_per_insert", 99),
        ("clickhouse", "timeout_s", 0),
        ("clickhouse", "dsn", "http://there"),
        ("worker", "checkpoint_store", "memory"),
        ("worker", "checkpoint_ms", 499),
        ("worker", "silent_ms", 999),
        ("worker", "max_dirty_rows", 999),
        ("worker", "max_batch_records", 0),
        ("worker", "top_campaigns", 1_001),
        ("worker", "log_level", "chatty"),
        ("worker", "log_epoch", 65_536),
        ("identity", "key_id", ""),
    ],
)
def test_a_value_beyond_its_bounds_is_refused_by_name(section: str, name: str, value: object) -> None:
    assert f"{section}.{name}" in refused(**{section: {name: value}})


@pytest.mark.parametrize("section", ["kafka", "clickhouse", "worker", "identity"])
def test_a_misspelt_name_is_refused_by_name(section: str) -> None:
    assert f"{section}.partitionss" in refused(**{section: {"partitionss": 1}})


def test_a_misspelt_section_is_refused_by_name(tmp_path: Path) -> None:
    written(tmp_path, "[kafak]\npartitions = 3\n")
    assert "kafak" in refused()


def test_a_misspelt_name_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGN_STREAMS_KAFKA__PARTITIONSS", "3")
    assert "kafka.partitionss" in refused()


def test_a_misspelt_section_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGN_STREAMS_KAFAK__PARTITIONS", "3")
    message = refused()
    assert "CAMPAIGN_STREAMS_KAFAK__PARTITIONS" in message
    assert "kafka" in message


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "kafka = {")
    assert refused().startswith("settings:")


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ({"pane_ms": 7}, "pane_ms"),
        ({"pain_ms": 7}, "pain_ms"),
        ({"dimensions": ["weather"]}, "weather"),
        ({"horizons": {"clicks": {"lateness_ms": 10**12}}}, "horizons.clicks"),
        ({"horizons": {"views": {"lateness_ms": 1, "dedupe_ms": 1}}}, "views"),
        ({"horizons": "long"}, "horizons"),
        ({"report_pane_ms": 61_000}, "report_pane_ms"),
    ],
)
def test_wrong_rules_are_refused_at_load_by_name(rules: dict[str, object], named: str) -> None:
    message = refused(rules=rules)
    assert named in message
    assert "mend the section [rules]" in message


# Checks across fields


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("given", [{}, {"sasl_username": "u"}, {"sasl_password": SECRET}])
def test_sasl_needs_both_credentials(protocol: str, given: dict[str, str]) -> None:
    message = refused(kafka={"security_protocol": protocol, **given})
    assert "sasl_username and sasl_password are needed" in message
    assert SECRET not in message


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_without_sasl_no_credentials_are_needed(protocol: str) -> None:
    assert load_settings(kafka={"security_protocol": protocol}).kafka.sasl_password is None


def test_sasl_with_both_credentials_is_fine() -> None:
    given = {"security_protocol": "SASL_SSL", "sasl_username": "u", "sasl_password": SECRET}
    kafka = load_settings(kafka=given).kafka
    assert kafka.sasl_password is not None
    assert kafka.sasl_password.get_secret_value() == SECRET


@pytest.mark.parametrize("dsn", ["chdb:///var/data", "clickhouse://u@h:1/d", "clickhouses://u:p@h/d"])
def test_a_dsn_begins_with_a_known_scheme(dsn: str) -> None:
    assert load_settings(clickhouse={"dsn": dsn}).clickhouse.dsn.get_secret_value() == dsn


# Secrets


def with_secrets() -> Settings:
    return load_settings(
        kafka={"security_protocol": "SASL_SSL", "sasl_username": "u", "sasl_password": SECRET},
        clickhouse={"dsn": f"clickhouse://u:{SECRET}@h/d"},
        identity={"key": SECRET},
    )


def test_secrets_are_masked_wherever_settings_are_shown() -> None:
    settings = with_secrets()
    shown = [repr(settings), str(settings), f"{settings.kafka}", settings.model_dump_json(), str(settings.model_dump())]
    assert all(SECRET not in text for text in shown)
    assert all("****" in text for text in shown)


@pytest.mark.parametrize(
    "overrides",
    [
        {"clickhouse": {"dsn": f"http://u:{SECRET}@h"}},
        {"clickhouse": {"dsn": f"clickhouse://u:{SECRET}@h", "flush_ms": 1}},
        {"kafka": {"sasl_password": SECRET, "security_protocol": "SASL_SSL"}},
        {"kafka": {"sasl_password": [SECRET]}},
        {"kafka": {"sasl_pasword": SECRET}},
        {"identity": {"key": SECRET, "key_id": ""}},
        {"identity": SECRET},
    ],
)
def test_secrets_are_in_no_error_and_in_nothing_that_caused_it(overrides: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**overrides)
    error = caught.value
    assert SECRET not in str(error)
    lines = traceback.TracebackException.from_exception(error).format()
    assert SECRET not in "".join(line for line in lines if "Error" in line)


def test_a_secret_in_a_broken_file_is_in_no_error(tmp_path: Path) -> None:
    written(tmp_path, f'[kafka]\nsasl_password = "{SECRET}"\nbroken =')
    assert SECRET not in refused()


def test_a_secret_in_a_broken_variable_is_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGN_STREAMS_KAFKA", f'{{"sasl_password": "{SECRET}"')
    assert SECRET not in refused()


def test_settings_cannot_be_changed() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.kafka.partitions = 5  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.kafka = KafkaSettings()  # type: ignore[misc]


def test_every_setting_is_described() -> None:
    for name, section in Settings.model_fields.items():
        fields = getattr(section.annotation, "model_fields", None)
        described = fields.values() if fields else [section]
        assert all(field.description for field in described), name
