"""A real PKCS#11 token in a temporary folder: SoftHSM 2."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pkcs11
import pytest
from pkcs11.util.ec import encode_named_curve_parameters

ROOT = Path(__file__).parents[2]
LIBRARIES = (
    *Path("/usr/lib").glob("*/softhsm/libsofthsm2.so"),
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/lib64/pkcs11/libsofthsm2.so"),
)
PIN = "314159"


def find_library() -> Path:
    """SoftHSM's library; installed where CI=true, else its absence skips, with the reason."""
    if not installed() and os.environ.get("CI") == "true":
        subprocess.run(["sh", ROOT / "tools" / "system-packages.sh", "softhsm2"], check=True)
        assert installed(), "CI must not skip: SoftHSM could not be installed"
    if not installed():
        pytest.skip("SoftHSM 2 is not installed: sudo apt-get install softhsm2")
    return next(path for path in LIBRARIES if path.exists())


def installed() -> bool:
    return shutil.which("softhsm2-util") is not None and any(path.exists() for path in LIBRARIES)


@dataclass(frozen=True)
class SoftHsm:
    """A library whose tokens are in `folder`, which SOFTHSM2_CONF points to."""

    library: Path
    folder: Path

    @classmethod
    def start(cls, folder: Path) -> SoftHsm:
        """No tokens yet. SOFTHSM2_CONF must be `folder/softhsm2.conf` from here on."""
        library = find_library()
        (folder / "tokens").mkdir()
        (folder / "pin").write_text(f"{PIN}\n")
        (folder / "softhsm2.conf").write_text(
            f"directories.tokendir = {folder}/tokens\n"
            "objectstore.backend = file\n"
            "log.level = ERROR\n"
        )
        return cls(library, folder)

    @property
    def pin(self) -> Path:
        return self.folder / "pin"

    def add_token(self, label: str) -> None:
        """A new token, with the user PIN of the file `pin`."""
        words = ["softhsm2-util", "--init-token", "--free", "--label", label]
        words += ["--pin", PIN, "--so-pin", "271828"]
        environ = {**os.environ, "SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}
        subprocess.run(words, check=True, capture_output=True, env=environ)

    def add_key(
        self, token: str, label: str, number: bytes, curve: str = "secp256r1", copies: int = 1
    ) -> None:
        """A key pair that is made in the token and cannot leave it."""
        lib = pkcs11.lib(str(self.library))
        lib.reinitialize()  # tokens made since it was loaded are not seen otherwise
        with lib.get_token(token_label=token).open(rw=True, user_pin=PIN) as session:
            for _ in range(copies):
                if curve == "rsa":
                    session.generate_keypair(
                        pkcs11.KeyType.RSA, 2048, store=True, label=label, id=number
                    )
                    continue
                parameters = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}
                domain = session.create_domain_parameters(pkcs11.KeyType.EC, parameters, local=True)
                domain.generate_keypair(store=True, label=label, id=number)

    def uri(self, token: str = "publisher", rest: str = "object=release") -> str:
        return f"pkcs11:token={token};{rest}?module-path={self.library}"
