"""Pseudonyms on the way in: no raw user id or address is stored where a key is configured."""

import pytest
from pydantic import SecretStr

from streams.errors import ConfigurationError
from streams.jobs.identity import Identity, canonical_address, network_of
from streams.settings import IdentitySettings

KEYED = Identity.from_settings(IdentitySettings(key=SecretStr("a key of thirty-two bytes, or so"), key_id="k7"))


def applied(identity: Identity, **document: object) -> dict[str, object]:
    identity.apply(document)
    return document


def test_with_a_key_every_identifier_becomes_a_pseudonym_and_the_network_stays() -> None:
    found = applied(KEYED, user_id="alice", device_id="phone-1", address="203.0.113.77", event_id="e1")
    assert found.keys() == {"user_id", "device_id", "address_id", "network", "identity_key_id", "event_id"}
    assert found["network"] == "203.0.113.0/24"
    assert found["identity_key_id"] == "k7"
    assert found["event_id"] == "e1"
    for field in ("user_id", "device_id", "address_id"):
        prefix, digest = str(found[field]).split(":")
        assert prefix == "k7"
        assert len(bytes.fromhex(digest)) == 16
    assert not {"alice", "phone-1", "203.0.113.77"} & set(found.values())


def test_without_a_key_identifiers_stay_and_the_address_goes_but_for_its_network() -> None:
    found = applied(Identity(), user_id="alice", device_id="phone-1", address="203.0.113.77")
    assert found == {"user_id": "alice", "device_id": "phone-1", "network": "203.0.113.0/24"}


def test_equal_values_have_equal_pseudonyms_only_in_the_same_field_and_under_the_same_key() -> None:
    other = Identity.from_settings(IdentitySettings(key=SecretStr("another key, as long as it needs"), key_id="k7"))
    assert KEYED.pseudonym("user_id", "x") == KEYED.pseudonym("user_id", "x")
    assert KEYED.pseudonym("user_id", "x") != KEYED.pseudonym("device_id", "x")
    assert KEYED.pseudonym("user_id", "x") != other.pseudonym("user_id", "x")


def test_applying_twice_changes_nothing() -> None:
    once = applied(KEYED, user_id="alice", address="203.0.113.77")
    assert applied(KEYED, **once) == once


def test_a_raw_id_that_begins_like_a_pseudonym_is_still_hashed() -> None:
    assert applied(KEYED, user_id="k7:alice")["user_id"] != "k7:alice"


def test_an_address_in_the_wrong_field_is_not_stored_either() -> None:
    assert applied(Identity(), address_id="203.0.113.77") == {"network": "203.0.113.0/24"}
    assert applied(KEYED, address_id="203.0.113.77") == applied(KEYED, address="203.0.113.77")
    assert applied(Identity(), address_id="f00d") == {"address_id": "f00d"}


def test_a_network_that_is_given_is_kept() -> None:
    assert applied(KEYED, network="203.0.112.0/20", address="203.0.113.77")["network"] == "203.0.112.0/20"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("222.218.230.*", "222.218.230.0/24"),
        ("222.218.230.x", "222.218.230.0/24"),
        ("222.218.230.17", "222.218.230.0/24"),
        ("222.218.230.17:443", "222.218.230.0/24"),
        ("::ffff:222.218.230.17", "222.218.230.0/24"),
        ("2001:db8:1:2::17", "2001:db8:1::/48"),
        ("[2001:db8:1:2::17]:443", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("222.218.999.17", None),
        ("222.218.999.*", None),
        ("unknown", None),
        ("", None),
    ],
)
def test_the_network_is_the_prefix_of_the_address(address: str, network: str | None) -> None:
    assert network_of(address) == network


def test_spellings_of_one_address_have_one_pseudonym_and_a_masked_one_its_own() -> None:
    assert canonical_address("::ffff:1.2.3.4") == canonical_address("1.2.3.4:80") == "1.2.3.4"
    assert canonical_address("2001:DB8:0::1") == canonical_address("2001:db8::1")
    assert canonical_address("1.2.3.x") == canonical_address("1.2.3.*") != canonical_address("1.2.3.0")


def test_an_address_that_cannot_be_read_is_hashed_and_has_no_network() -> None:
    found = applied(KEYED, address="somewhere")
    assert "network" not in found
    assert str(found["address_id"]).startswith("k7:")
    assert applied(Identity(), address="somewhere") == {}


def test_a_key_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 16 bytes"):
        Identity.from_settings(IdentitySettings(key=SecretStr("secret")))


def test_the_key_is_never_shown() -> None:
    assert "thirty" not in repr(KEYED)
    assert repr(KEYED.key) not in repr(KEYED)
