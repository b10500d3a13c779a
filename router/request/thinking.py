"""How much a model is to think, as a client asks for it in a chat, written as the tier understands it that is called.

A tier without the setting `reasoning` gets the fields as they came. History is the same for every tier: a thought goes back only
to the tier that had it, and only within the turn that is under way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from router.reasoning_settings import Reasoning
from router.request.body import answer_limit, wants_json
from router.request.thoughts import FIELDS

TIER = "reasoning_tier"  # of a message: the tier whose thought it holds; our own field, which no tier gets
ASKED = ("reasoning_effort", "thinking_token_budget", "include_reasoning")
SWITCH = "enable_thinking"  # of `chat_template_kwargs`
USUAL = "medium"  # the effort of who only says that it is to think
KEEPS = {"preserve_thinking": True, "clear_thinking": False}
"""of `chat_template_kwargs`: the client wants finished turns with their thoughts"""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a chat asks for. Values of a wrong type ask for nothing."""

    on: bool | None = None
    """None: nothing is said of it"""
    effort: str = ""
    """as given; empty: none is"""
    budget: int | None = None
    """most tokens of the thought"""


def wish_of(body: Mapping[str, Any]) -> Wish:
    """The template's own switch outranks the effort, as it does in vLLM. A budget of 0 is no thinking."""
    effort, budget, kwargs = body.get("reasoning_effort"), body.get("thinking_token_budget"), kwargs_of(body)
    effort = effort if isinstance(effort, str) else ""
    budget = budget if type(budget) is int and budget >= 0 else None
    on = kwargs.get(SWITCH)
    if not isinstance(on, bool):
        on = effort != "none" if effort else (None if budget is None else budget > 0)
    return Wish(on and budget != 0, effort, budget)


def kwargs_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    given = body.get("chat_template_kwargs")
    return given if isinstance(given, Mapping) else {}


def written(body: Mapping[str, Any], tier: str, settings: Reasoning | None) -> Mapping[str, Any]:
    """The body of a call as that tier gets it; often the same object. The answer's limit in it is the one that holds."""
    if "messages" not in body:
        return body
    body = with_own_thoughts(body, tier)
    return body if settings is None else switched(body, settings)


def switched(body: Mapping[str, Any], settings: Reasoning) -> dict[str, Any]:
    """The body with the tier's own way to say whether and how much to think."""
    wish, on = wish_of(body), thinks(body, settings)
    sent = {name: value for name, value in body.items() if name not in (*ASKED, "chat_template_kwargs")}
    kwargs = {name: value for name, value in kwargs_of(body).items() if name != SWITCH}
    if settings.switch == "chat_template":
        kwargs[SWITCH] = on
    if settings.switch == "effort" and (effort := effort_of(wish, on, settings)):
        sent["reasoning_effort"] = effort
    if (budget := budget_of(body, wish, on, settings)) is not None:
        sent["thinking_token_budget"] = budget
    return sent | ({"chat_template_kwargs": kwargs} if kwargs else {})


def thinks(body: Mapping[str, Any], settings: Reasoning) -> bool:
    """Whether the tier will think. body: as the client sent it, or as the tier gets it.

    Without a parser vLLM holds the thought itself to the form that was asked for, so there is none.
    """
    wish, usual = wish_of(body), settings.default == "on"
    if settings.parser is None and guided(body):
        return False
    switched_by_budget = settings.switch == "none" and settings.parser is not None and wish.on is False
    return usual if wish.on is None or (settings.switch == "none" and not switched_by_budget) else wish.on


def opened(body: Mapping[str, Any], settings: Reasoning) -> bool:
    """Whether the answer's text begins within the thought. body: as the tier gets it."""
    return bool(settings.opened) and settings.parser is None and thinks(body, settings)


def guided(body: Mapping[str, Any]) -> bool:
    """Whether the tier's every token is held to a form."""
    choice = body.get("tool_choice")
    return bool(wants_json(body) or body.get("structured_outputs") or choice == "required" or isinstance(choice, Mapping))


def effort_of(wish: Wish, on: bool, settings: Reasoning) -> str:
    """Empty: the tier's own."""
    if not on:
        return "none"
    level = "" if wish.effort == "none" else wish.effort
    return level or (USUAL if settings.default == "off" else "")


def budget_of(body: Mapping[str, Any], wish: Wish, on: bool, settings: Reasoning) -> int | None:
    """Most tokens of the thought, at most half of the answer's limit, which holds for both; None: none is set.

    vLLM refuses a budget where it has no parser. Where nothing else ends the thought, a budget of 0 does.
    """
    if settings.parser is None and settings.budget is None:
        return None
    if not on:
        return 0 if settings.switch == "none" and wish.on is False else None
    given = [most for most in (wish.budget, settings.budget) if most is not None]
    limit = answer_limit(body)
    return min([*given, *([limit // 2] if limit else [])]) if given else None


# -- history ---------------------------------------------------------------------------------------------------------------


def with_own_thoughts(body: Mapping[str, Any], tier: str) -> Mapping[str, Any]:
    """The body without thoughts of other tiers and of finished turns: those before the last message of the user."""
    messages = body["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return body  # the tier says what is wrong with it
    names = {*FIELDS, TIER}
    if not any(names & message.keys() for message in messages):
        return body
    kept = kwargs_of(body)
    asked = max((i for i, message in enumerate(messages) if message.get("role") == "user"), default=-1)
    finished = -1 if any(kept.get(name) is value for name, value in KEEPS.items()) else asked
    return {**body, "messages": [own_thought(message, tier, i < finished) for i, message in enumerate(messages)]}


def own_thought(message: Mapping[str, Any], tier: str, finished: bool) -> Mapping[str, Any]:
    """The message as that tier gets it. One that held nothing but a thought says nothing then."""
    strange = finished or message.get(TIER) not in (None, tier)
    out = {TIER, *FIELDS} if strange and message.get("role") == "assistant" else {TIER}
    if not out & message.keys():
        return message
    rest = {name: value for name, value in message.items() if name not in out}
    silent = rest.get("content") is None and not (rest.get("tool_calls") or rest.get("function_call"))
    return {**rest, "content": ""} if silent and message.get("role") == "assistant" else rest
