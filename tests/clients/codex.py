"""Codex, unmodified, by `codex exec`."""

import json

from tests.clients.bench import Bench, Check, Ran, one_row_a_call
from tests.clients.settings import CODEX

PATH = "/responses"
PATCH = "*** Begin Patch\n*** Add File: hello.txt\n+hello from a patch\n*** End Patch"


def codex(bench: Bench, prompt: str, *options: str, settings: bool = True, limit_s: float = 90) -> Ran:
    """Run a prompt in the project. settings: with those that README shows, else with Codex's own."""
    folder = bench.home / ".codex"
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(CODEX.filled(bench.ladder.origin, "") if settings else "")
    command = ["codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", *options, prompt]
    return bench.run(command, {"CODEX_HOME": str(folder), "STEPDOWN_API_KEY": bench.ladder.key}, limit_s=limit_s)


def run(command: str) -> str:
    """A step that runs a shell command."""
    return f"TOOL exec_command {json.dumps({'cmd': command})}"


def finishes_a_task(bench: Bench) -> None:
    """Edit a file, run a command, read its output, answer."""
    (bench.project / "hello.txt").write_text("hello\n")
    ran = codex(bench, f"{run('sed -i s/hello/goodbye/ hello.txt')}\n{run('cat hello.txt')}")
    assert (bench.project / "hello.txt").read_text() == "goodbye\n", ran
    assert "The tool said" in ran.out and "goodbye" in ran.out, ran
    one_row_a_call(bench.seen(), PATH, 3)


def runs_a_command(bench: Bench) -> None:
    ran = codex(bench, run("echo ten-$((5 + 5))"))
    assert "The tool said" in ran.out and "ten-10" in ran.out, ran
    one_row_a_call(bench.seen(), PATH, 2)


def thinks_and_runs_a_command(bench: Bench) -> None:
    ran = codex(bench, f"THINK 5 {run('echo ten-$((5 + 5))')}")
    assert "ten-10" in ran.out, ran
    one_row_a_call(bench.seen(), PATH, 2)


def applies_a_patch(bench: Bench) -> None:
    """With a model's name that Codex knows, it edits by a tool of the kind `custom`."""
    steps = f"TOOL apply_patch {json.dumps({'input': PATCH})}\n{run('cat hello.txt')}"
    ran = codex(bench, steps, "-m", "gpt-5.5")
    assert (bench.project / "hello.txt").read_text() == "hello from a patch\n", ran
    assert "hello from a patch" in ran.out, ran
    one_row_a_call(bench.seen(), PATH, 3)


def calls_a_tool_in_a_namespace(bench: Bench) -> None:
    ran = codex(bench, 'TOOL multi_agent_v1__close_agent {"target": "nobody"}')
    seen = bench.seen()
    names = {tool["function"]["name"] for tool in seen.all_bodies[0]["tools"]}
    assert "multi_agent_v1__close_agent" in names, sorted(names)
    assert "The tool said" in ran.out and "unsupported call" not in ran.out + ran.err, ran
    one_row_a_call(seen, PATH, 2)


def by_its_own_provider(bench: Bench) -> None:
    """It first asks for a WebSocket; 426 makes it POST at once."""
    base = f'openai_base_url="{bench.ladder.url}"'
    key = f'{{"OPENAI_API_KEY": "{bench.ladder.key}"}}'
    (bench.home / ".codex").mkdir(exist_ok=True)
    (bench.home / ".codex" / "auth.json").write_text(key)
    ran = codex(bench, "hello", "-c", base, "-m", "gpt-5.5", settings=False)
    assert "You said: hello" in ran.out, ran
    seen = bench.seen()
    assert [r["status"] for r in seen.requests if r["method"] == "GET" and r["path"].endswith(PATH)] == [426], seen.requests
    one_row_a_call(seen, PATH, 1)


def waits_for_a_slow_tier(bench: Bench) -> None:
    """Events while nothing is said keep its timer from ending the stream."""
    idle = "model_providers.stepdown.stream_idle_timeout_ms=8000"
    ran = codex(bench, "SLOW 12 hello", "-c", idle)
    assert "You said: SLOW 12 hello" in ran.out, ran
    one_row_a_call(bench.seen(), PATH, 1)


def gives_up_at_once(bench: Bench) -> None:
    """While no tier answers, a turn costs one request, not thirty."""
    ran = codex(bench, "FAIL 503")
    assert ran.status != 0, ran
    assert len(bench.seen().posts(PATH)) == 1, f"{len(bench.seen().posts(PATH))} requests\n{ran}"


def hears_of_an_overflow(bench: Bench) -> None:
    ran = codex(bench, "hello")
    assert "context window" in (ran.out + ran.err).lower(), ran
    assert len(bench.seen().posts(PATH)) == 1, f"{len(bench.seen().posts(PATH))} requests\n{ran}"


CHECKS = [
    Check("codex", 5, "edits a file, runs a command, reads its output, answers", finishes_a_task),
    Check("codex", 5, "exec_command loop is 2 requests", runs_a_command),
    Check("codex", 5, "thinking between calls", thinks_and_runs_a_command),
    Check("codex", 5, "alias gpt-5.5: apply_patch creates a file", applies_a_patch),
    Check("codex", 5, "a call returns with its namespace", calls_a_tool_in_a_namespace),
    Check("codex", 5, "own provider: 426, then one POST", by_its_own_provider),
    Check("codex", 5, "12 s of silence at an idle timeout of 8 s", waits_for_a_slow_tier),
    Check("codex", 5, "503 is one request", gives_up_at_once),
    Check("codex", 5, "overflow is shown", hears_of_an_overflow, window=4_000),
]
