"""The tools that Anthropic defines and the client runs, as functions of their published schemas.

https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/overview. Anthropic's models know these tools without a schema.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

VERSIONED = re.compile(r"(bash|text_editor|memory)_(2\d{7})")
RENAMED = "20250429"  # from this version the text editor has no undo, and its insert takes `insert_text`


def schema(needed: Sequence[str], **properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(needed)}


def words(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


COMMANDS = ("view", "create", "str_replace", "insert")
PATH = words("absolute path of the file or folder")
TEXT = words("with create: the file's content")
OLD = words("with str_replace: the text to replace, which must occur exactly once")
NEW = words("with str_replace: the new text")
NEW_OR_INSERTED = words("with str_replace: the new text; with insert: the text to insert")
INSERTED = words("with insert: the text to insert")
LINE = {"type": "integer", "description": "with insert: the line after which the text is inserted; 0: at the begin"}
RANGE = {
    "type": "array",
    "items": {"type": "integer"},
    "description": "with view: first and last line to show, counted from 1; -1 as the last: to the end",
}
BASH = schema(
    (),
    command=words("the command to run; required unless the shell is restarted"),
    restart={"type": "boolean", "description": "true: restart the shell instead"},
)
MEMORY = schema(
    ("command",),
    command={"type": "string", "enum": [*COMMANDS, "delete", "rename"]},
    path=words("path of the file or folder, below /memories; with all commands but rename"),
    view_range=RANGE,
    file_text=TEXT,
    old_str=OLD,
    new_str=NEW,
    insert_line=LINE,
    insert_text=INSERTED,
    old_path=words("with rename: the present path"),
    new_path=words("with rename: the path to be"),
)


def editor(version: str) -> dict[str, Any]:
    """The text editor's schema in a version, such as 20250728."""
    old = version < RENAMED
    inserted = {"new_str": NEW_OR_INSERTED} if old else {"new_str": NEW, "insert_text": INSERTED}
    command = {"type": "string", "enum": [*COMMANDS, *(("undo_edit",) if old else ())]}
    return schema(
        ("command", "path"),
        command=command,
        path=PATH,
        view_range=RANGE,
        file_text=TEXT,
        old_str=OLD,
        insert_line=LINE,
        **inserted,
    )


DESCRIBED = {
    "bash": "Run a command in a bash shell that keeps its state from call to call.",
    "text_editor": "View, create and edit text files.",
    "memory": "Keep notes in files below /memories, which outlast the conversation. Look there before you begin a task.",
}


def published(kind: str) -> tuple[str, dict[str, Any]] | None:
    """(description, schema) of a tool's type, such as bash_20250124; None: it is none that the client runs."""
    match = VERSIONED.fullmatch(kind)
    if not match:
        return None
    family, version = match.groups()
    return DESCRIBED[family], {"bash": BASH, "memory": MEMORY}.get(family) or editor(version)
