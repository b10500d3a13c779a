"""The function `stepdown_delegate`: its description for the tier, and the arguments that the tier writes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from router.delegate import plans
from router.delegate.blocks import OffloadedChat, first_words
from router.delegate.prompts import TEXTS, told
from router.delegate.sanitise import neutralise
from router.request.server_tools import DELEGATE


def delegate_function(
    chat: OffloadedChat, max_subtasks: int, strict: bool, special: Sequence[str] = (), kept: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """`stepdown_delegate` as the tier sees it. kept: see `prompts.told`."""
    lines = [
        f"{b.id}: {len(b.cut.parts)} parts ({b.cut.kind}), {b.tokens} tokens, begins: {first_words('', b.text)}"
        for b in chat.blocks.values()
    ]
    text = "\n".join([told("function", kept) + TEXTS["handles" if lines else "no_handles"], *lines])
    function = {"name": DELEGATE, "description": neutralise(text, special), "parameters": plans.plan_schema(max_subtasks)}
    return {"type": "function", "function": function | ({"strict": True} if strict else {})}


def arguments_text(call: Mapping[str, Any]) -> str:
    """The arguments as the tier wrote them. Some backends' parsers return an object, or the list of subtasks as a text."""
    wrote = call["function"].get("arguments")
    try:
        read = json.loads(wrote) if isinstance(wrote, str) else wrote
        if isinstance(read, dict) and isinstance(read.get("plan"), str):
            return json.dumps(read | {"plan": json.loads(read["plan"])})
    except (ValueError, RecursionError):
        pass
    return wrote if isinstance(wrote, str) else json.dumps(wrote)


def is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
