"""The one count of a request: how many tokens a tier reads for it.

Windows, reservations, limits and the gates of delegation all count here, and so do calls that were cut off. Two figures:

- the upper bound, for windows and money. A tier's own tokenizer counts the texts, and the costs of its chat template are added;
  a prompt with tools or tool calls is also rendered where the template is on this machine, and the larger figure counts. Where
  the tokenizer is unknown, bytes are the bound: no tokenizer that we serve makes more tokens than bytes.
- the expected number, for choosing by price, for bills of calls that were cut off, and for windows where no tier surely fits.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from classifiers.text.prompt import content_text
from router.request import server_tools
from router.request.body import answer_limit, is_ids, with_answer_limit
from router.tier_settings import Tier
from router.types import Counter, Prompt, byte_bound

# The most that a chat template adds to the texts, where it is not on this machine to be measured.
PER_PROMPT = 64
PER_MESSAGE = 8
PER_TOOLS = 512
PER_TEXT = 4  # a completion has no template, but a tokenizer may put its own marks around a prompt
USUAL_TEMPLATE = 4  # tokens that a chat template usually adds to a message
IMAGE_TOKENS = 16_384  # the most that current vision models take by default: Qwen-VL's
USUAL_IMAGE = 1_600
LONG_ARGUMENTS = 32_768  # characters of one call's arguments
PLAIN_FIELDS = ("content", "role")  # of a message; its other fields are counted as JSON
PLAIN_ROLES = ("system", "developer", "user", "assistant")
TEMPLATE_FIELDS = ("tools", "functions", "documents", "chat_template_kwargs")
FORM_FIELDS = ("response_format", "structured_outputs")
RENDERED_FIELDS = ("tools", "documents", "chat_template_kwargs")  # with these a template writes more than a plain chat
ESTIMATE_MARGIN = 4  # a quarter is added to estimates where too few would make the tier refuse
TEXTS = ("text", "refusal", "thinking", "input_text", "output_text")  # types of parts that are text, in the field of their kind
IMAGES = ("image_url", "input_image", "image")


class TemplateCost(NamedTuple):
    """The most tokens that a chat template adds to the texts of a plain chat."""

    per_prompt: int = PER_PROMPT
    per_message: int = PER_MESSAGE
    per_text: int = PER_TEXT
    """of a completion's prompt"""


# -- what there is to count ------------------------------------------------------------------------------------------------


def prompts_of(body: Mapping[str, Any]) -> tuple[Prompt, ...]:
    """The prompts of a body that has passed `wire.parse`, or of a call that a flow makes."""
    if "messages" in body:
        return (chat_prompt(body),)
    prompt, suffix = body["prompt"], body.get("suffix")
    several = [prompt] if isinstance(prompt, str) or is_ids(prompt) else prompt
    after = f"\n{suffix}" if isinstance(suffix, str) else ""
    return tuple(completion_prompt(one, after) for one in several)


def completion_prompt(prompt: Any, after: str) -> Prompt:
    if isinstance(prompt, str):
        return Prompt(prompt + after, messages=0)
    return Prompt(after, messages=0, ids=len(prompt) if isinstance(prompt, list) else 1)


def chat_prompt(body: Mapping[str, Any]) -> Prompt:
    """All that a chat template may write: texts as they are, tool calls and tools as JSON."""
    body = server_tools.without(body)
    messages = body["messages"]
    parts = [part for message in messages for part in parts_beside_text(message.get("content"))]
    images = sum(part.get("type") in IMAGES for part in parts)
    fields = [as_json(body[name]) for name in TEMPLATE_FIELDS if body.get(name)]
    tools = bool(body.get("tools") or body.get("functions"))
    plain = not any(body.get(name) for name in RENDERED_FIELDS) and all(map(is_plain, messages))
    unbounded = len(parts) > images or body.get("chat_template") is not None
    texts = [*map(message_text, messages), *fields]
    shaped = sum(len(text) for text in [*map(beside_text, messages), *fields]) if not plain or fields else 0
    form = "\n".join(as_json(body[name]) for name in FORM_FIELDS if body.get(name))
    return Prompt("\n".join(texts), len(messages), 0, images, unbounded, tools, form, shaped, None if plain else body)


def is_plain(message: Mapping[str, Any]) -> bool:
    """Whether it has a text and nothing else; only of such messages the template's cost is measured at the start."""
    return message.keys() <= {"role", "content"} and message.get("role") in PLAIN_ROLES


def message_text(message: Mapping[str, Any]) -> str:
    """All texts of a message: content, and whatever else it has as JSON."""
    said, beside = said_text(message.get("content")), beside_text(message)
    return f"{said}\n{beside}" if beside else said


