"""The settings that README shows for libraries, run as they stand there, and Open WebUI's."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx

from deployments.ports import free_port
from tests.clients.bench import Bench, Check, one_row_a_call
from tests.clients.environment import OPEN_WEBUI as PACKAGE
from tests.clients.settings import AI_SDK, LANGCHAIN, OPEN_WEBUI, Setting

PATH = "/chat/completions"
START_S = 240  # its own server and its database, on a busy machine


def langchain(bench: Bench) -> None:
    text = LANGCHAIN.filled(bench.ladder.origin, bench.ladder.key) + 'print(model.invoke("hello").text)\n'
    ran = bench.run([str(bench.environment.python("sdks") / "python"), "-c", text], {})
    assert "You said: hello" in ran.out, ran
    one_row_a_call(bench.seen(), PATH, 1)


def ai_sdk(bench: Bench) -> None:
    (bench.project / "node_modules").symlink_to(bench.environment.node("sdks-js") / "node_modules")
    ask = 'import { generateText } from "ai";\nconsole.log((await generateText({ model, prompt: "hello" })).text);\n'
    (bench.project / "shown.mjs").write_text(AI_SDK.filled(bench.ladder.origin, bench.ladder.key) + ask)
    ran = bench.run(["node", "shown.mjs"], {})
    assert "You said: hello" in ran.out, ran
    one_row_a_call(bench.seen(), PATH, 1)


def ai_sdk_by_its_default(bench: Bench) -> None:
    """It speaks Responses and names items of earlier turns by their ids, which a server that keeps them understands."""
    (bench.project / "node_modules").symlink_to(bench.environment.node("sdks-js") / "node_modules")
    (bench.project / "shown.mjs").write_text(LOOP.filled(bench.ladder.origin, bench.ladder.key))
    ran = bench.run(["node", "shown.mjs"], {})
    assert "The tool said: sunny" in ran.out, ran
    one_row_a_call(bench.seen(), "/responses", 3)


def open_webui(bench: Bench) -> None:
    """It finds the models, and streams an answer to its own page."""
    with serving(bench) as client:
        token = client.post("/api/v1/auths/signin", json={"email": "", "password": ""}).raise_for_status().json()["token"]
        client.headers["authorization"] = f"Bearer {token}"
        models = {model["id"] for model in client.get("/api/models").raise_for_status().json()["data"]}
        assert {"auto", "small", "large"} <= models, models
        asked = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
        answer = client.post("/api/chat/completions", json=asked).raise_for_status()
    assert answer.text.count("data: ") > 3 and "hello" in answer.text, answer.text
    one_row_a_call(bench.seen(), PATH, 1)


@contextmanager
def serving(bench: Bench) -> Iterator[httpx.Client]:
    """Open WebUI without accounts of its own; what it would download for search in documents is not needed."""
    port = free_port()
    own = {"WEBUI_AUTH": "False", "DATA_DIR": str(bench.home / "data"), "RAG_EMBEDDING_ENGINE": "openai", "HF_HUB_OFFLINE": "1"}
    env = bench.variables(OPEN_WEBUI.variables(bench.ladder.origin, bench.ladder.key) | own)
    command = [str(bench.environment.python(PACKAGE) / "open-webui"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    log = (bench.folder / "log").open("wb")
    process = subprocess.Popen(command, cwd=bench.home, env=env, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            wait(client, process)
            yield client
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait(client: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(httpx.TransportError):
            client.get("/health")
            return
        time.sleep(1)
    raise AssertionError("Open WebUI did not start")


LOOP = Setting(
    "AI SDK",
    "JavaScript",
    "js",
    """
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, jsonSchema, stepCountIs, tool } from "ai";
const model = createOpenAI({ baseURL: "http://127.0.0.1:8000/v1", apiKey: "THE_KEY" })("auto");
const inputSchema = jsonSchema({ type: "object", properties: { city: { type: "string" } } });
const tools = { weather: tool({ inputSchema, execute: async () => "sunny" }) };
const prompt = 'THINK 3 TOOL weather {"city": "Rome"} TOOL weather {"city": "Oslo"}';
console.log((await generateText({ model, tools, prompt, stopWhen: stepCountIs(5) })).text);
""",
)

CHECKS = [
    Check("langchain", 4, "README's lines", langchain),
    Check("ai sdk", 4, "README's lines", ai_sdk),
    Check("ai sdk", 4, "its default, where responses are kept", ai_sdk_by_its_default, keeps=True),
    Check("open webui", 7, "lists the models, streams an answer", open_webui),
]
