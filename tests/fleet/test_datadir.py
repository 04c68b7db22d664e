"""The data directory and the certificate authority in it."""

from __future__ import annotations

import base64
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_fleet.authority import Authority, hosts_of, open_request
from edgefleet_fleet.datadir import DataDir
from tests.fleet.device import csr_of, new_key

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return DataDir(tmp_path / "data")


def everything(data: DataDir) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(data.root.rglob("*")) if p.is_file()}


def test_secrets_are_for_their_owner_alone(data: DataDir) -> None:
    data.prepare("demo", public_host="")
    assert data.keys.stat().st_mode & 0o777 == 0o700
    secret = [data.token, data.keys / "director.pem", *data.keys.glob("*.key")]
    assert len(secret) == 7
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}


def test_a_second_start_changes_nothing(data: DataDir) -> None:
    data.prepare("demo", public_host="")
    before = everything(data)
    data.prepare("demo", public_host="")
    assert everything(data) == before


def test_a_new_public_host_gets_into_the_brokers_certificate_and_the_key_stays(
    data: DataDir,
) -> None:
    data.prepare("demo", public_host="")
    key = (data.keys / "broker.key").read_bytes()
    data.prepare("demo", public_host="fleet.example")
    data.prepare("demo", public_host="")
    hosts = hosts_of((data.keys / "broker.crt").read_text())
    assert {"localhost", "127.0.0.1", "::1", "fleet.example"} <= hosts
    assert (data.keys / "broker.key").read_bytes() == key


def test_the_certificates_hold_in_openssl_for_what_they_are_for(data: DataDir) -> None:
    data.prepare("demo", public_host="fleet.example")
    for name, purpose in (("broker", "sslserver"), ("service", "sslclient")):
        done = subprocess.run(
            [
                "openssl",
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-CAfile",
                "ca.pem",
                f"{name}.crt",
            ],
            cwd=data.keys,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(data.keys / "observer.crt", data.keys / "observer.key")


def test_only_one_service_runs_on_a_directory(data: DataDir) -> None:
    program = "import sys; from pathlib import Path\n"
    program += "from edgefleet_fleet.datadir import DataDir\n"
    program += "with DataDir(Path(sys.argv[1])).locked(): print('in')"
    command = [sys.executable, "-c", program, str(data.root)]
    with data.locked():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "another fleet service runs" in done.stderr
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "in\n"


def test_a_device_certificate_names_the_device_and_nothing_that_it_asked_for() -> None:
    authority = Authority.create("demo", now=NOW)
    request = open_request(csr_of(new_key(), "edgefleet-service"))
    issued = authority.issue_client("pi-1", request.key, now=NOW, days=90)
    found = x509.load_pem_x509_certificate(issued.pem.encode())
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [name.value for name in names] == ["pi-1"]
    assert issued.expires == NOW + timedelta(days=90)
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    constraints = found.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca


def test_a_request_whose_signature_does_not_hold_is_refused() -> None:
    good = x509.load_pem_x509_csr(csr_of(new_key(), "pi-1").encode())
    other = csr_of(new_key(), "pi-1")
    raw = bytearray(good.public_bytes(serialization.Encoding.DER))
    raw[-1] ^= 1
    body = base64.encodebytes(bytes(raw)).decode()
    spoilt = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"
    assert open_request(other).key.algorithm == "ECDSA P-256"
    with pytest.raises(Malformed):
        open_request(spoilt)


@pytest.mark.parametrize("pem", ["", "rubbish", "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n"])
def test_what_is_not_a_request_is_refused(pem: str) -> None:
    with pytest.raises(Malformed):
        open_request(pem)


def test_an_rsa_request_is_refused() -> None:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pi-1")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    with pytest.raises(Malformed, match="not supported"):
        open_request(csr.public_bytes(serialization.Encoding.PEM).decode())


def test_a_certificate_authority_whose_files_do_not_match_is_not_used() -> None:
    one, two = Authority.create("a", now=NOW), Authority.create("b", now=NOW)
    with pytest.raises(Malformed, match="do not match"):
        Authority.load(one.pem.encode(), two.key_pem)


def test_a_missing_token_says_what_to_do(data: DataDir) -> None:
    with pytest.raises(OperatorError) as error:
        data.read_token()
    assert "--data" in error.value.hint


def test_a_directory_that_cannot_be_written_is_an_error_for_the_operator(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError):
        DataDir(tmp_path / "file" / "data").prepare("demo", public_host="")


def test_the_director_signs_with_ed25519(data: DataDir) -> None:
    data.prepare("demo", public_host="")
    director: PrivateKey = data.director()
    assert director.public.algorithm == "Ed25519"
