"""The SDKs against a served ladder: those that are installed here. `make clients` runs all of them, in an environment of its own."""

import ast
import importlib.util
import sys
from functools import cache

import pytest

from tests.clients.environment import SDKS

pytestmark = pytest.mark.slow

NEEDS = {
    "openai_py.py": ("openai",),
    "anthropic_py.py": ("anthropic",),
    "openai_agents_py.py": ("agents",),
    "pydantic_ai_py.py": ("pydantic_ai",),
    "langchain_py.py": ("langchain_openai", "langchain_anthropic"),
}


def names(file: str) -> list[str]:
    """The checks of a file, without importing it."""
    tree = ast.parse((SDKS / file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("does_")]


EACH = [pytest.param(file, name, id=f"{file.removesuffix('.py')}-{name}") for file in NEEDS for name in names(file)]


@cache
def loaded(file):
    if str(SDKS) not in sys.path:
        sys.path.append(str(SDKS))  # where the files find what they share
    spec = importlib.util.spec_from_file_location(f"sdks_{file.removesuffix('.py')}", SDKS / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file, name", EACH)
def test_an_sdk_as_it_is(file, name, served):
    missing = [package for package in NEEDS[file] if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"not installed here: {', '.join(missing)}; `make clients` runs this")
    module = loaded(file)
    from checking import Where, run

    run(getattr(module, name), Where(served.origin, served.key))
