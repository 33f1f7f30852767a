"""Make certificates with the openssl program, for servers that speak TLS and for clients that must not trust them."""

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"
OTHER_NAMES = "subjectAltName=DNS:other.example"
PASSWORD = "secret"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, both PEM files."""

    certificate: Path
    key: Path

    @property
    def options(self) -> tuple[str, ...]:
        """The options with which a server uses them."""
        return ("--tls-certificate", str(self.certificate), "--tls-key", str(self.key))


class Certificates:
    """Certificates of many kinds in a folder; an authority has issued those that are not self-signed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.authority = folder / "authority.pem"
        self._make_key("authority")
        usage = "keyUsage=critical,keyCertSign,cRLSign"
        self._openssl(f"req -x509 -new -key authority.key -out authority.pem -subj /CN=authority -addext {usage}")
        self.client_context = ssl.create_default_context(cafile=self.authority)
        self.good = self._issue("good", NAMES)
        self.renewed = self._issue("renewed", NAMES)  # with another key
        self.expired = self._issue("expired", NAMES, days=0)  # OpenSSL 3.6 refuses a negative number
        self.other_host = self._issue("other_host", OTHER_NAMES)
        self.self_signed = Pair(folder / "self_signed.pem", self._make_key("self_signed"))
        self._openssl(f"req -x509 -new -key self_signed.key -out self_signed.pem -subj /CN=localhost -addext {NAMES}")
        self.weak = Pair(folder / "weak.pem", folder / "weak.key")
        self._openssl("req -x509 -newkey rsa:512 -nodes -keyout weak.key -out weak.pem -subj /CN=localhost")
        self.encrypted_key = Pair(self.good.certificate, folder / "encrypted.key")
        self._openssl(f"ec -in good.key -aes256 -passout pass:{PASSWORD} -out encrypted.key")

    def _issue(self, name: str, names: str, days: int = 2) -> Pair:
        """Return a certificate that the authority has issued, with a key of its own."""
        key = self._make_key(name)
        extensions = self._folder / f"{name}.extensions"
        extensions.write_text(f"{names}\nbasicConstraints=critical,CA:FALSE\nauthorityKeyIdentifier=keyid\n")
        self._openssl(f"req -new -key {name}.key -out {name}.request -subj /CN={name}")
        self._openssl(
            f"x509 -req -in {name}.request -CA authority.pem -CAkey authority.key -CAcreateserial -days {days} "
            f"-extfile {extensions.name} -out {name}.pem"
        )
        return Pair(self._folder / f"{name}.pem", key)

    def _make_key(self, name: str) -> Path:
        self._openssl(f"ecparam -genkey -name prime256v1 -noout -out {name}.key")
        return self._folder / f"{name}.key"

    def _openssl(self, arguments: str) -> None:
        result = subprocess.run(["openssl", *arguments.split()], cwd=self._folder, capture_output=True, text=True)
        assert result.returncode == 0, f"openssl {arguments}: {result.stderr}"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Give certificates of many kinds."""
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl program to make certificates with")
    return Certificates(tmp_path_factory.mktemp("certificates"))
