"""Claude Code, unmodified, by `claude -p`."""

import json
import re

from tests.clients.bench import Bench, Check, Ran, one_row_a_call
from tests.clients.ladder import Seen
from tests.clients.settings import CLAUDE_CODE

PATH = "/messages"
QUIET = {"DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1", "DISABLE_ERROR_REPORTING": "1"}


def claude(bench: Bench, prompt: str, *options: str, stdin: str = "", limit_s: float = 90, **variables: str) -> Ran:
    """Run a prompt in the project. variables: besides those that README shows, or in their place."""
    told = CLAUDE_CODE.variables(bench.ladder.origin, bench.ladder.key) | variables
    env = {"CLAUDE_CONFIG_DIR": str(bench.home / ".claude"), **QUIET, **{k: v for k, v in told.items() if v}}
    command = ["claude", "-p", *options, "--allowedTools", "Bash,Edit,Read,Write", "--", prompt]
    return bench.run(command, env, stdin=stdin, limit_s=limit_s)


def title_requests(seen: Seen) -> list[dict]:
    """Bodies by which it asks for a title of the conversation."""
    return [body for body in seen.all_bodies if (body.get("response_format") or {}).get("type") == "json_schema"]


def took(seen: Seen, count: int) -> None:
    """So many requests beside those for a title, each with one row; the ledger has all of them."""
    one_row_a_call(seen, PATH, count + len(title_requests(seen)))


def step(name: str, **arguments: str) -> str:
    return f"TOOL {name} {json.dumps(arguments)}"


def finishes_a_task(bench: Bench) -> None:
    """Edit a file, run a command, read its output, answer."""
    file = bench.project / "hello.txt"
    file.write_text("hello\n")
    path = str(file)
    edit = step("Edit", file_path=path, old_string="hello", new_string="goodbye")
    steps = [step("Read", file_path=path), edit, step("Bash", command="cat hello.txt", description="read it")]
    ran = claude(bench, "\n".join(steps))
    assert file.read_text() == "goodbye\n", ran
    assert "The tool said: goodbye" in ran.out, ran
    took(bench.seen(), 4)


def runs_a_command(bench: Bench) -> None:
    ran = claude(bench, step("Bash", command="echo ten-$((5 + 5))", description="count"))
    assert "The tool said: ten-10" in ran.out, ran
    took(bench.seen(), 2)


def thinks_and_calls(bench: Bench) -> None:
    ran = claude(bench, f"THINK 5 {step('Bash', command='echo ten-$((5 + 5))')}", "--model", "claude-sonnet-4-5")
    assert "ten-10" in ran.out, ran
    seen = bench.seen()
    took(seen, 2)
    assert any(message.get("reasoning") for body in seen.all_bodies for message in body["messages"]), "no thinking came back"


def asks_for_a_title(bench: Bench) -> None:
    ran = claude(bench, "tell me something about the weather in Rome", "--output-format", "json")
    assert json.loads(ran.out)["result"].startswith("You said"), ran
    seen = bench.seen()
    assert title_requests(seen), "it asked for no title"
    took(seen, 1)


def counts_its_context(bench: Bench) -> None:
    ran = claude(bench, "/context")
    seen = bench.seen()
    counted = seen.posts("/count_tokens")
    assert len(counted) > 5 and {r["status"] for r in counted} == {200}, counted
    assert re.search(r"\d+(\.\d+)?k", ran.out) and not seen.calls, ran


def takes_a_base_with_v1(bench: Bench) -> None:
    ran = claude(bench, "hello", ANTHROPIC_BASE_URL=bench.ladder.url)
    assert "You said" in ran.out, ran


def sends_both_keys(bench: Bench) -> None:
    """Where both are set it sends both, and they may differ: the first that is known counts."""
    ran = claude(bench, "hello", ANTHROPIC_API_KEY="sk-ant-somebody-elses")
    assert "You said" in ran.out, ran


def sends_x_api_key(bench: Bench) -> None:
    ran = claude(bench, "hello", ANTHROPIC_AUTH_TOKEN="", ANTHROPIC_API_KEY=bench.ladder.key)
    assert "You said" in ran.out, ran


def asks_for_more_than_there_is(bench: Bench) -> None:
    """32000 tokens and more asked for at a window of 64000, of which its own prompt takes half."""
    ran = claude(bench, "hello", ANTHROPIC_MODEL="small", ANTHROPIC_SMALL_FAST_MODEL="small")
    assert "You said" in ran.out, ran
    assert bench.seen().bodies["small"] and not bench.seen().bodies["large"]


def hears_of_an_overflow(bench: Bench) -> None:
    ran = claude(bench, "hello")
    assert "prompt is too long" in (ran.out + ran.err).lower(), ran
    assert len(bench.seen().posts(PATH)) <= 4, f"{len(bench.seen().posts(PATH))} requests"


def repeats_a_broken_stream(bench: Bench) -> None:
    """Once, without a stream, and the ledger has both."""
    ran = claude(bench, "CUT 2 one two three four five", CLAUDE_CODE_DISABLE_TERMINAL_TITLE="1")
    assert "You said" in ran.out, ran
    seen = bench.seen()
    count = 2 + len(title_requests(seen))
    assert (len(seen.posts(PATH)), len(seen.traces), len(seen.calls)) == (count,) * 3, seen.requests
    assert sorted(row["error"] != "" for row in seen.traces) == [False] * (count - 1) + [True], seen.traces


def finds_the_models(bench: Bench) -> None:
    claude(bench, "hello", CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY="1")
    found = [r for r in bench.seen().requests if r["method"] == "GET" and r["path"].endswith("/models")]
    assert found and {r["status"] for r in found} == {200}, bench.seen().requests


CHECKS = [
    Check("claude code", 6, "edits a file, runs a command, reads its output, answers", finishes_a_task),
    Check("claude code", 6, "Bash loop is 2 requests", runs_a_command),
    Check("claude code", 6, "thinking comes back with its tool's result", thinks_and_calls),
    Check("claude code", 6, "the title that it asks for is JSON", asks_for_a_title),
    Check("claude code", 6, "/context counts tokens, without rows", counts_its_context),
    Check("claude code", 6, "a base URL that ends in /v1", takes_a_base_with_v1),
    Check("claude code", 6, "x-api-key", sends_x_api_key),
    Check("claude code", 6, "both key headers, which differ", sends_both_keys),
    Check("claude code", 6, "max_tokens 32000 at a window of 64000", asks_for_more_than_there_is),
    Check("claude code", 6, "overflow is shown", hears_of_an_overflow, window=8_000),
    Check("claude code", 6, "a broken stream is repeated once; both in the ledger", repeats_a_broken_stream),
    Check("claude code", 6, "models are listed for its discovery", finds_the_models),
]
