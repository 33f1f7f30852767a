"""A server's certificate: read at the start, and again on SIGHUP, without dropping anybody."""

import ssl
from pathlib import Path

from net.command_line import reason


class BadCertificate(Exception):
    """A certificate cannot be used; the text names the file and what is wrong."""


class Certificate:
    """A certificate and its key, and the context that new connections use.

    Args:
        certificate: a PEM file: the server's certificate, then those between it and a trusted one.
        key: a PEM file: the certificate's private key, not encrypted.

    Attributes:
        context: for connections from now on; connections that exist keep the one they began with.

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
            BadCertificate: they cannot be used; the context is the one of before.
        """
        self.context = self._load()

    def _load(self) -> ssl.SSLContext:
        for path in (self._certificate, self._key):
            try:
                path.read_bytes()
            except OSError as error:
                raise BadCertificate(f"{path}: {reason(error)}") from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION  # a write never waits for a read
        try:
            context.load_cert_chain(self._certificate, self._key, password=_refuse_password)
        except EncryptedKey:
            raise BadCertificate(f"{self._key}: expected a key that is not encrypted") from None
        except OSError as error:
            raise BadCertificate(self._explain(error)) from error
        return context

    def _explain(self, error: OSError) -> str:
        """Return which file is wrong and why; OpenSSL says less."""
        words = (isinstance(error, ssl.SSLError) and error.reason) or ""
        if words == "KEY_VALUES_MISMATCH":
            return f"{self._key}: the key of {self._certificate} is expected, but this is another one"
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
