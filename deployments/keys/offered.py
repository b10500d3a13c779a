"""The keys that a request brings: OpenAI's clients, Anthropic's and Azure's each have a header of their own.

Some send two that differ, as an agent does whose environment names both, so all of them are looked at.
"""

from collections.abc import Mapping

NAMES = ("x-api-key", "api-key")
"""headers that hold a key and nothing else"""


def offered(headers: Mapping[str, str]) -> list[str]:
    """The keys, that of `Authorization: Bearer` first; none is empty. headers: by names in lower case, or in any."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    found = [key if scheme.lower() == "bearer" else "", *(headers.get(name, "") for name in NAMES)]
    return [key for name in found if (key := name.strip())]
