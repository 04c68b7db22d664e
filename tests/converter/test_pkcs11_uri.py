from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.pkcs11_uri import is_pkcs11, parse_uri


def test_a_uri_names_a_token_a_key_and_a_library() -> None:
    uri = parse_uri(
        "pkcs11:token=My%20Card;serial=00a1;manufacturer=ACME;model=7;object=k;id=%00%FF"
        ";type=private?module-path=/usr/lib/x.so&pin-source=file:/run/pin"
    )
    assert (uri.token, uri.serial, uri.manufacturer, uri.model) == ("My Card", "00a1", "ACME", "7")
    assert (uri.label, uri.id) == ("k", b"\x00\xff")
    assert (uri.module, uri.pin_file) == (Path("/usr/lib/x.so"), Path("/run/pin"))
    assert str(uri) == "key 'k' of token 'My Card'"


@pytest.mark.parametrize("source", ["/run/pin", "file:/run/pin", "file:///run/pin", "%2Frun%2Fpin"])
def test_a_pin_file_is_named_in_each_of_its_spellings(source: str) -> None:
    uri = parse_uri(f"pkcs11:token=t;id=%01?pin-source={source}")
    assert uri.pin_file == Path("/run/pin")
    assert uri.module is None
    assert str(uri) == "key '01' of token 't'"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pkcs11:token=t;object=k?pin-value=1234", "other processes"),
        ("pkcs11:token=t;object=k?module-path=/x&pin-value=1234", "other processes"),
        ("file:key", "not a PKCS#11 URI"),
        ("pkcs11:", "which key of which token"),
        ("pkcs11:token=t", "which key of which token"),
        ("pkcs11:object=k", "which key of which token"),
        ("pkcs11:token=t;object=k;object=l", "twice"),
        ("pkcs11:token=t;object=k;slot-id=3", "'slot-id' in the URI is not understood"),
        ("pkcs11:token=t;object=k?module-name=x", "'module-name' in the URI is not understood"),
        ("pkcs11:token=t;object=k;type=public", "cannot sign"),
        ("pkcs11:token;object=k", "not of the form"),
        ("pkcs11:token=t;;object=k", "not of the form"),
        ("pkcs11:token=%zz;object=k", "not of the form"),
        ("pkcs11:token=%ff;object=k", "not UTF-8"),
        ("pkcs11:token=t;object=k?pin-source=|pass show pin", "none is run"),
        ("pkcs11:token=t;object=k?pin-source=pin.txt", "not an absolute path"),
        ("pkcs11:token=t;object=k?module-path=x.so", "not an absolute path"),
        ("pkcs11:token=t;object=k?module-path=/x%00.so", "not an absolute path"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(OperatorError) as caught:
        parse_uri(text)
    assert says in caught.value.message
    assert "1234" not in caught.value.message + caught.value.hint


def test_schemes_know_no_case() -> None:
    assert is_pkcs11("PKCS11:token=t;object=k")
    assert parse_uri("PKCS11:token=t;object=k").token == "t"
    assert not is_pkcs11("keys/pkcs11.pem")
