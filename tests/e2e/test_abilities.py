"""What tiers of real vLLM can do: found out while they start, shown, routed by; a promise that is not kept stops the start."""

import shutil
from pathlib import Path

import httpx
import pytest
import yaml

from deployments.serve.background import served
from router.config import SHIPPED
from router.decide.abilities import TRIED
from router.errors import BadInput

pytestmark = pytest.mark.ladder
MODELS = SHIPPED.parent / "pocket" / "models"
CHAT = "chat/completions"
USER = {"messages": [{"role": "user", "content": "What is 2 plus 3?"}], "max_tokens": 8}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
PARSER = ("enable_auto_tool_choice", "tool_call_parser")


def tier(name: str, source: Path, price: float, without=(), engine=None, **settings) -> dict:
    """A tier of the shipped pocket ladder with another model and fewer options."""
    shipped = yaml.safe_load((SHIPPED / "pocket.yaml").read_text())["tiers"][0]
    options = {key: value for key, value in shipped["engine_kwargs"].items() if key not in without}
    prices = {"usd_per_1m_input": price, "usd_per_1m_output": price}
    return {
        **shipped,
        "name": name,
        "source": str(source),
        "price": prices,
        "engine_kwargs": options | (engine or {}),
        **settings,
    }


def without_template(folder: Path) -> Path:
    """The small model without its chat template."""
    shutil.copytree(MODELS / "small", folder)
    (folder / "chat_template.jinja").unlink()
    return folder


def written(file: Path, *tiers: dict) -> str:
    file.write_text(yaml.safe_dump({"tiers": list(tiers), "ledger": {"url": f"sqlite:///{file.parent}/ledger.db"}}))
    return str(file)


# First, as one Ray serves one Stepdown: the other tests' ladder runs until the end of this file.
def test_a_promise_that_is_not_kept_stops_the_start(tmp_path):
    promising = tier("small", MODELS / "small", 0.1, without=PARSER, tools=True)
    with pytest.raises(BadInput) as stopped, served(written(tmp_path / "ladder.yaml", promising), timeout_s=600):
        pass
    said = str(stopped.value)
    assert "the ladder did not start: tiers.small.tools is true, but the tier takes no tools (it has no tool parser" in said
    assert "tools: false" in said and "Traceback" not in said


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("abilities")
    texts = tier("texts", without_template(folder / "model"), 0.1)
    bare = tier("bare", MODELS / "small", 0.2, without=PARSER, engine={"max_logprobs": 0})
    whole = tier("whole", MODELS / "medium", 0.4)
    file = written(folder / "ladder.yaml", texts, bare, whole)
    with served(file, 900) as (url, key), httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}) as made:
        made.timeout = 120
        yield made


def post(client, model: str, path=CHAT, **body):
    asked = {"model": model, **(USER if path == CHAT else {"prompt": "2 plus 3", "max_tokens": 4}), **body}
    return client.post(f"/{path}", json=asked)


def test_the_status_page_shows_what_each_tier_can_do(client):
    shown = client.get("/status").json()["ladder"]
    assert set(shown["whole"]["able"]) == set(TRIED) - {"images"} and list(shown["whole"]["unable"]) == ["images"]
    assert set(shown["texts"]["able"]) == {"completions", "json", "logprobs"}
    assert "no chat template" in shown["texts"]["unable"]["chat"]
    assert set(shown["bare"]["able"]) == {"chat", "completions", "json"}
    assert "no tool parser" in shown["bare"]["unable"]["tools"] and "no tool parser" in shown["bare"]["unable"]["tool_choice"]
    assert "max_logprobs" in shown["bare"]["unable"]["logprobs"]
    assert {its["state"] for its in shown.values()} == {"ready"}


@pytest.mark.parametrize(
    ("model", "body", "reason"),
    [
        ("texts", {}, "no chat template"),
        ("texts", {"stream": True}, "no chat template"),
        ("bare", {"tools": TOOLS}, "no tool parser"),
        ("bare", {"tools": TOOLS, "tool_choice": "required"}, "no tool parser"),
        ("bare", {"logprobs": True, "top_logprobs": 2}, "max_logprobs"),
    ],
)
def test_a_tier_by_name_that_cannot_is_refused_in_our_words(client, model, body, reason):
    answer = post(client, model, **body)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "no_tier_fits"
    assert reason in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("model", "path", "body"),
    [
        ("texts", "completions", {}),
        ("texts", "completions", {"logprobs": 2}),
        ("bare", CHAT, {}),
        ("bare", CHAT, {"response_format": {"type": "json_object"}}),
        ("whole", CHAT, {"tools": TOOLS, "tool_choice": "required", "max_tokens": 64}),
        ("whole", CHAT, {"logprobs": True, "top_logprobs": 2}),
        ("auto", CHAT, {"tools": TOOLS}),
    ],
)
def test_what_a_tier_was_found_able_to_do_it_does(client, model, path, body):
    answer = post(client, model, path, **body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-stepdown-tier"] == ("whole" if model == "auto" else model)


def test_what_was_found_is_in_the_log_of_its_replica(client):
    logs = Path("/tmp/ray/session_latest/logs/serve")
    (log,) = [file.read_text() for file in logs.glob("replica_*tier-texts*.log")]
    assert "tier texts, chat: its tokenizer has no chat template" in log and "('" not in log
