"""Decides at the start whom the server lets in: holders of a given key, of stored keys, of a first key made now; or anyone."""

import ipaddress
import os
import time
from dataclasses import dataclass

from deployments.keys import key_store
from deployments.keys.key_store import hashed
from deployments.ledger.database import address, read_url
from router.config import Config
from router.errors import BadConfig, BadInput
from router.limits.key_limits import RIGHTS, Key

FIRST_KEY = "first"  # name of the key that the first start makes


@dataclass(frozen=True, slots=True)
class Access:
    """How clients get in, for the ingress and for the person who starts it."""

    key_hash: str = ""
    """SHA-256 of the given key; empty: none was given"""
    insecure: bool = False
    """no key is asked for"""
    made: str = ""
    """the first key, to be shown only now"""
    stored: int = 0
    """number of keys that existed already"""

    def summary(self) -> str:
        """The line about keys that `stepdown serve` prints."""
        if self.insecure:
            return "none is asked for: anyone who reaches this address may use it"
        if self.made:
            return f"{self.made}   (made now, shown only once; for more: stepdown keys create NAME)"
        if self.key_hash:
            return "as given"
        return f"{self.stored} stored (stepdown keys list); make another: stepdown keys create NAME"

    def curl_header(self) -> str:
        """The option that curl needs, with a placeholder where the key is not known here."""
        if self.insecure:
            return ""
        return f'-H "Authorization: Bearer {self.made or ("$STEPDOWN_API_KEY" if self.key_hash else "YOUR_KEY")}" '


def decide_access(config: Config, api_key: str | None, no_keys: bool, insecure: bool) -> Access:
    """Raises BadInput where other machines could come in without a key, and where the key store does not answer.

    no_keys: ask for no key, on loopback only. insecure: ask for no key on any address.
    """
    host, key_hash = config.server.host, hashed(api_key) if api_key else ""
    if no_keys and not insecure and not loopback(host):
        raise BadInput(
            f"--no-keys: anyone who reaches {host} could use the models without being known; leave --no-keys out, "
            "listen on 127.0.0.1, or use --insecure if this is intended"
        )
    if no_keys or insecure:
        return Access(key_hash, insecure=True)
    return Access(key_hash) if key_hash else Access(stored=stored_keys(config))


def with_first_key(config: Config, access: Access) -> Access:
    """The same, with a key made and stored if there is none yet. To be called last in the start, since it is shown only once."""
    if access.key_hash or access.insecure or access.stored:
        return access
    engine = key_store.open_key_store(config.ledger)
    made = key_store.create(engine, Key("", FIRST_KEY, rights=frozenset(RIGHTS)), time.time())[1]
    engine.dispose()
    return Access(made=made)


def stored_keys(config: Config) -> int:
    """How many stored keys are not revoked. Raises BadInput where the database does not answer."""
    engine = key_store.open_key_store(config.ledger)
    found = len(key_store.usable(key_store.read_keys(engine)))
    engine.dispose()
    return found


def serve_run_access(config: Config) -> Access:
    """For `serve run`, which cannot show a new key: one must be given or stored. Raises BadConfig."""
    if key := os.environ.get("STEPDOWN_API_KEY"):
        return Access(hashed(key))
    stored = stored_keys(config)
    if not stored:
        raise BadConfig("clients need a key: set STEPDOWN_API_KEY, or make one with: stepdown keys create NAME --config CONFIG")
    return Access(stored=stored)


def loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def with_absolute_ledger(config: Config) -> Config:
    """The same with the ledger's absolute address: replicas have another working folder and maybe another environment."""
    url = read_url(address(config.ledger))
    if url.get_backend_name() == "sqlite":
        url = url.set(database=os.path.abspath(str(url.database)))
    ledger = config.ledger.model_copy(update={"url": url.render_as_string(hide_password=False)})
    return config.model_copy(update={"ledger": ledger})
