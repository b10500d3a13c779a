"""Marks reasoning that leaves the server, so that only this server recognises it when a client sends it back.

Clients keep the conversation, reasoning included. What they return is trusted only if it was sealed here for the same key.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from deployments.ledger.database import state_folder

SECRET = "STEPDOWN_SECRET"  # a text that all ingress replicas share; none: each machine makes its own
NONCE = 12  # bytes, as AES-GCM wants them
LONGEST = 4_000_000  # characters of a token that is read


@cache
def server_secret() -> bytes:
    """32 bytes, from the environment or from a file in the state folder that only this user may read. Raises BadConfig."""
    if given := os.environ.get(SECRET):
        return hashlib.sha256(given.encode()).digest()
    return kept_secret(state_folder() / "secret")


def kept_secret(file: Path) -> bytes:
    """The file's secret, made with the file; of two processes that make it the first one's counts."""
    if not file.exists():
        with tempfile.NamedTemporaryFile(dir=file.parent) as own:  # only this user may read it
            own.write(secrets.token_bytes(32))
            own.flush()
            with suppress(FileExistsError):
                os.link(own.name, file)  # whole at once, so that nobody reads half of it
    return hashlib.sha256(file.read_bytes()).digest()


class KeySeals:
    """The seals of one key's conversations: `router.protocols.edge.Seals`. key_id: texts of another key are not recognised."""

    def __init__(self, secret: bytes, key_id: str) -> None:
        self.secret = hmac.digest(secret, key_id.encode(), "sha256")
        self.owner = key_id.encode()

    def sealed(self, text: str, tier: str) -> str:
        nonce = secrets.token_bytes(NONCE)
        data = json.dumps([text, tier]).encode()
        return base64.b64encode(nonce + AESGCM(self.secret).encrypt(nonce, data, self.owner)).decode()

    def unsealed(self, token: str) -> tuple[str, str] | None:
        if len(token) > LONGEST:
            return None
        try:
            raw = base64.b64decode(token, validate=True)
            text, tier = json.loads(AESGCM(self.secret).decrypt(raw[:NONCE], raw[NONCE:], self.owner))
        except (ValueError, InvalidTag):
            return None
        return str(text), str(tier)

    def signature(self, text: str, tier: str) -> str:
        return f"{self.mac(text, tier)}.{base64.urlsafe_b64encode(tier.encode()).decode()}"

    def signer(self, text: str, signature: str) -> str | None:
        given, _, name = signature.partition(".")
        try:
            tier = base64.urlsafe_b64decode(name.encode()).decode()
        except ValueError:
            return None
        return tier if hmac.compare_digest(given.encode(), self.mac(text, tier).encode()) else None

    def mac(self, text: str, tier: str) -> str:
        """A digest of the text and its tier that nobody makes without the secret."""
        said = f"{len(tier)}:{tier}{text}".encode("utf-8", "surrogatepass")
        return base64.urlsafe_b64encode(hmac.digest(self.secret, said, "sha256")).decode()
