"""The settings of a model that thinks. Part of the YAML file that router/config.py reads."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from router.engine_settings import Settings


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
    opened: bool | None = None
    """whether the chat template writes the <think>, so that an answer begins within the thought and only </think> ends it.
    None: so for a vLLM tier without a parser, no for others"""

    @field_validator("default", mode="before")
    @classmethod
    def as_yaml_reads_it(cls, given: Any) -> Any:
        """on and off are true and false to YAML."""
        return {True: "on", False: "off"}[given] if isinstance(given, bool) else given
