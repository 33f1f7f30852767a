"""TLS as a transformer of bytes, without a socket; and a server's certificate.

What is received goes through a TlsLayer to become plain text, and what is sent goes through it before it reaches the
backlog. The connection below it is a plain socket, with the same rules as any other.
"""

import ssl
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from net.command_line import reason

RECORD_BYTES = 1 << 14  # the most data that a TLS record holds (RFC 8446, 5.1)
HANDSHAKE_RECORD = 22  # the first byte that a TLS client sends
HTTP_METHODS = (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"DELE", b"PATC")
EXPIRES_SOON_SECONDS = 7 * 86400


class HandshakeFailed(OSError):
    """A TLS handshake failed."""

    def __init__(self, why: str) -> None:
        super().__init__(None, f"TLS handshake failed: {why}")


class TlsLayer:
    """The TLS state of one connection to a server. OpenSSL does not allow two threads to use it at the same time."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=True)
        self._held: list[bytes] = []
        self._has_begun = False
        self.is_ready = False  # whether the handshake is complete
        self.has_ended = False  # whether the peer has sent close_notify
        self.held_bytes = 0  # of plain text that waits for the end of the handshake

    def decrypt(self, data: bytes) -> bytes:
        """Take received bytes; return the plain text that they complete. Call take_output() afterwards.

        OSError is raised if the peer violates TLS; HandshakeFailed, if the handshake fails.
        """
        if not self._has_begun:
            _check_first_bytes(data)
            self._has_begun = True
        self._received.write(data)
        try:
            if not self.is_ready:
                self._continue_handshake()
            return self._read_all() if self.is_ready else b""
        except OSError as error:
            if not self.is_ready:
                raise HandshakeFailed(tls_reason(error)) from error
            raise OSError(None, tls_reason(error)) from error

    def _continue_handshake(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
            self.is_ready = True
            self._write(b"".join(self._held))
            self._held.clear()
            self.held_bytes = 0

    def _read_all(self) -> bytes:
        texts = []
        with suppress(ssl.SSLWantReadError):
            while not self.has_ended:
                try:
                    text = self._tls.read(RECORD_BYTES)
                except ssl.SSLZeroReturnError:
                    text = b""
                self.has_ended = not text
                texts.append(text)
        return b"".join(texts)

    def encrypt(self, data: bytes) -> bytes:
        """Return data as TLS records, or nothing before the end of the handshake: then take_output() includes them."""
        if self.is_ready:
            self._write(data)
            return self.take_output()
        self._held.append(data)
        self.held_bytes += len(data)
        return b""

    def close(self) -> bytes:
        """Return close_notify, after which nothing may be encrypted; nothing before the end of the handshake."""
        if self.is_ready:
            with suppress(OSError):  # ssl.SSLWantReadError: the peer's close_notify has not arrived
                self._tls.unwrap()
        return self.take_output()

    def take_output(self) -> bytes:
        """Return what is to be sent: records, and TLS's own messages such as those of the handshake."""
        return self._to_send.read()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest[:RECORD_BYTES]) :]


def _check_first_bytes(data: bytes) -> None:
    """Refuse plain text at once: OpenSSL would wait for a whole record, and the client for a reply."""
    if data[:1] != bytes([HANDSHAKE_RECORD]):
        is_http = data.startswith(HTTP_METHODS)
        raise HandshakeFailed("not TLS but plain HTTP" if is_http else "not TLS")


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
    """A certificate, with any intermediate ones, and its key, in PEM files; BadCertificate is raised for bad files.

    `context` is the TLS context for new connections; open connections keep the context they began with. `warning` is a
    sentence if the certificate has expired or soon will, or "".
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self.reload()

    def reload(self) -> None:
        """Read the files again; if they cannot be used, the context does not change."""
        self.context = self._load()
        self.warning = self._warning()

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
            context.load_cert_chain(self._certificate, self._key, password=self._refuse_password)
        except OSError as error:
            raise BadCertificate(self._explain(error)) from error
        return context

    def _refuse_password(self) -> NoReturn:
        raise BadCertificate(f"{self._key}: a key that is not encrypted is expected")

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

    def _warning(self) -> str:
        """Return a warning if the certificate is not valid now, or not for another week.

        The ssl module shows a certificate's dates only to a client that has verified it, so this makes a handshake.
        """
        client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client_context.check_hostname = False
        client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        client_context.load_verify_locations(self._certificate)
        server = TlsLayer(self.context)
        received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context.wrap_bio(received, to_send)
        try:
            for _ in range(2):  # round trips
                with suppress(ssl.SSLWantReadError):
                    client.do_handshake()
                server.decrypt(to_send.read())
                received.write(server.take_output())
        except OSError as error:
            return f"Warning: {self._certificate}: {getattr(error, 'verify_message', tls_reason(error))}"
        end = str((client.getpeercert() or {}).get("notAfter"))
        soon = ssl.cert_time_to_seconds(end) < time.time() + EXPIRES_SOON_SECONDS
        return f"Warning: {self._certificate} expires on {end}" if soon else ""