def beside_text(message: Mapping[str, Any]) -> str:
    """The fields of a message beside its content, as JSON: tool calls, names, reasoning. Empty: it has none."""
    rest = {key: readable(key, value) for key, value in message.items() if key not in PLAIN_FIELDS and value is not None}
    return as_json(rest) if rest else ""


def said_text(content: Any) -> str:
    """The texts of a content's parts, whatever each calls its text."""
    if not isinstance(content, list):
        return content_text(content)
    return "\n".join(text for part in content for text in part_texts(part))


def part_texts(part: Mapping[str, Any]) -> Iterable[str]:
    return (part[name] for name in ("text", "refusal", "thinking") if isinstance(part.get(name), str))


def parts_beside_text(content: Any) -> list[Mapping[str, Any]]:
    return [part for part in content if part.get("type") not in TEXTS] if isinstance(content, list) else []


def readable(key: str, value: Any) -> Any:
    """A message's field as the longer of what the client sent and what a template may write of it."""
    if key == "tool_calls" and isinstance(value, list):
        return [with_arguments(call, "function") for call in value]
    return longer(value) if key == "function_call" else value


def with_arguments(call: Any, key: str) -> Any:
    return {**call, key: longer(call[key])} if isinstance(call, Mapping) and key in call else call


def longer(function: Any) -> Any:
    """A called function whose arguments are spaced as templates space them: backends read the JSON and write it again."""
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    if not isinstance(arguments, str):
        return function
    if len(arguments) > LONG_ARGUMENTS:  # to read so much takes longer than others may wait; this is as long or longer
        return {**function, "arguments": arguments.replace(",", ", ").replace(":", ": ")}
    try:
        spaced = as_json(json.loads(arguments))
    except (ValueError, RecursionError):
        return function
    return {**function, "arguments": max(arguments, spaced, key=len)}


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# -- counting --------------------------------------------------------------------------------------------------------------


def text_bound(text: str, count: Counter) -> int:
    """Upper bound of a text's tokens."""
    if not getattr(count, "exact", False):
        return byte_bound(text)
    return int(getattr(count, "tokens", count)(text))


def text_tokens(text: str, count: Counter) -> int:
    """A text's tokens without any template: exact where the tokenizer is known, else an estimate that errs upwards."""
    return int(getattr(count, "tokens", count)(text)) if text else 0


