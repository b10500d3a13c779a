"""Whether a request may be kept to learn from: the least of what the operator, the key and the request allow."""

from typing import Literal

Consent = Literal["never", "marked", "all"]
"""of a key: never; marked: requests with `store: true`; all: those without `store: false` too"""
CONSENTS: tuple[Consent, ...] = ("never", "marked", "all")
