# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Who is asking and what they may do: a shared secret, or tokens of an OpenID Connect provider.

A role holds all that is below it: admin > reviewer > annotator > user. A token comes in the header `Authorization`
(Slicer) or in a cookie of this site (OHIF in a browser).
"""

from __future__ import annotations

import hmac
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from threading import Lock
from typing import Any

from starlette.requests import Request

from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.oidc import Provider
from monai_effsam.labelling.server.settings import ServerSettings

__all__ = ["COOKIE", "Gate", "Role", "User", "require"]

COOKIE = "effsam_token"


class Role(IntEnum):
    """Roles; a greater one may do all that a smaller one may."""

    USER = 1
    ANNOTATOR = 2
    REVIEWER = 3
    ADMIN = 4


@dataclass(frozen=True, slots=True)
class User:
    """Who is asking.

    Args:
        name: kept with what they submit.
        role: their greatest role; None for somebody whom the provider knows, but who has none here.
    """

    name: str
    role: Role | None


class Gate:
    """Tells users by their tokens.

    Args:
        settings: of the server.
        provider: of tokens; made from the settings by default.
    """

    def __init__(self, settings: ServerSettings, provider: Provider | None = None) -> None:
        self._token = settings.token
        self.provider = provider or (Provider(settings.oidc) if settings.oidc else None)
        self.open = not settings.has_login
        self._prefix = settings.oidc.prefix if settings.oidc else ""
        self._failures: deque[float] = deque(maxlen=settings.limits.logins)
        self._lock = Lock()

    def identify(self, headers: Mapping[str, str], cookies: Mapping[str, str]) -> User:
        """The user of a request; may ask the provider for its keys, so call it in a thread.

        Raises:
            Refusal: 401, no token or none that is valid.
        """
        if self.open:
            return User("local", Role.ADMIN)
        kind, _, given = headers.get("authorization", "").partition(" ")
        token = given.strip() if kind.lower() == "bearer" else cookies.get(COOKIE, "")
        return self.user_of(token)

    def user_of(self, token: str) -> User:
        """The user whom a token names.

        Raises:
            Refusal: 401.
        """
        if self._token is not None:
            if not hmac.compare_digest(token.encode(), self._token.encode()):
                raise _unknown()
            return User("token", Role.ADMIN)
        assert self.provider is not None
        claims = self.provider.claims(token)
        if claims is None:
            raise _unknown()
        return User(str(claims.get("preferred_username") or claims["sub"])[:64], self._role(claims))

    def log_in(self, username: str, password: str) -> dict[str, Any]:
        """A token for a user's password; the shared secret is the password where there is one.

        Raises:
            Refusal: 401 not theirs; 429 too many have failed.
        """
        self._slow_down()
        if self.provider is not None:
            reply = self.provider.password_grant(username, password)
        else:
            right = self._token is not None and hmac.compare_digest(password.encode(), self._token.encode())
            reply = {"access_token": self._token, "token_type": "bearer"} if right else None
        if reply is None:
            with self._lock:
                self._failures.append(time.monotonic())
            raise _unknown()
        return reply

    def _slow_down(self) -> None:
        with self._lock:
            full = len(self._failures) == self._failures.maxlen
            if full and time.monotonic() - self._failures[0] < 60:
                raise Refusal(429, "log-in: too many have failed. Wait a minute.")

    def _role(self, claims: Mapping[str, Any]) -> Role | None:
        assert self.provider is not None
        found: Any = claims
        for key in self.provider.settings.roles:
            found = found.get(key) if isinstance(found, Mapping) else None
        names = {str(name) for name in found} if isinstance(found, list | tuple) else set()
        return max((role for role in Role if self._prefix + role.name.lower() in names), default=None)


def require(role: Role) -> Callable[[Request], User]:
    """A dependency of routes: the user, if they have the role.

    Example:
        >>> APIRouter(dependencies=[Depends(require(Role.USER))])  # doctest: +SKIP
    """

    def check(request: Request) -> User:
        user: User = request.state.user  # the guard has put it there, or refused
        if user.role is None or user.role < role:
            raise Refusal(403, f"role: this needs the role {role.name.lower()}.")
        return user

    return check


def _unknown() -> Refusal:
    return Refusal(401, "log-in: the token is missing, expired or wrong.", {"WWW-Authenticate": "Bearer"})
