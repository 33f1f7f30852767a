"""A server's certificate, which can be read again without dropping a connection."""

import ssl
import stat
from pathlib import Path

from net.command_line import reason


class BadCertificate(Exception):
    """A certificate cannot be used; the text names the file and says what is wrong with it."""


class Certificate:
    """A certificate and its key, and the TLS context of new connections.

    Args:
        certificate: a PEM file with the server's certificate, followed by any intermediate certificates.
        key: a PEM file with the certificate's private key, not encrypted.

    Attributes:
        context: the context for new connections; open connections keep the context they began with.

    Raises:
        BadCertificate: the files cannot be used.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self.context = self._load()

    def reload(self) -> None:
        """Read the files again.

        Raises:
            BadCertificate: they cannot be used; the context has not changed.
        """
        self.context = self._load()

    def _load(self) -> ssl.SSLContext:
        for path in (self._certificate, self._key):
            try:
                if not stat.S_ISREG(path.stat().st_mode):  # reading a FIFO would block
                    raise BadCertificate(f"{path}: a regular file is expected")
                path.read_bytes()
            except OSError as error:
                raise BadCertificate(f"{path}: {reason(error)}") from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION  # so that a write never has to wait for a read
        try:
            context.load_cert_chain(self._certificate, self._key, password=_refuse_password)
        except EncryptedKey:
            raise BadCertificate(f"{self._key}: a key that is not encrypted is expected") from None
        except OSError as error:
            raise BadCertificate(self._explain(error)) from error
        return context

    def _explain(self, error: OSError) -> str:
        """Return which file is wrong and why; OpenSSL's error names no file."""
        words = (isinstance(error, ssl.SSLError) and error.reason) or ""
        if words == "KEY_VALUES_MISMATCH":
            return f"{self._key}: the key of {self._certificate} is expected, but this is another key"
        if words.startswith(("EE_", "CA_")):  # such as EE_KEY_TOO_SMALL
            return f"{self._certificate}: {words.replace('_', ' ').lower()}"
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(self._certificate)
        except OSError:
            return f"{self._certificate}: a certificate in PEM form is expected"
        return f"{self._key}: a private key in PEM form is expected"


class EncryptedKey(Exception):
    """OpenSSL asks for a password."""


def _refuse_password() -> str:
    raise EncryptedKey
