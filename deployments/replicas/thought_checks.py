"""Looks once, before a replica is ready, whether a tier and the rungs on it think as their settings say.

A wrong parser is silent: one takes answers for thoughts, so that they come out empty, another leaves thoughts in the answers. And
a switch that the chat template does not know changes nothing, so that two rungs are one at two prices.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from router.errors import BadConfig
from router.reasoning_settings import Reasoning
from router.request.own_body import CHAT_ONLY, written
from router.request.thoughts import FIELDS
from router.tier_settings import Tier

log = logging.getLogger("stepdown")
BUDGET = 8  # tokens of a thought
ANSWER = 12  # and of the answer after it
MARKS = ("<think>", "</think>")
QUESTION = [{"role": "user", "content": "What is 2 plus 3?"}]


@dataclass(frozen=True, slots=True)
class Heard:
    """What a tier's engine made of one short question. None: it did not say."""

    prompt: tuple[int, ...] = ()
    """ids of the prompt's tokens; empty: not told"""
    thought: str = ""
    text: str = ""


Answer = Callable[[dict[str, Any]], Awaitable[Heard | None]]
"""Asks the engine; None: it refused or failed, which says nothing of thoughts"""


def question(tier: Tier, host: str) -> dict[str, Any]:
    """The question as that tier would send it. host: the name by which the engine answers."""
    body = {"model": host, "messages": QUESTION, "max_tokens": 2 * BUDGET + ANSWER, "temperature": 0, "return_token_ids": True}
    limited = tier.thinking and tier.thinking.parser and tier.thinks
    return {**written(body, tier.name, tier.thinking, tier.body), **({"thinking_token_budget": BUDGET} if limited else {})}


def heard(document: Mapping[str, Any]) -> Heard:
    """document: a whole chat answer."""
    message = document["choices"][0]["message"]
    thought = next((str(message[name]) for name in FIELDS if message.get(name)), "")
    return Heard(tuple(document.get("prompt_token_ids") or ()), thought, str(message.get("content") or ""))


async def look(tiers: Sequence[Tier], answer: Answer) -> list[str]:
    """Ask each tier on one replica, and return what an operator should know. The first is the host.

    Raises BadConfig where a parser is wrong.
    """
    asked = [tier for tier in tiers if tier.thinking is not None or tier.body]
    found = {tier.name: said for tier in asked if (said := await answer(question(tier, tiers[0].name))) is not None}
    for tier in asked:
        if tier.thinking and tier.name in found and (wrong := wrong_parser(tier, tier.thinking, found[tier.name])):
            raise BadConfig(f"tiers.{tiers[0].name}.reasoning.parser: {wrong}")
    told = [alike(one, other) for one, other in combinations(asked, 2) if same_prompt(one, other, found)]
    for line in told:
        log.warning(line)
    return told


def wrong_parser(tier: Tier, settings: Reasoning, said: Heard) -> str:
    """What is wrong with the parser, and its mend; empty: nothing that shows."""
    parser, name = settings.parser, tier.name
    if parser is None:
        return ""
    if tier.thinks is False and said.thought and not said.text:
        return (
            f"{parser} takes the answer of {name}, which does not think, for a thought ({said.thought[:40]!r}); name the parser "
            "of the model's family, such as qwen3 (see its card), or let every tier of this model think"
        )
    if left := next((mark for mark in MARKS if mark in said.text), ""):
        return (
            f"{parser} leaves the thought of {name} in its answer ({left} in {said.text[:60]!r}); name the parser of the model's "
            "family (see its card)"
        )
    return ""


def same_prompt(one: Tier, other: Tier, found: Mapping[str, Heard]) -> bool:
    """Whether two tiers say different things to the chat template, and it makes the same prompt of both."""
    if one.name not in found or other.name not in found or said_to_template(one) == said_to_template(other):
        return False
    prompt = found[one.name].prompt
    return bool(prompt) and prompt == found[other.name].prompt


def said_to_template(tier: Tier) -> dict[str, Any]:
    return {name: value for name, value in tier.body.items() if name in CHAT_ONLY}


def alike(one: Tier, other: Tier) -> str:
    return (
        f"tiers.{other.name}.body: the chat template makes the same prompt for {one.name} ({said_to_template(one)}) and "
        f"{other.name} ({said_to_template(other)}), so they do not differ by it; look into the template for its switch's name"
    )
