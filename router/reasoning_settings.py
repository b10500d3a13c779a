"""The settings of a model that thinks. Part of the YAML file that router/config.py reads."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from router.engine_settings import Settings

SWITCH = "enable_thinking"  # of `chat_template_kwargs`
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""how much a model may be asked to think, the least first"""


class Reasoning(Settings):
    """How a tier's model thinks before it answers, how that is switched, and who takes the thought out of the answer's text."""

    parser: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """vLLM's `--reasoning-parser`, such as qwen3, which gives the thought a field of its own. Of a remote tier: any name says
    that its server does so. None: the thought is taken out here, where the text begins with <think>"""
    switch: Literal["chat_template", "effort", "none"] = "none"
    """how the model is told whether to think. chat_template: by `enable_thinking`; effort: by `reasoning_effort`; none: not at
    all"""
    default: Literal["on", "off"] = "on"
    """whether it thinks where a request does not say"""
    budget: Annotated[int, Field(ge=0)] | None = None
    """most tokens of a thought, and at most half of the answer's limit; none: what the request says. Needs a parser in vLLM"""
    limited: bool | None = None
    """whether its server takes `thinking_token_budget`, so that a thought is held to half of the answer's limit. None: so for a
    vLLM tier with a parser, and where `budget` is set; for others a thought may take the whole limit"""
    opened: bool | None = None
    """whether the chat template writes the <think>, so that an answer begins within the thought and only </think> ends it.
    None: so for a vLLM tier without a parser, no for others"""

    @field_validator("default", mode="before")
    @classmethod
    def as_yaml_reads_it(cls, given: Any) -> Any:
        """on and off are true and false to YAML."""
        return {True: "on", False: "off"}[given] if isinstance(given, bool) else given


def named_parser(given: Any) -> Any:
    """`reasoning: qwen3` is short for `reasoning: {parser: qwen3}`."""
    return {"parser": given} if isinstance(given, str) else given


def pinned(body: Mapping[str, Any]) -> bool | None:
    """Whether a model thinks to which these fields are always sent; None: they do not say."""
    kwargs, effort = body.get("chat_template_kwargs"), body.get("reasoning_effort")
    switch = kwargs.get(SWITCH) if isinstance(kwargs, Mapping) else None
    if isinstance(switch, bool):
        return switch
    return effort != "none" if isinstance(effort, str) else None


def fixed(settings: Reasoning | None, body: Mapping[str, Any], thought: int | None) -> Reasoning | None:
    """The settings with what a tier's own `body` and `thought` leave no choice about: clients cannot switch it then."""
    if settings is None:
        return None
    on = pinned(body)
    changes: dict[str, Any] = {} if thought is None else {"budget": thought}
    if on is not None:
        changes |= {"switch": "none", "default": "on" if on else "off"}
    return settings.model_copy(update=changes) if changes else settings
