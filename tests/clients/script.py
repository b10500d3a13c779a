"""What a steered tier says. The words of a chat's last user message decide, so that any client can be led through a task.

`TOOL name json` calls a tool; several of them are the steps of one task, one for each turn. `TOOLS n` calls the first tool n
times at once, `BADARGS` with arguments that are no JSON. When the steps are over the answer quotes what the last tool said, or
is what `SAY` has, a JSON text. `THINK n` thinks n words before every turn. The rest is for the first turn only: `SLOW s` waits,
`FAIL status` fails, `CUT n` breaks the stream after n pieces, `LONG n` answers n words, `LENGTH` is cut off by its limit, and
`WEAK` makes the small tier unsure of what it drafts.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

NUMBERED = re.compile(r"\b(THINK|LONG|FAIL|CUT|SLOW|TOOLS) (\d+(?:\.\d+)?)")
STEP = re.compile(r"\bTOOL ([\w.-]+) (?=\{)|\bTOOLS \d+|\bBADARGS\b")
SAY = re.compile(r'\bSAY (?=")')
WORD = re.compile(r"\b(?:TOOLS?|THINK|LONG|FAIL|CUT|SLOW|SAY|LENGTH|BADARGS|WEAK)\b")
QUOTED = 400  # characters of a tool's result that an answer repeats
SURE = -0.01
UNSURE = -5.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool; arguments is JSON, or was to be."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Said:
    """One turn of a tier."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    finish: str = "stop"
    logprob: float = SURE
    wait_s: float = 0.0
    fails: int = 0
    """status; 0: it does not"""
    cut: int | None = None
    """pieces after which a stream breaks"""


def said(body: Mapping[str, Any], tier: str) -> Said:
    """The turn that a chat body asks for."""
    at = steering(body["messages"])
    text, after = (content(body["messages"][at]), body["messages"][at + 1 :]) if at is not None else ("", [])
    found, turns = numbers(text), [message for message in after if message["role"] == "assistant"]
    turn = spoken(body, tier, text, turns)
    turn = replace(turn, reasoning=words("thought", found["THINK"])) if found.get("THINK") else turn
    if turns:
        return turn
    cut = int(found["CUT"]) if "CUT" in found else None
    turn = replace(turn, wait_s=found.get("SLOW", 0.0), fails=int(found.get("FAIL", 0)), cut=cut)
    weak = tier == "small" and "WEAK" in text
    return replace(turn, text="draft", reasoning=turn.reasoning.replace("thought", "draft"), logprob=UNSURE) if weak else turn


def steering(messages: Sequence[Mapping[str, Any]]) -> int | None:
    """Where the user message is whose words decide; None: the last answer ended what one asked for."""
    for at in range(len(messages) - 1, -1, -1):
        message = messages[at]
        if message["role"] == "assistant" and not message.get("tool_calls"):
            return None
        if message["role"] == "user" and WORD.search(content(message)):
            return at
    return None


def spoken(body: Mapping[str, Any], tier: str, text: str, turns: Sequence[Mapping[str, Any]]) -> Said:
    """turns: what the tier said since the words `text`."""
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return Said(json.dumps(example(wanted["json_schema"]["schema"])))
    tools = [tool["function"] for tool in body.get("tools") or () if tool.get("type") == "function"]
    left = list(STEP.finditer(text))[len(turns) :] if tools else []
    if left:
        return Said(calls=step(left[0], text, tools), finish="tool_calls")
    if forced := demanded(body.get("tool_choice"), tools):
        return Said(calls=(Call(forced["name"], json.dumps(example(forced.get("parameters") or {}))),), finish="tool_calls")
    return ending(body["messages"], tier, text, not turns)


def demanded(choice: Any, tools: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The tool that must be called."""
    if choice == "required" and tools:
        return tools[0]
    name = (choice.get("function") or {}).get("name") if isinstance(choice, Mapping) else None
    return next((tool for tool in tools if tool["name"] == name), None)


def ending(messages: Sequence[Mapping[str, Any]], tier: str, text: str, first: bool) -> Said:
    """The turn that ends a task."""
    found = numbers(text)
    if first and "LONG" in found:
        return Said(words("word", found["LONG"]))
    if first and "LENGTH" in text:
        return Said("this answer was cut", finish="length")
    if say := SAY.search(text):
        return Said(str(first_json(text, say.end())))
    results = [content(message) for message in messages if message["role"] == "tool"]
    if results and messages[-1]["role"] != "assistant" and not first:
        return Said(f"The tool said: {results[-1][:QUOTED]}")
    asked = [content(message) for message in messages if message["role"] == "user"]
    return Said(f"You said: {asked[-1][-QUOTED:] if asked else 'nothing'}")


def step(found: re.Match[str], text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[Call, ...]:
    word = found[0].split(" ")[0]
    if word == "TOOL":
        return (Call(found[1], json.dumps(first_json(text, found.end()))),)
    schema = tools[0].get("parameters") or {}
    if word == "BADARGS":
        return (Call(tools[0]["name"], '{"city": "Ro'),)
    count = int(found[0].split(" ")[1])
    return tuple(Call(tools[0]["name"], json.dumps(example(schema, f"text {i}"))) for i in range(count))


def first_json(text: str, at: int) -> Any:
    """The JSON that begins there. Some clients quote a prompt, with its quotation marks escaped."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, at)[0]
    except ValueError:
        return json.JSONDecoder(strict=False).raw_decode(text[at:].replace('\\"', '"').replace("\\\\", "\\"))[0]


def numbers(text: str) -> dict[str, float]:
    return {word: float(number) for word, number in NUMBERED.findall(text)}


def words(word: str, count: float) -> str:
    return " ".join(f"{word}{i}" for i in range(int(count)))


def content(message: Mapping[str, Any]) -> str:
    """A message's text."""
    given = message.get("content") or ""
    return given if isinstance(given, str) else "\n".join(part.get("text") or "" for part in given)


def example(schema: Mapping[str, Any], text: str = "text") -> Any:
    """A value that a schema allows, as far as the schemas of these clients go."""
    if "enum" in schema or "const" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object" or "properties" in schema:
        required = schema.get("required") or ()
        return {name: example(part, text) for name, part in (schema.get("properties") or {}).items() if name in required}
    if kind == "array":
        return [example(schema.get("items") or {}, text)]
    return {"integer": 3, "number": 0.5, "boolean": True, "null": None}.get(kind, text)  # type: ignore[arg-type]
