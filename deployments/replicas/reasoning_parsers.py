"""The names of vLLM's parsers of thoughts, read from its source: importing vLLM takes seconds, too long for checking a file."""

import ast
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from router.errors import BadConfig

REGISTRY = "_REASONING_PARSERS_TO_REGISTER"  # of vllm/reasoning/__init__.py: name -> where the parser is


def installed() -> list[str]:
    """The names that the installed vLLM knows; empty where there is none here, or where it keeps them elsewhere."""
    found = find_spec("vllm")
    file = Path(found.origin).parent / "reasoning" / "__init__.py" if found and found.origin else None
    if file is None or not file.is_file():
        return []
    tree = ast.parse(file.read_text("utf-8"))
    held = [node.value for node in tree.body if isinstance(node, ast.Assign) and is_registry(node.targets[0])]
    keys = [key for value in held if isinstance(value, ast.Dict) for key in value.keys]
    return sorted(str(key.value) for key in keys if isinstance(key, ast.Constant))


def is_registry(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and target.id == REGISTRY


def check_known(tier: str, parser: str | None, known: Sequence[str]) -> None:
    """known: empty where it is not known. Raises BadConfig."""
    if parser and known and parser not in known:
        raise BadConfig(
            f"tiers.{tier}.reasoning.parser: found {parser!r}, which vLLM does not know; expected one of {', '.join(known)}"
        )
