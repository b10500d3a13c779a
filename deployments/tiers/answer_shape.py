"""The form of a choice in a tier's answer: what is read further on has the types that OpenAI documents.

Each function changes what other servers say differently, returns whether it did, and raises ValueError for what is no answer.
"""

import json
from collections.abc import Mapping
from typing import Any

from router.reasoning_settings import Reasoning
from router.request import thinking
from router.request.thoughts import DeltaReader, apart, separated
from router.types import Path

BROKEN_OFF = ("error", "abort")  # finish reasons of OpenRouter and vLLM for an answer that was not finished
NONE = type(None)
LEAST_LOGPROB = -1e6  # vLLM writes -9999 for none at all
MOST_LOGPROB = 0.01  # 0, and what some servers' rounding adds to it


def need(value: Any, kinds: tuple[type, ...], what: str) -> None:
    if type(value) not in kinds:
        wanted = " or ".join("null" if kind is NONE else kind.__name__ for kind in kinds)
        raise ValueError(f"`{what}` is {type(value).__name__}, not {wanted}")


def fit_choice(choice: Any, place: int, path: Path, key: str) -> bool:
    """place: its place in the list. key: `message` in a document, `delta` in a stream; a completion has `text` in both."""
    need(choice, (dict,), "choices[]")
    changed = "index" not in choice
    index = choice.setdefault("index", place)
    if type(index) is not int:
        need(index, (int,), "index")
    reason = choice.get("finish_reason")
    if reason is not None:
        need(reason, (str,), "finish_reason")
        if reason in BROKEN_OFF:
            raise ValueError(f"it was broken off: `finish_reason` is {reason}")
    if path == "completions":
        if choice.get("text") is None and key == "delta":
            choice["text"], changed = "", True
        need(choice.get("text"), (str,), "text")
        need(choice.get("logprobs"), (dict, NONE), "logprobs")
        return changed
    if key == "delta" and choice.get("delta") is None:  # one whole answer, sent as an event
        choice["delta"], changed = choice.pop("message", None) or {}, True
    said = choice.get(key)
    need(said, (dict,), key)
    if choice.get("logprobs") is not None:
        check_logprobs(choice["logprobs"])
    return fit_message(said, key) or changed


def fit_message(said: dict[str, Any], key: str) -> bool:
    """A message, or a piece of one."""
    content, changed = said.get("content"), False
    if type(content) is not str and content is not None:
        said["content"], changed = joined_text(content), True
    if said.get("refusal") is not None:
        need(said["refusal"], (str,), "refusal")
    if (calls := said.get("tool_calls")) is not None:
        need(calls, (list,), "tool_calls")
        for place, call in enumerate(calls):
            changed = fit_call(call, place, key) or changed
    return changed


def joined_text(content: Any) -> str:
    """Content that is a list of parts as one text; parts that are no text, such as thoughts, are left out."""
    need(content, (list,), "content")
    for part in content:
        need(part, (dict,), "content[]")
    texts = [part.get("text", "") for part in content if part.get("type", "text") == "text"]
    for text in texts:
        need(text, (str,), "content[].text")
    return "".join(texts)


def fit_call(call: Any, place: int, key: str) -> bool:
    """A tool call, or a piece of one."""
    need(call, (dict,), "tool_calls[]")
    need(call.get("id"), (str, NONE), "tool_calls[].id")
    changed = key == "delta" and "index" not in call
    if key == "delta":
        need(call.setdefault("index", place), (int,), "tool_calls[].index")
    function = call.get("function")
    if function is None:
        return changed
    need(function, (dict,), "function")
    need(function.get("name"), (str,) if key == "message" else (str, NONE), "function.name")
    if isinstance(function.get("arguments"), dict):  # as Ollama has them
        function["arguments"], changed = json.dumps(function["arguments"]), True
    need(function.get("arguments"), (str, NONE), "function.arguments")
    return changed


def check_logprobs(logprobs: Any) -> None:
    """The log-probabilities of a chat."""
    need(logprobs, (dict,), "logprobs")
    tokens = logprobs.get("content")
    need(tokens, (list, NONE), "logprobs.content")
    for token in tokens or ():
        check_logprob(token)
        others = token.get("top_logprobs")
        need(others, (list, NONE), "top_logprobs")
        for other in others or ():
            check_logprob(other)


def check_logprob(token: Any) -> None:
    need(token, (dict,), "logprobs.content[]")
    need(token.get("logprob"), (float, int), "logprob")
    if not LEAST_LOGPROB <= token["logprob"] <= MOST_LOGPROB:
        raise ValueError("`logprob` is none")


def length(choice: Mapping[str, Any], path: Path, key: str) -> int:
    """Characters of text in a choice; at least 1 where it says anything at all."""
    if path == "completions":
        return len(choice["text"])
    said = choice[key]
    return len(said.get("content") or "") or any(value for name, value in said.items() if name != "role")


class ThoughtsInText:
    """Gives the thoughts of one call's answers, which its tier leaves in their text, a field of their own: `reasoning`.

    opened: the text begins within the thought.
    """

    def __init__(self, opened: bool) -> None:
        self.opened = opened
        self.readers: dict[int, DeltaReader] = {}
        """index of a streamed choice -> its reader"""

    @classmethod
    def of(cls, settings: Reasoning | None, path: Path, body: Mapping[str, Any]) -> "ThoughtsInText | None":
        """None: the tier keeps thoughts apart itself, or nothing is known of its thinking. body: as the tier got it."""
        if settings is None or settings.parser is not None or path != "chat/completions":
            return None
        return cls(thinking.opened(body, settings))

    def take_out(self, choice: dict[str, Any], key: str) -> bool:
        """Change a choice that fits; key: as in `fit_choice`. Returns whether it changed."""
        before = choice[key]
        if key == "message":
            choice[key] = apart(before, self.opened)
        else:
            reader = self.readers.setdefault(choice["index"], DeltaReader(self.opened))
            choice[key] = separated(before, reader.read(before, bool(choice.get("finish_reason"))))
        return bool(choice[key] != before)
