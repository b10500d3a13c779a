"""Upper bounds of a prompt's tokens, as one tier counts them: for budgets, context windows and limits."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from classifiers.text.prompt import content_text
from router.request.body import is_ids, is_text
from router.types import Counter, byte_bound

# Most tokens that a chat template adds.
PER_PROMPT = 64
PER_MESSAGE = 8
PER_TOOLS = 512
PLAIN_FIELDS = ("content", "role")  # of a message; its other fields are counted as JSON
TEMPLATE_FIELDS = ("tools", "functions", "documents", "chat_template_kwargs", "response_format")


def prompt_tokens(body: Mapping[str, Any], context: int, count: Counter) -> int:
    """Upper bound for a body's prompt or messages. context: the tier's window, which images may fill."""
    if "messages" not in body:
        return completion_tokens(body["prompt"], count)
    messages = body["messages"]
    images = context if any(not is_text(message.get("content")) for message in messages) else 0
    tools = PER_TOOLS if body.get("tools") or body.get("functions") else 0
    return images + PER_PROMPT + PER_MESSAGE * len(messages) + tools + bounded(all_text(body), count)


def message_tokens(messages: Sequence[Mapping[str, Any]], count: Counter, each: int = PER_MESSAGE) -> int:
    """Tokens of the messages' texts, plus `each` for a message; without tools, images and the template's own system prompt."""
    return sum(count(content_text(message.get("content"))) + each for message in messages)


def completion_tokens(prompt: Any, count: Counter) -> int:
    """Upper bound for all prompts of a completion together; token ids are counted as they are."""
    prompts = [prompt] if isinstance(prompt, str) or is_ids(prompt) else prompt
    return PER_PROMPT + sum(bounded(p, count) if isinstance(p, str) else (len(p) if isinstance(p, list) else 1) for p in prompts)


def bounded(text: str, count: Counter) -> int:
    """A tier's own tokenizer counts exactly; an estimate is replaced by the bytes, which are an upper bound."""
    return count(text) if getattr(count, "exact", False) else byte_bound(text)


def all_text(body: Mapping[str, Any]) -> str:
    """All that a chat template may write: texts as they are, tool calls and tools as JSON."""
    texts = [content_text(message.get("content")) for message in body["messages"]]
    beside = [{key: value for key, value in message.items() if key not in PLAIN_FIELDS} for message in body["messages"]]
    fields = (json.dumps(body[name]) for name in TEMPLATE_FIELDS if body.get(name))
    return "\n".join([*texts, *(json.dumps(rest) for rest in beside if rest), *fields])
