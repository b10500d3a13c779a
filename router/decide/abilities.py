"""What each tier can do: what its settings allow, less what its replicas found out that they cannot do.

A replica of vLLM tries each ability once, while it warms up (`deployments/replicas/abilities.py`), and reports an empty text or
the reason why not. What it could not try is not in the report: until a report says otherwise, the settings count.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from router.tier_settings import Tier
from router.types import UNKNOWN_PART

CANNOT: Mapping[str, str] = MappingProxyType(
    {
        "chat": "answers no chats",
        "completions": "answers no completions",
        "audio": "takes no audio",
        "files": "takes no files",
        "images": "takes no images",
        "json": "has no JSON mode",
        "logprobs": "gives no log-probabilities",
        "prefill": "continues no answer that the client began",
        "tool_choice": "cannot be made to call a tool",
        "tools": "takes no tools",
        "video": "takes no video",
    }
)
"""each ability, and what is said of a tier without it"""

TRIED = ("chat", "completions", "images", "json", "logprobs", "tool_choice", "tools")
"""what a replica of vLLM tries; of the rest the settings alone are known"""

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "audio": "audio",
        "files": "files",
        "images": "images",
        "json": "json_mode",
        "prefill": "prefill",
        "tools": "tools",
        "video": "video",
    }
)
"""the abilities that a tier's settings can allow or deny, and the setting of each"""

MENDS: Mapping[str, str] = MappingProxyType(
    {
        "images": "name a model that reads images",
        "json": "set engine_kwargs.structured_outputs_config to a backend that this model's tokenizer works with",
        "tools": "set engine_kwargs.enable_auto_tool_choice: true and engine_kwargs.tool_call_parser: hermes (or whatever its "
        "model's card names)",
    }
)


def as_configured(tier: Tier, need: str) -> str:
    """Why the tier's settings say that it cannot; empty: they do not."""
    if need.startswith(UNKNOWN_PART):
        kind = need.removeprefix(UNKNOWN_PART)
        return "" if kind in tier.parts else f"takes no message parts of type {kind[:40]!r}"
    return "" if need not in SETTINGS or getattr(tier, SETTINGS[need]) else CANNOT[need]


class Abilities:
    """What the tiers of one ladder cannot do. A reload keeps it, since it belongs to the models."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self.tiers = {tier.name: tier for tier in tiers}
        self.found: dict[str, Mapping[str, str]] = {}
        """tier with replicas of its own -> ability -> why it cannot; empty: it can"""

    def report(self, tier: str, found: Mapping[str, str]) -> None:
        """What a tier's replica found. A later report replaces it: the replica may have been started with another model."""
        self.found[tier] = {need: why for need, why in found.items() if need in CANNOT}

    def found_of(self, tier: str) -> Mapping[str, str]:
        """What the replicas that answer for the tier found; empty: nothing is known."""
        return self.found.get(self.tiers[tier].runs_on, {})

    def lack(self, tier: str, need: str) -> str:
        """Why the tier cannot; empty: it can, as far as anybody knows."""
        denied = as_configured(self.tiers[tier], need)
        why = self.found_of(tier).get(need, "")
        return denied or (f"{CANNOT[need]}: {why}" if why else "")

    def lacking(self, need: str) -> list[str]:
        """The tiers that cannot."""
        return [name for name in self.tiers if self.lack(name, need)]

    def shown(self, tier: str) -> dict[str, Any]:
        """For the status page: `able`, and `unable` with the reasons, of TRIED. What nobody tried yet is in neither list."""
        known = self.found_of(tier)
        unable = {need: why for need in TRIED if (why := self.lack(tier, need))}
        return {"able": [need for need in known if need not in unable], "unable": unable}

    def no_chat(self) -> str:
        """Why no tier of the ladder can answer a chat, and how to mend it; empty: some can."""
        whys = {name: self.lack(name, "chat") for name in self.tiers}
        if not all(whys.values()):
            return ""
        return "tiers: at least one has to answer chats, none does: " + "; ".join(f"{name} {why}" for name, why in whys.items())


def broken_promises(tier: Tier, found: Mapping[str, str]) -> str:
    """The settings that promise what the tier was found unable to do, each with its mend; empty: there are none.

    A default promises nothing: it only leaves out the tier where it is unable.
    """
    promised = [need for need, setting in SETTINGS.items() if setting in tier.model_fields_set and getattr(tier, setting)]
    return "; ".join(
        f"tiers.{tier.name}.{SETTINGS[need]} is true, but the tier {CANNOT[need]} ({found[need]}): {MENDS[need]}, "
        f"or set {SETTINGS[need]}: false"
        for need in promised
        if found.get(need)
    )
