"""Tools as functions, and who must be called."""

import pytest
from messages_client import ABOUT

from router.errors import BadRequest, UnsupportedTool
from router.protocols.messages import read

OWN = {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}


def asked(*tools, **more):
    return read(
        {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "tools": [*tools], **more}, ABOUT
    )


def functions(*tools):
    return [tool["function"] for tool in asked(*tools).body["tools"]]


def test_a_clients_own_tool():
    more = {
        "strict": True,
        "cache_control": {"type": "ephemeral"},
        "defer_loading": True,
        "input_examples": [{}],
        "eager_input_streaming": True,
    }
    got = asked({**OWN, **more, "type": "custom"})
    assert got.body["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": OWN["input_schema"], "strict": True}}
    ]
    assert got.ignored == ("cache_control",) and "tool_choice" not in got.body


@pytest.mark.parametrize(
    "tool", [{"name": "f"}, {"name": "f", "input_schema": None, "type": None}, {"name": "f", "input_schema": {}}]
)
def test_a_schema_is_an_objects(tool):
    assert functions(tool) == [{"name": "f", "parameters": {"type": "object"}}]


@pytest.mark.parametrize(
    "kind, name, has, has_not",
    [
        ("bash_20250124", "bash", {"command", "restart"}, {"path"}),
        ("text_editor_20250124", "str_replace_editor", {"command", "path", "new_str"}, {"insert_text"}),
        ("text_editor_20250728", "str_replace_based_edit_tool", {"command", "path", "insert_text", "view_range"}, {"restart"}),
        ("memory_20250818", "memory", {"command", "path", "old_path", "new_path"}, {"restart"}),
    ],
)
def test_tools_that_anthropic_defines_and_the_client_runs(kind, name, has, has_not):
    (got,) = functions({"type": kind, "name": name, "max_characters": 3})
    found = set(got["parameters"]["properties"])
    assert got["name"] == name and got["description"] and has <= found and not has_not & found
    assert set(got["parameters"]["required"]) <= found


def test_only_old_editors_undo():
    old, new = functions({"type": "text_editor_20250124", "name": "a"}, {"type": "text_editor_20250429", "name": "b"})
    commands = [tool["parameters"]["properties"]["command"]["enum"] for tool in (old, new)]
    assert ["undo_edit" in found for found in commands] == [True, False]


@pytest.mark.parametrize(
    "kind", ["web_search_20250305", "code_execution_20260120", "computer_20250124", "mcp_toolset", "bash_new"]
)
def test_tools_that_only_anthropic_runs_are_left_out_and_told(kind):
    got = asked(OWN, {"type": kind, "name": "x"})
    assert [tool["function"]["name"] for tool in got.body["tools"]] == ["f"] and got.ignored == (f"tools.{kind}",)


def test_without_a_tool_left_no_field_of_tools_is_sent():
    got = asked(SEARCH, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(got.body)


@pytest.mark.parametrize("tools, choice", [((SEARCH,), {"type": "any"}), ((OWN, SEARCH), {"type": "tool", "name": "web_search"})])
def test_they_are_refused_where_one_is_demanded(tools, choice):
    with pytest.raises(UnsupportedTool, match="web_search") as caught:
        asked(*tools, tool_choice=choice)
    assert (caught.value.status, caught.value.code) == (400, "unsupported_tool")


def test_server_tools_pass():
    delegate = {"type": "stepdown:delegate", "parameters": {"max_subtasks": 3}}
    assert asked(delegate).body["tools"] == [delegate]


@pytest.mark.parametrize(
    "choice, expected",
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ({"type": "auto", "disable_parallel_tool_use": True}, {"tool_choice": "auto", "parallel_tool_calls": False}),
        ({"type": "auto", "disable_parallel_tool_use": False}, {"tool_choice": "auto", "parallel_tool_calls": True}),
        (None, {}),
    ],
)
def test_choices(choice, expected):
    body = asked(OWN, tool_choice=choice).body
    assert {name: body[name] for name in ("tool_choice", "parallel_tool_calls") if name in body} == expected


@pytest.mark.parametrize(
    "tools, choice, named",
    [
        ((OWN,), "auto", "tool_choice"),
        ((OWN,), {"type": "required"}, "tool_choice.type"),
        ((OWN,), {"type": ["any"]}, "tool_choice.type"),
        ((OWN,), {"type": "tool"}, "tool_choice.name"),
        ((OWN,), {"type": "tool", "name": "g"}, "tool_choice"),
        ((OWN,), {"type": "auto", "disable_parallel_tool_use": 1}, "tool_choice.disable_parallel_tool_use"),
        ((), {"type": "any"}, "tool_choice"),
        (({"name": ""},), None, "tools[0].name"),
        (({"type": 3, "name": "f"},), None, "tools[0].type"),
        (({"type": "bash_20250124"},), None, "tools[0].name"),
        (({**OWN, "input_schema": []},), None, "tools[0].input_schema"),
        (({**OWN, "description": 3},), None, "tools[0].description"),
        (({**OWN, "strict": "yes"},), None, "tools[0].strict"),
    ],
)
def test_a_wrong_tool_or_choice_is_named(tools, choice, named):
    with pytest.raises(BadRequest) as caught:
        asked(*tools, tool_choice=choice)
    assert caught.value.param == named
