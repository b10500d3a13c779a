"""Tools and calls of tools as vLLM hands them to a chat template, which token counts and training must write alike."""

import json
from collections.abc import Mapping
from typing import Any


def as_offered(tool: Any) -> Any:
    """A tool with the fields that vLLM adds where the client left them out."""
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        return tool
    return {**tool, "type": "function", "function": {"name": "", "description": None, "parameters": None, **function}}


def as_called(call: Any) -> Any:
    """A call of a tool with its arguments as an object; as it is where they are none."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        return {**call, "function": {**function, "arguments": json.loads(function["arguments"] or "{}")}}
    except (ValueError, RecursionError):
        return call