@dataclass(frozen=True, slots=True)
class Reader:
    """One tier as it reads prompts. Its count may be used in several threads at the same time."""

    count: Counter
    context: int
    """most tokens of prompt and answer together"""
    image_tokens: int = IMAGE_TOKENS
    """most tokens that one image takes"""

    @property
    def template(self) -> TemplateCost:
        return getattr(self.count, "template", None) or TemplateCost()

    @property
    def says(self) -> bool:
        """Whether its count says what it is: a tokenizer's, or an estimate. Others are taken at their word in windows."""
        return hasattr(self.count, "exact")

    @classmethod
    def of(cls, tier: Tier, count: Counter) -> "Reader":
        return cls(count, tier.context, tier.image_tokens)

    def total(self, body: Mapping[str, Any]) -> int:
        """Upper bound of the tokens of all prompts of a body together: what may have to be paid."""
        return sum(self.most(prompt) for prompt in prompts_of(body))

    def most(self, prompt: Prompt) -> int:
        """Upper bound of one prompt's tokens."""
        render = getattr(self.count, "rendered", None) if prompt.body is not None else None
        rendered = render(prompt.body) if render else 0
        texts = text_bound(prompt.text, self.count) + self.form(prompt, text_bound)
        return max(rendered, texts + self.overhead(prompt, rendered > 0)) + prompt.ids + self.media(prompt)

    def own(self, body: Mapping[str, Any]) -> int:
        """Upper bound of a flow's own prompt. A template that is not known is taken to add no system prompt of its own."""
        prompt = chat_prompt(body)
        if not self.says or getattr(self.count, "template", None) is None:
            text = text_bound(prompt.text, self.count) if self.says else self.count(prompt.text)
            return text + PER_MESSAGE * prompt.messages + self.media(prompt)
        return self.most(prompt)

    def at_most(self, prompt: Prompt) -> int:
        """A larger bound that needs no tokenizer: bytes. Of JSON, which templates write in their own way, five times those."""
        shaped = 4 * prompt.shaped + PER_TOOLS if prompt.body is not None else 0
        texts = byte_bound(prompt.text) + byte_bound(prompt.form)
        return texts + shaped + self.overhead(prompt) + prompt.ids + self.media(prompt)

    def overhead(self, prompt: Prompt, rendered: bool = False) -> int:
        """The most that the chat template adds. rendered: what it says of tools is known."""
        cost = self.template
        if not prompt.messages:
            return cost.per_text
        return cost.per_prompt + cost.per_message * prompt.messages + (PER_TOOLS if prompt.tools and not rendered else 0)

    def form(self, prompt: Prompt, tokens: Callable[[str, Counter], int]) -> int:
        """Tokens of the form asked for, which a known template does not write. tokens: counts it."""
        known = getattr(self.count, "template", None) is not None
        return 0 if known or not prompt.form else tokens(prompt.form, self.count)

    def media(self, prompt: Prompt) -> int:
        """The most that images and other parts take; never more than the window, beyond which a tier reads nothing."""
        return self.context if prompt.unbounded else min(self.context, prompt.images * self.image_tokens)

    def expected(self, prompt: Prompt) -> int:
        """Estimate of one prompt's tokens, for texts of all kinds rather too many. A counter includes one question's template."""
        form = self.form(prompt, text_tokens)
        return (
            self.count(prompt.text) + form + USUAL_TEMPLATE * max(0, prompt.messages - 1) + prompt.ids + self.usual_media(prompt)
        )

    def counted(self, body: Mapping[str, Any]) -> int:
        """What a client is told of a prompt: exact where the tokenizer is known, else an estimate that errs upwards."""
        prompts = prompts_of(body)
        exact = getattr(self.count, "exact", False)
        return sum(self.most(p) - self.media(p) + self.usual_media(p) if exact else self.expected(p) for p in prompts)

    def usual_media(self, prompt: Prompt) -> int:
        return self.context // 4 if prompt.unbounded else prompt.images * min(USUAL_IMAGE, self.image_tokens)

    def expected_total(self, body: Mapping[str, Any]) -> int:
        """The same of all prompts of a body: what a call that was cut off is billed for."""
        return sum(map(self.expected, prompts_of(body)))

    def limit_within(self, body: Mapping[str, Any], limit: int) -> int:
        """The limit of an answer, cut to the room that the window has left, at least 1.

        It may be too many where the tokenizer is not known: bytes would leave next to nothing, so an estimate counts.
        """
        prompts = prompts_of(body)
        if limit + max(map(self.at_most, prompts)) <= self.context:  # no tokenizer is needed to tell that it fits
            return limit
        return max(1, min(limit, self.context - max(map(self.taken, prompts))))

    def taken(self, prompt: Prompt) -> int:
        if not self.says or getattr(self.count, "exact", False):
            return self.most(prompt)
        likely = self.expected(prompt)
        return min(self.most(prompt), likely + likely // ESTIMATE_MARGIN)

    def least(self, length: int) -> int:
        """Lower bound of the count of a text with so many characters; 0 where nothing is known of the tokenizer."""
        longest = getattr(self.count, "longest", 0)
        return length // longest if longest else 0


def within_window(body: Mapping[str, Any], reader: Reader) -> Mapping[str, Any]:
    """The body as its tier can take it: a limit of the answer beyond what the window has left is cut to that."""
    limit = answer_limit(body)
    cut = None if limit is None else reader.limit_within(body, limit)
    return body if cut is None or cut == limit else with_answer_limit(body, cut)


def expected_tokens(messages: Sequence[Mapping[str, Any]], count: Counter) -> int:
    """Estimate of a chat's tokens, message by message; for choosing by price only."""
    return sum(count(message_text(message)) + USUAL_TEMPLATE for message in messages)


# -- before counting -------------------------------------------------------------------------------------------------------


def text_length(body: Mapping[str, Any]) -> int:
    """Characters of the texts of the longest prompt, of calls and tools too: a lower bound for which nothing is written anew."""
    if "messages" in body:
        messages = body["messages"]
        beside = [*map(beside_content, messages), server_tools.client_tools(body), body.get("functions")]
        return sum(plain_length(message.get("content")) for message in messages) + strings_length(beside)
    prompt = body["prompt"]
    return max((len(one) for one in prompt if isinstance(one, str)), default=0) if isinstance(prompt, list) else len(prompt)


def plain_length(content: Any) -> int:
    if isinstance(content, list):
        return sum(len(part["text"]) for part in content if isinstance(part.get("text"), str))
    return len(content) if isinstance(content, str) else 0


def beside_content(message: Mapping[str, Any]) -> list[Any]:
    return [value for key, value in message.items() if key not in PLAIN_FIELDS]


def strings_length(value: Any) -> int:
    """Characters of all strings in it, without their keys."""
    length, level = 0, [value]
    while level:
        part = level.pop()
        if isinstance(part, str):
            length += len(part)
        elif isinstance(part, Mapping):
            level.extend(part.values())
        elif isinstance(part, list | tuple):
            level.extend(part)
    return length


def surely_too_long(length: int, readers: Iterable[Reader]) -> bool:
    """Whether no tier's window can hold a request of this `text_length`, by the longest token alone: nothing is tokenized."""
    return all(reader.least(length) > reader.context for reader in readers)
