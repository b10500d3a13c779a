"""Whether a request may be kept to learn from: the least of what the operator, the key and the request allow."""

from typing import Literal

Consent = Literal["never", "marked", "all"]
"""of a key: never; marked: requests with `store: true`; all: those without `store: false` too"""
CONSENTS: tuple[Consent, ...] = ("never", "marked", "all")


def kept_by(operator: Literal["off", "consented"], key: Consent, store: bool | None) -> tuple[str, str]:
    """By what a request may be kept, and why not; one of the two is empty.

    operator: `learning.collect`. store: the request's own word; None: it says nothing. Kept by `marked` (the request's store)
    or `all` (its key). Not kept because of the `request`, the `operator` or the `key`: the first of them that forbids it.
    """
    if store is False:
        return "", "request"
    if operator == "off":
        return "", "operator"
    if key == "never":
        return "", "key"
    if store:
        return "marked", ""
    return ("all", "") if key == "all" else ("", "request")
