# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Tokens of an OpenID Connect provider: RS256 only, audience, issuer and expiry checked, keys fetched again in time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Lock
from typing import Any

from monai_effsam.labelling.server.settings import OidcSettings

__all__ = ["Provider"]

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 30.0
"""A token signed with an unknown key makes us fetch the keys, but not more often than that."""


class Provider:
    """One provider and its keys.

    Args:
        settings: which one.
        fetch: (address, form or None) -> JSON, or None when it refuses; for tests.
    """

    def __init__(
        self,
        settings: OidcSettings,
        fetch: Callable[[str, dict[str, str] | None], dict[str, Any] | None] | None = None,
    ) -> None:
        self.settings = settings
        self._fetch = fetch or self._over_http
        self._lock = Lock()
        self._keys: dict[str, Any] = {}
        self._fetched = float("-inf")
        self._described: dict[str, Any] = {}

    def claims(self, token: str) -> dict[str, Any] | None:
        """What a token says, or None if it is not valid here and now."""
        import jwt

        try:
            key = self._key(str(jwt.get_unverified_header(token).get("kid", "")))
            if key is None:
                return None
            return jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=self.settings.audience,
                issuer=self.settings.issuer,
                leeway=10,
                options={"require": ["exp", "sub", "aud", "iss"]},
            )
        except jwt.InvalidTokenError as error:
            logger.info("a token was refused: %s", type(error).__name__)
            return None

    def password_grant(self, username: str, password: str) -> dict[str, Any] | None:
        """A token for a user's password, where the provider offers that; None if it refuses."""
        form = {
            "grant_type": "password",
            "client_id": self.settings.client,
            "username": username,
            "password": password,
        }
        reply = self._fetch(str(self._description()["token_endpoint"]), form)
        if reply is None or "access_token" not in reply:
            return None
        return {"access_token": reply["access_token"], "token_type": reply.get("token_type", "bearer")}

    def _key(self, kid: str) -> Any:
        with self._lock:
            age = time.monotonic() - self._fetched
            if age > self.settings.key_seconds or (kid not in self._keys and age > _AGAIN_SECONDS):
                self._fetched = time.monotonic()
                self._keys = self._fetch_keys()
            return self._keys.get(kid)

    def _fetch_keys(self) -> dict[str, Any]:
        import jwt

        found = self._fetch(str(self._description()["jwks_uri"]), None) or {}
        keys = {}
        for one in found.get("keys", []):
            if one.get("kty") == "RSA" and one.get("use", "sig") == "sig":
                keys[str(one.get("kid", ""))] = jwt.PyJWK(one, algorithm="RS256").key
        return keys

    def _description(self) -> dict[str, Any]:
        if not self._described:
            address = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
            self._described = self._fetch(address, None) or {}
        if self._described.get("issuer") != self.settings.issuer:
            self._described = {}
            raise ConnectionError("the provider of users cannot be reached, or calls itself otherwise")
        return self._described

    def _over_http(self, address: str, form: dict[str, str] | None) -> dict[str, Any] | None:
        import httpx

        with httpx.Client(timeout=self.settings.timeout, trust_env=False) as client:
            reply = client.get(address) if form is None else client.post(address, data=form)
        if reply.status_code in {400, 401, 403}:
            return None
        reply.raise_for_status()
        return dict(reply.json())
