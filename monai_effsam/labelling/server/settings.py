# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a server is told when it is made: where it writes, whom it lets in, how much it takes."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from monai_effsam.errors import UsageError

__all__ = ["Limits", "OidcSettings", "ServerSettings", "is_loopback"]

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the server takes and keeps.

    Args:
        body: of requests that carry no file [bytes].
        upload: of requests that carry an image, a volume or a label [bytes].
        model: of an uploaded model [bytes].
        parameters: of the JSON text in a form [bytes].
        files: files of one session (a DICOM series comes as many).
        sessions: sessions kept at once.
        session_bytes: size of all sessions together [bytes].
        session_seconds: a session unused for so long is removed [s].
        upload_seconds: a stray upload older than that is removed [s].
        running: inferences that run at once.
        waiting: inferences that may wait for those; more are answered 429.
        logins: failed log-ins a minute; more are answered 429.
        jobs: finished training runs remembered.
    """

    body: int = 1 * _MIB
    upload: int = 1024 * _MIB
    model: int = 512 * _MIB
    parameters: int = 1 * _MIB
    files: int = 4096
    sessions: int = 64
    session_bytes: int = 8192 * _MIB
    session_seconds: float = 3600.0
    upload_seconds: float = 3600.0
    running: int = 2
    waiting: int = 32
    logins: int = 10
    jobs: int = 20


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """An OpenID Connect provider that signs with RS256.

    Args:
        issuer: its URL, as in the `iss` of its tokens.
        audience: what the `aud` of a token must name.
        client: id that log-ins with a password use.
        roles: where the roles are in a token, outer key first.
        prefix: of our roles there: `monailabel-admin`, `monailabel-reviewer` ...
        key_seconds: keys are fetched again after that [s].
        timeout: of requests to the provider [s].

    Raises:
        UsageError: an issuer that is not https, unless it is on this machine.
    """

    issuer: str
    audience: str = "monailabel-app"
    client: str = "monailabel-app"
    roles: tuple[str, ...] = ("realm_access", "roles")
    prefix: str = "monailabel-"
    key_seconds: float = 3600.0
    timeout: float = 10.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.issuer)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise UsageError(
                f"issuer is '{self.issuer}', expected an https address. Plain http can be read and forged on its way."
            )


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """All of it.

    Args:
        state: folder that the server may write to: uploads, sessions, logs, models.
        host: address that it is bound to.
        token: a shared secret; whoever has it is admin. At least 16 characters.
        oidc: a provider of users and roles, instead of a secret.
        origins: of web pages elsewhere that may call the server (CORS), as `https://host:port`.
        insecure: be reachable from other machines without any log-in.
        limits: how much it takes.
        proxy_timeout: of requests to the PACS [s].
        pacs_login: user and password of the PACS.

    Raises:
        UsageError: reachable from other machines, but no log-in; a token that can be guessed; a wrong origin.
    """

    state: Path
    host: str = "127.0.0.1"
    token: str | None = field(default=None, repr=False)
    oidc: OidcSettings | None = None
    origins: tuple[str, ...] = ()
    insecure: bool = False
    limits: Limits = field(default_factory=Limits)
    proxy_timeout: float = 30.0
    pacs_login: tuple[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.token is not None and (
            len(self.token) < 16 or not self.token.isascii() or not self.token.isprintable()
        ):
            raise UsageError(
                "token: is shorter than 16 plain characters, expected one that nobody can guess."
            )
        if self.token is not None and self.oidc is not None:
            raise UsageError("token: is given together with a provider of users, expected one of the two.")
        if not is_loopback(self.host) and not self.has_login and not self.insecure:
            raise UsageError(
                f"host is '{self.host}', which other machines reach, expected a log-in then. "
                "Add --token-file FILE (or --oidc URL), or --insecure if the network is yours alone."
            )
        for origin in self.origins:
            parts = urlsplit(origin)
            if (
                parts.scheme not in {"http", "https"}
                or not parts.netloc
                or origin != f"{parts.scheme}://{parts.netloc}"
            ):
                raise UsageError(f"origin is '{origin}', expected one like https://viewer.example:8443.")

    @property
    def has_login(self) -> bool:
        """Whether a user must show who they are."""
        return self.token is not None or self.oidc is not None

    def folder(self, name: str) -> Path:
        """A folder under `state`, made if it is missing; nobody else may read it."""
        path = self.state / name
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
