"""A tier's chat template, rendered as transformers and vLLM render it: what it adds to a chat's texts is measured."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from classifiers.text.prompt import content_text
from router.engine_settings import ModelSource
from router.request.template_fields import as_called, as_offered
from router.request.token_bounds import TemplateCost, chat_prompt

log = logging.getLogger("stepdown")
# What begins and ends a text decides how it joins the template's own words: each kind once.
SAMPLES = ("word", "7", " two words ", "\nline\n", "中文", "🙂", "{}", "<|x|>", ".")
ORDERS = (("user", "assistant"), ("user",), ("user", "system"))
FIRST: tuple[tuple[str, ...], ...] = ((), ("system",), ("developer",))
MOST_MESSAGES = 6
REFUSALS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""what a template may raise for a chat that it does not take"""


class ChatTemplate:
    """One template. names: special tokens by name, which templates write. tokens: counts a text, special tokens included.

    Raises TemplateError where the template cannot be read.
    """

    def __init__(self, text: str, names: Mapping[str, str], tokens: Callable[[str], int]) -> None:
        self.template = environment().from_string(text)
        self.names, self.tokens = names, tokens

    def write(self, body: Mapping[str, Any]) -> str:
        """The prompt of a chat. Raises one of REFUSALS."""
        more = {"documents": body["documents"]} if body.get("documents") else {}
        if isinstance(tools := body.get("tools"), list) and tools:
            more["tools"] = [as_offered(tool) for tool in tools]
        given = body.get("chat_template_kwargs")
        named = {"add_generation_prompt": True, **self.names, **more, **(given if isinstance(given, Mapping) else {})}
        return self.template.render({**named, "messages": [as_read(message) for message in body["messages"]]})

    def rendered(self, body: Mapping[str, Any]) -> int:
        """Tokens of a chat's prompt; 0 where the template refuses the chat, as the tier will."""
        try:
            return self.tokens(self.write(body))
        except REFUSALS as error:
            log.debug("the chat template refuses a chat: %s", error)
            return 0

    def measured(self, per_text: int) -> TemplateCost | None:
        """The most that the template adds to plain chats, of many samples; None where it takes none of them."""
        grown = [self.growth(text, first, order) for text in SAMPLES for first in FIRST for order in ORDERS]
        steps = [more - less for found in grown for (_, less), (_, more) in pairwise(found)]
        if not any(grown):
            return None
        each = max([0, *steps])  # a template that writes the last message alone adds less with each
        beside = max(added - each * messages for found in grown for messages, added in found)
        return TemplateCost(max(0, beside) + 1, each, per_text)

    def growth(self, text: str, first: Sequence[str], order: Sequence[str]) -> list[tuple[int, int]]:
        """(messages, tokens added to their texts) of chats that grow by a message each, those that the template takes."""
        found = []
        for length in range(1, MOST_MESSAGES + 1):
            roles = [*first, *islice(cycle(order), length)]
            body = {"messages": [{"role": role, "content": text} for role in roles]}
            if written := self.rendered(body):
                found.append((len(roles), written - self.tokens(chat_prompt(body).text)))
        return found


def template_text(source: ModelSource) -> str:
    """The chat template of the settings or of the model's folder; empty where none is on this machine."""
    if given := source.chat_template:
        return Path(given).read_text("utf-8") if len(given) < 1_000 and Path(given).is_file() else given
    if source.folder is None:
        return ""
    if (file := source.folder / "chat_template.jinja").is_file():
        return file.read_text("utf-8")
    named = tokenizer_settings(source.folder).get("chat_template") or ""
    if isinstance(named, list):  # several, by name
        named = next((str(one["template"]) for one in named if one.get("name") == "default"), "")
    return str(named)


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    found = json.loads(file.read_bytes()) if file.is_file() else {}
    return found if isinstance(found, dict) else {}


def special_names(folder: Path | None) -> dict[str, str]:
    """`bos_token` and the like -> their text, as templates write them."""
    found = tokenizer_settings(folder) if folder else {}
    named = {name: value for name, value in found.items() if name.endswith("_token")}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in named.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


# -- as transformers does it -----------------------------------------------------------------------------------------------


class Generation(Extension):
    """`{% generation %}`, by which templates mark answers for training: what is inside is written as it is."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> Node | list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return made


def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **how: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **how)


def refuse(message: str) -> None:
    raise TemplateError(message)


def as_read(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as vLLM hands it to a template: content as one text, the arguments of calls as objects."""
    read = dict(message)
    if isinstance(message.get("content"), list):
        read["content"] = content_text(message["content"])
    if isinstance(message.get("tool_calls"), list):
        read["tool_calls"] = [as_called(call) for call in message["tool_calls"]]
    return read
