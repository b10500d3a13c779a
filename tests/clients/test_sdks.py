"""The SDKs against a served ladder. OpenAI's and Anthropic's are installed here, others in `.clients/`, by `make test`."""

import ast
import importlib.util
import sys
from functools import cache

import pytest

from tests.clients.environment import ROOT, SDKS, Environment
from tests.clients.sdk_runs import QUICK, checked

pytestmark = pytest.mark.slow

HERE = ("openai_py.py", "anthropic_py.py")
ENVIRONMENT = Environment(ROOT / ".clients")


def names(file: str) -> list[str]:
    """The checks of a file, without importing it."""
    tree = ast.parse((SDKS / file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("does_")]


EACH = [pytest.param(file, name, id=f"{file.removesuffix('.py')}-{name}") for file in HERE for name in names(file)]


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
    module = loaded(file)
    from checking import Where, run

    run(getattr(module, name), Where(served.origin, served.key))


@pytest.mark.parametrize("sdk", QUICK, ids=lambda sdk: sdk.client)
def test_an_sdk_in_an_environment_of_its_own(sdk, served):
    if ENVIRONMENT.missing(sdk.environment):
        pytest.skip(f"not installed: python -m tests.clients.environment {sdk.environment}")
    found = checked(sdk, served, ENVIRONMENT)
    assert len(found) > 4 and {one.check: one.why for one in found if one.why} == {}
