"""Tools as functions of a chat, and what a request demands of them."""

import pytest
from asking import asked, function, sent

from router.errors import BadRequest, UnsupportedTool
from router.protocols.responses.tools import LONGEST, offered

NAMESPACE = {"type": "namespace", "name": "agents", "description": "Helpers.", "tools": [function("spawn"), function("wait")]}
PATCH = {
    "type": "custom",
    "name": "patch",
    "description": "Edits.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: X"},
}
SEARCH = {"type": "web_search"}


def names(body):
    return [tool["function"]["name"] for tool in body.get("tools", [])]


def test_a_function_passes():
    parameters = {"type": "object", "properties": {"a": {"type": "string"}}}
    given = {
        "type": "function",
        "name": "f",
        "description": "F.",
        "parameters": parameters,
        "strict": True,
        "defer_loading": False,
    }
    made = {"name": "f", "description": "F.", "parameters": parameters, "strict": True}
    assert sent(tools=[given])["tools"] == [{"type": "function", "function": made}]
    assert sent(tools=[{"type": "function", "name": "f", "description": "", "parameters": None}])["tools"] == [
        {"type": "function", "function": {"name": "f"}}
    ]


def test_a_namespace_becomes_functions_and_the_first_says_what_they_share():
    made = [tool["function"] for tool in sent(tools=[NAMESPACE])["tools"]]
    assert [(f["name"], f.get("description")) for f in made] == [("agents__spawn", "Helpers."), ("agents__wait", None)]


def test_long_names_are_cut_and_stay_different():
    long = {"type": "namespace", "name": "n" * 40, "tools": [function("t" * 40 + end) for end in "ab"]}
    first, second = names(sent(tools=[long]))
    assert len(first) == len(second) == LONGEST and first != second
    assert names(sent(tools=[long])) == [first, second]
    assert offered([long]).tool(second).name == "t" * 40 + "b"


def test_names_that_meet_are_told_apart():
    tools = [function("agents__spawn"), NAMESPACE, {"type": "custom", "name": "shell"}, {"type": "shell"}]
    made = names(sent(tools=tools))
    assert len(set(made)) == len(made) == 5
    assert [offered(tools).tool(name) for name in made] == [
        offered(tools).tool(offered(tools).function(kind, name, namespace))
        for kind, name, namespace in [
            ("function", "agents__spawn", ""),
            ("function", "spawn", "agents"),
            ("function", "wait", "agents"),
            ("custom", "shell", ""),
            ("shell", "shell", ""),
        ]
    ]


def test_a_custom_tool_is_a_function_of_one_text_that_tells_its_grammar():
    made = sent(tools=[PATCH])["tools"][0]["function"]
    assert made["name"] == "patch" and made["parameters"]["properties"] == {"input": {"type": "string"}}
    assert made["description"].startswith("Edits.\n\n") and made["description"].endswith("lark grammar:\nstart: X")


def test_tools_that_the_client_runs_are_functions():
    assert names(sent(tools=[{"type": "local_shell"}, {"type": "shell"}, {"type": "apply_patch"}])) == [
        "local_shell",
        "shell",
        "apply_patch",
    ]


def test_the_servers_own_tools_pass():
    own = {"type": "stepdown:delegate", "parameters": {"max_subtasks": 2}}
    assert sent(tools=[own])["tools"] == [own]


def test_tools_that_nobody_runs_are_left_out_and_named():
    edge = asked(
        tools=[
            function("f"),
            SEARCH,
            {"type": "mcp", "server_label": "x"},
            {"type": "tool_search", "execution": "client"},
            SEARCH,
        ]
    )
    assert names(edge.body) == ["f"] and edge.ignored == ("tools.web_search", "tools.mcp", "tools.tool_search")


def test_without_a_tool_left_nothing_is_said_of_tools():
    body = sent(tools=[SEARCH], tool_choice="auto", parallel_tool_calls=True)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(body)


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_a_plain_choice_passes(choice):
    body = sent(tools=[function("f")], tool_choice=choice, parallel_tool_calls=False)
    assert (body["tool_choice"], body["parallel_tool_calls"]) == (choice, False)


@pytest.mark.parametrize(
    "choice, function_",
    [
        ({"type": "function", "name": "f"}, "f"),
        ({"type": "function", "name": "spawn", "namespace": "agents"}, "agents__spawn"),
        ({"type": "function", "name": "wait"}, "agents__wait"),
        ({"type": "custom", "name": "patch"}, "patch"),
        ({"type": "shell"}, "shell"),
    ],
)
def test_a_demanded_tool_is_a_named_function(choice, function_):
    body = sent(tools=[function("f"), NAMESPACE, PATCH, {"type": "shell"}], tool_choice=choice)
    assert body["tool_choice"] == {"type": "function", "function": {"name": function_}}


def test_allowed_tools_are_those_that_are_listed():
    tools = [function("f"), function("g"), NAMESPACE, PATCH, SEARCH, {"type": "stepdown:escalate"}]
    listed = [
        {"type": "function", "name": "g"},
        {"type": "namespace", "name": "agents"},
        SEARCH,
        {"type": "mcp", "server_label": "x"},
    ]
    edge = asked(tools=tools, tool_choice={"type": "allowed_tools", "mode": "required", "tools": listed})
    assert names(edge.body) == ["g", "agents__spawn", "agents__wait"] and edge.body["tool_choice"] == "required"
    own = asked(tools=tools, tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"type": "stepdown:escalate"}]})
    assert own.body["tools"] == [{"type": "stepdown:escalate"}]


@pytest.mark.parametrize(
    "tools, choice",
    [
        ([SEARCH], "required"),
        ([function("f"), SEARCH], {"type": "web_search"}),
        ([function("f")], {"type": "mcp", "server_label": "x"}),
        ([function("f"), SEARCH], {"type": "allowed_tools", "mode": "required", "tools": [SEARCH]}),
    ],
)
def test_a_demand_for_what_nobody_runs_is_refused(tools, choice):
    with pytest.raises(UnsupportedTool) as refused:
        asked(tools=tools, tool_choice=choice)
    assert refused.value.param == "tool_choice" and refused.value.code == "unsupported_tool"


@pytest.mark.parametrize(
    "body, where",
    [
        ({"tools": {}}, "tools"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": ["function"]}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [function("f", parameters=[])]}, "tools[0].parameters"),
        ({"tools": [function("f", strict="yes")]}, "tools[0].strict"),
        ({"tools": [function("f", description=5)]}, "tools[0].description"),
        ({"tools": [{"type": "custom", "name": "c", "format": "text"}]}, "tools[0].format"),
        ({"tools": [{"type": "custom", "name": "c", "format": {"definition": 5}}]}, "tools[0].format.definition"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": 5}]}, "tools[0].tools"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": {}}]}]}, "tools[0].tools[0].type"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [SEARCH]}]}, "tools[0].tools[0].type"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {}}, "tool_choice.type"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "mode": ["auto"], "tools": []}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "tools": "f"}}, "tool_choice.tools"),
        ({"tool_choice": {"type": "allowed_tools", "tools": [{"type": []}]}}, "tool_choice.tools[0].type"),
        ({"tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": []}]}}, "tool_choice.tools[0].name"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_place(body, where):
    with pytest.raises(BadRequest) as refused:
        asked(**body)
    assert refused.value.param == where and f"`{where}`" in str(refused.value)
