"""Who is let in when the server starts: holders of a given key, of stored ones, of a first one that is made; or anyone."""

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

FIRST = "first"  # the name of the key that the first start makes


@dataclass(frozen=True, slots=True)
class Door:
    """What the ingress and the person who starts it need to know."""

    key_hash: str = ""
    """SHA-256 of the given key; empty: none was given"""
    insecure: bool = False
    """no key is asked for"""
    made: str = ""
    """the first key, to be shown this once"""
    stored: int = 0
    """keys that were there already"""

    def told(self) -> str:
        """The line about keys of `stepdown serve`."""
        if self.insecure:
            return "none is asked for: whoever reaches this address may use it"
        if self.made:
            return f"{self.made}   (made now, shown once; more: stepdown keys create NAME)"
        if self.key_hash:
            return "as given"
        return f"{self.stored} stored (stepdown keys list); make another: stepdown keys create NAME"

    def header(self) -> str:
        """What curl needs; a place to fill in where the key is not known here."""
        if self.insecure:
            return ""
        return f'-H "Authorization: Bearer {self.made or ("$STEPDOWN_API_KEY" if self.key_hash else "YOUR_KEY")}" '


def door(config: Config, api_key: str | None, no_keys: bool, insecure: bool) -> Door:
    """Raises BadInput where anyone could come in from elsewhere, and where keys cannot be kept.

    no_keys: ask for none, on loopback only. insecure: ask for none, wherever it listens.
    """
    host, key_hash = config.server.host, hashed(api_key) if api_key else ""
    if no_keys and not insecure and not loopback(host):
        raise BadInput(
            f"--no-keys: whoever reaches {host} could use the models, and nobody would know who it was; leave --no-keys out, "
            "listen on 127.0.0.1, or say that it is meant: --insecure"
        )
    if no_keys or insecure:
        return Door(key_hash, insecure=True)
    return Door(key_hash) if key_hash else Door(stored=stored_keys(config))


def with_first_key(config: Config, door: Door) -> Door:
    """The same, with a key made and kept if nobody has one yet. Called when all else has started: it is shown only once."""
    if door.key_hash or door.insecure or door.stored:
        return door
    engine = key_store.opened(config.ledger)
    made = key_store.create(engine, Key("", FIRST, rights=frozenset(RIGHTS)), time.time())[1]
    engine.dispose()
    return Door(made=made)


def stored_keys(config: Config) -> int:
    """Keys that are kept and not revoked. Raises BadInput where the database does not answer."""
    engine = key_store.opened(config.ledger)
    found = len(key_store.usable(key_store.read(engine)))
    engine.dispose()
    return found


def for_serve_run(config: Config) -> Door:
    """Of `serve run`, which shows nothing: a given key or stored ones must be there. Raises BadConfig."""
    if key := os.environ.get("STEPDOWN_API_KEY"):
        return Door(hashed(key))
    stored = stored_keys(config)
    if not stored:
        raise BadConfig("clients need a key: set STEPDOWN_API_KEY, or make one with: stepdown keys create NAME --config CONFIG")
    return Door(stored=stored)


def loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def placed(config: Config) -> Config:
    """The same with the ledger where it is seen from here: replicas have another working folder, maybe another environment."""
    url = read_url(address(config.ledger))
    if url.get_backend_name() == "sqlite":
        url = url.set(database=os.path.abspath(str(url.database)))
    ledger = config.ledger.model_copy(update={"url": url.render_as_string(hide_password=False)})
    return config.model_copy(update={"ledger": ledger})
