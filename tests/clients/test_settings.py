"""README shows exactly the settings that the clients' tests run with."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.clients.environment import SDKS
from tests.clients.settings import AI_SDK, CLAUDE_CODE, CODEX, CONTINUE, LANGCHAIN, OPENCODE, SETTINGS

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
SECTION = README.partition("## Connect your tool")[2].partition("\n## ")[0]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.tool)
def test_readme_shows_what_is_tested(setting):
    assert f"```{setting.language}\n{setting.text}```" in SECTION and setting.tool in SECTION and setting.place in SECTION


def test_readme_shows_nothing_else():
    shown = re.findall(r"^```\w+\n(.*?)^```", SECTION, re.M | re.S)
    assert sorted(shown) == sorted(setting.text for setting in SETTINGS)


def test_the_files_are_files_of_their_kind():
    assert tomllib.loads(CODEX.text)["model_providers"]["stepdown"]["base_url"].endswith("/v1")
    assert json.loads(OPENCODE.text)["model"] == "stepdown/auto"
    assert yaml.safe_load(CONTINUE.text)["models"][0]["model"] == "auto"


def test_another_server_is_filled_in():
    variables = CLAUDE_CODE.variables("http://127.0.0.1:1234", "sk-x")
    assert variables["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1234" and variables["ANTHROPIC_AUTH_TOKEN"] == "sk-x"
    assert set(variables) == {"ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL"}


@pytest.mark.parametrize("setting, file, lines", [(AI_SDK, "ai_sdk.mjs", 1), (LANGCHAIN, "langchain_py.py", 1)])
def test_the_sdks_checks_import_what_is_shown(setting, file, lines):
    """Their checks build the model by the same call."""
    text = (SDKS / file).read_text()
    for name in re.findall(r"\b(createOpenAI|ChatOpenAI)\b", setting.text)[:lines]:
        assert f"{name}(" in text
