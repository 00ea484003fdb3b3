"""TLS of a port: our certificate, and, where a CA of clients is given, theirs (mTLS)."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from tidegate.errors import ConfigError


@dataclass(frozen=True)
class Tls:
    """Files in PEM: our certificate with its chain, its key, and the CA that clients' certificates are from."""

    cert: str
    key: str
    client_ca: str | None = None

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            ConfigError: they cannot be read, or do not belong together (code ``tls-invalid``).
        """
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            made.load_cert_chain(self.cert, self.key, password=_none)
            if self.client_ca:
                made.load_verify_locations(self.client_ca)
                made.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as e:  # SSLError is an OSError
            raise ConfigError(
                f"the TLS files cannot be used: {e}",
                allowed="PEM: a certificate with its chain, its key without a password, the CA of clients.",
                hint="--tls-cert CERT --tls-key KEY --tls-client-ca CA",
                code="tls-invalid",
            ) from e
        return made


def _none() -> str:
    """Nobody is there to type a password."""
    raise ValueError("the key has a password")
