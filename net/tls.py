"""TLS as a transformer of bytes, without a socket; and a server's certificate.

What is received goes through a TlsLayer to become plain text, and what is sent goes through it before it reaches the
backlog. The connection below it is a plain socket, with the same rules as any other.
"""

import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from net.command_line import reason
from net.files import read_file

RECORD_BYTES = 1 << 14  # the most data that a TLS record holds (RFC 8446, 5.1)
HANDSHAKE_RECORD = 22  # the first byte that a TLS client sends
HTTP_METHODS = (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"DELE", b"PATC")
EXPIRES_SOON_SECONDS = 7 * 86400


class TlsLayer:
    """The TLS state of one connection to a server. OpenSSL does not allow two threads to use it at the same time."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._received = ssl.MemoryBIO()
        self.output = ssl.MemoryBIO()  # what is to be sent: records, and TLS's own messages, as in the handshake
        self._tls = context.wrap_bio(self._received, self.output, server_side=True)
        self._has_begun = False
        self.is_ready = False  # whether the handshake is complete
        self.has_ended = False  # whether the peer has sent close_notify

    def decrypt(self, data: bytes) -> bytes:
        """Take received bytes; return the plain text that they complete. TLS may add to the output.

        OSError is raised if the handshake fails, or if the peer violates TLS.
        """
        texts = []
        self._received.write(data)
        try:
            if not self._has_begun and data[0] != HANDSHAKE_RECORD:  # OpenSSL might wait for more, the peer for a reply
                raise OSError(None, "not TLS but plain HTTP" if data.startswith(HTTP_METHODS) else "not TLS")
            self._has_begun = True
            with suppress(ssl.SSLWantReadError):
                if not self.is_ready:
                    self._tls.do_handshake()
                    self.is_ready = True
                with suppress(ssl.SSLZeroReturnError):  # instead of b"", once close_notify was sent
                    while text := self._tls.read(RECORD_BYTES):
                        texts.append(text)
                self.has_ended = True
        except OSError as error:
            step = "" if self.is_ready else "TLS handshake failed: "
            raise OSError(None, step + tls_reason(error)) from error
        return b"".join(texts)

    def encrypt(self, data: bytes) -> bytes:
        """Return data as TLS records; the handshake must be complete."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]
        return self.output.read()

    def close(self) -> bytes:
        """Return close_notify, after which nothing may be encrypted; nothing before the end of the handshake."""
        if self.is_ready:
            with suppress(OSError):  # ssl.SSLWantReadError: the peer's close_notify has not arrived
                self._tls.unwrap()
        return self.output.read()


def tls_reason(error: OSError) -> str:
    """Return in words why TLS has failed."""
    if isinstance(error, ssl.SSLError) and error.reason:
        words = error.reason.replace("_", " ").lower()
        _, alert, description = words.partition(" alert ")
        return f"the peer sent the alert {description!r}" if alert else words
    return error.strerror or str(error)


class BadCertificate(Exception):
    """A certificate cannot be used; the text names the file and says what is wrong with it."""


class Certificate:
    """A certificate, with any intermediate ones, and its key, in PEM files; BadCertificate is raised for bad files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self.reload()

    def reload(self) -> None:
        """Read the files again; if they cannot be used, nothing changes. Open connections keep their context."""
        for path in (self._certificate, self._key):
            try:
                read_file(path)  # OpenSSL's errors name no file, and reading a FIFO would block
            except OSError as error:
                raise BadCertificate(reason(error)) from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION  # so that a write never has to wait for a read
        try:
            context.load_cert_chain(self._certificate, self._key, password=self._refuse_password)
        except OSError as error:
            raise BadCertificate(self._explain(error)) from error
        self.warning = self._warning(context)  # a sentence if the certificate has expired or soon will, or ""
        self.context = context  # for new connections

    def _refuse_password(self) -> NoReturn:
        raise BadCertificate(f"{self._key}: a key that is not encrypted is expected")

    def _explain(self, error: OSError) -> str:
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

    def _warning(self, context: ssl.SSLContext) -> str:
        """Return a warning if the certificate is not valid now, or not for another week.

        The ssl module shows a certificate's dates only to a client that has verified it, so this makes a handshake.
        """
        client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client_context.check_hostname = False
        client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        client_context.load_verify_locations(self._certificate)
        server = TlsLayer(context)
        received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context.wrap_bio(received, to_send)
        try:
            for _ in range(2):  # round trips
                with suppress(ssl.SSLWantReadError):
                    client.do_handshake()
                server.decrypt(to_send.read())
                received.write(server.output.read())
        except OSError as error:
            return f"Warning: {self._certificate}: {getattr(error, 'verify_message', tls_reason(error))}"
        end = str((client.getpeercert() or {}).get("notAfter"))
        soon = ssl.cert_time_to_seconds(end) < time.time() + EXPIRES_SOON_SECONDS
        return f"Warning: {self._certificate} expires on {end}" if soon else ""
