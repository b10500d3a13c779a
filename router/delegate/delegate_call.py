"""The function `stepdown_delegate`: its description for the tier, and the arguments that the tier writes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from router.delegate import plans
from router.delegate.blocks import OffloadedChat, first_words
from router.delegate.sanitise import neutralise
from router.request.server_tools import DELEGATE

DESCRIPTION = """\
Hand parts of this request to smaller, cheaper models, which work side by side; their results are this tool's result.
It pays where the work falls into independent parts: one question about many items, files or sections; texts too long to read \
at once; many or long pieces to write. It costs more than it saves for a chain of steps that build on each other, for one \
question about one text, and for whatever you can answer in a few sentences: do those yourself.
A subtask: "prompt" (all that its worker is told: what to do, in which form; it sees nothing of this chat), "context" (texts by \
handle, or results of subtasks by id, that it is shown), "each" (a handle: a worker for every part of that text), "depends_on", \
"kind", "difficulty", "output_fields", "max_tokens". Leave out what is not needed. Subtasks are t1, t2, ... in order. Beside \
"plan" you may give "answer": the whole answer to the user with {{t1}} where a result stands in it unchanged."""
HANDLES = "\nHandles of this request's long texts, c1.3 for a part and c1.2-5 for several:"
NO_HANDLES = "\nThis request has no handles: put into each prompt all that its worker needs."


def delegate_function(chat: OffloadedChat, max_subtasks: int, strict: bool, special: Sequence[str] = ()) -> dict[str, Any]:
    """`stepdown_delegate` as the tier sees it."""
    lines = [
        f"{b.id}: {len(b.cut.parts)} parts ({b.cut.kind}), {b.tokens} tokens, begins: {first_words('', b.text)}"
        for b in chat.blocks.values()
    ]
    description = neutralise("\n".join([DESCRIPTION + HANDLES, *lines]) if lines else DESCRIPTION + NO_HANDLES, special)
    function = {"name": DELEGATE, "description": description, "parameters": plans.plan_schema(max_subtasks)}
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
