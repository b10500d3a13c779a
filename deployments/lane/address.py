"""Where a replica's lanes begin, as it tells Ray Serve and as each ingress reads it."""

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Address:
    """Where one replica listens."""

    machine: str
    """the id of its machine; the socket is of use only there"""
    path: str = ""
    """its Unix socket; empty: it has none"""
    host: str = ""
    """its machine's address; empty: it does not listen on TCP"""
    port: int = 0
    token: str = field(default="", repr=False)
    """what the first line on a TCP connection must say"""
    encrypted: bool = False
    """TCP is wrapped in TLS"""

    def told(self) -> dict[str, Any]:
        """As plain values, for `address_of`."""
        return asdict(self)


def address_of(told: Mapping[str, Any]) -> Address | None:
    """The address in what a replica told; None: it told none that can be read."""
    known = {name: told[name] for name in Address.__slots__ if name in told}
    try:
        found = Address(**known)
    except TypeError:
        return None
    texts = (found.machine, found.path, found.host, found.token)
    return found if all(isinstance(text, str) for text in texts) and isinstance(found.port, int) else None


def private(host: str) -> bool:
    """Whether the address belongs to a private network or to the machine itself: names and public addresses do not."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (address.is_private or address.is_loopback) and not address.is_unspecified
