"""Tools that OpenAI defines and the client runs: the functions by which a tier calls them, and their calls as items."""

import json
from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["function", "custom", "local_shell", "shell", "apply_patch"]

TEXT = {"type": "string"}
NUMBER = {"type": "integer"}
TEXTS = {"type": "array", "items": TEXT}


def function(name: str, description: str, required: list[str], properties: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}
    return {"name": name, "description": description, "parameters": parameters}


FUNCTIONS: Mapping[str, Mapping[str, Any]] = {
    "local_shell": function(
        "local_shell",
        "Runs a command on the user's machine and returns its output.",
        ["command"],
        {
            "command": {**TEXTS, "description": "the program and its arguments"},
            "working_directory": TEXT,
            "timeout_ms": NUMBER,
            "env": {"type": "object", "additionalProperties": TEXT},
        },
    ),
    "shell": function(
        "shell",
        "Runs shell commands on the user's machine, each in a shell of its own, and returns their output.",
        ["commands"],
        {"commands": TEXTS, "timeout_ms": NUMBER, "max_output_length": {**NUMBER, "description": "in characters"}},
    ),
    "apply_patch": function(
        "apply_patch",
        "Creates, changes or deletes one file of the user's.",
        ["type", "path"],
        {
            "type": {**TEXT, "enum": ["create_file", "update_file", "delete_file"]},
            "path": TEXT,
            "diff": {**TEXT, "description": "in the V4A format; for create_file each line begins with +; not for delete_file"},
        },
    ),
}
"""type of a tool -> the function that stands for it"""
CALLS = {"local_shell_call": "action", "shell_call": "action", "apply_patch_call": "operation"}
"""type of a call's item -> its field with the arguments"""
PREFIXES = {"local_shell": "lsh_", "shell": "sh_", "apply_patch": "apc_"}


def arguments_of(value: Mapping[str, Any]) -> str:
    """A call's arguments, as its function has them, from the field in CALLS."""
    return written({k: v for k, v in value.items() if v is not None and (k, v) != ("type", "exec")})


def written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def call_fields(kind: Kind, arguments: str) -> dict[str, Any] | None:
    """The fields of a call's own item; None: the arguments are not what the tool takes, so that the item would say nothing."""
    try:
        said = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    if kind == "apply_patch":
        return operation(said)
    field = "command" if kind == "local_shell" else "commands"
    if not (isinstance(said.get(field), list) and all(isinstance(word, str) for word in said[field])):
        return None
    if kind == "local_shell":
        return {"action": {"env": {}, **said, "type": "exec"}}
    return {"action": {"timeout_ms": None, "max_output_length": None, **said}}


def operation(said: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = said.get("type")
    fields = ("type", "path") if kind == "delete_file" else ("type", "path", "diff")
    if kind not in ("create_file", "update_file", "delete_file") or not all(isinstance(said.get(f), str) for f in fields):
        return None
    return {"operation": {field: said[field] for field in fields}}
