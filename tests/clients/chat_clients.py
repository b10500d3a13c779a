"""Terminal clients that speak chat: opencode, Qwen Code, Continue's cn, aider, llm."""

import json

from tests.clients.bench import Bench, Check, one_row_a_call
from tests.clients.settings import AIDER, CLINE, CONTINUE, OPENCODE, QWEN_CODE

PATH = "/chat/completions"
COUNT = "echo ten-$((5 + 5))"


def opencode(bench: Bench) -> None:
    """It asks for a title beside."""
    (bench.project / "opencode.json").write_text(OPENCODE.filled(bench.ladder.origin, bench.ladder.key))
    prompt = f"TOOL bash {json.dumps({'command': COUNT, 'description': 'count'})}"
    ran = bench.run(["opencode", "run", prompt], {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"})
    assert "The tool said: ten-10" in ran.out, ran
    one_row_a_call(bench.seen(), PATH, 3)


def qwen_code(bench: Bench) -> None:
    """It sends what stays on this machine through a proxy too, whatever NO_PROXY says."""
    prompt = f"TOOL run_shell_command {json.dumps({'command': COUNT, 'is_background': False})}"
    variables = QWEN_CODE.variables(bench.ladder.origin, bench.ladder.key)
    ran = bench.run(["qwen", "--yolo", "--auth-type", "openai", "-p", prompt], variables, closed=False)
    assert "The tool said" in ran.out and "ten-10" in ran.out, ran
    one_row_a_call(bench.seen(), PATH, 2)


def cline(bench: Bench) -> None:
    auth = bench.run(CLINE.words(bench.ladder.origin, bench.ladder.key), {})
    assert auth.status == 0, auth
    prompt = f"TOOL run_commands {json.dumps({'commands': [COUNT]})}"
    ran = bench.run(["cline", "--provider", "openai", prompt], {})
    assert "The tool said" in ran.out and "ten-10" in ran.out, ran
    one_row_a_call(bench.seen(), PATH, 2)


def continue_cli(bench: Bench) -> None:
    file = bench.home / "config.yaml"
    file.write_text(CONTINUE.filled(bench.ladder.origin, bench.ladder.key))
    prompt = f"TOOL Bash {json.dumps({'command': COUNT})}"
    ran = bench.run(["cn", "--config", str(file), "--allow", "Bash", "-p", prompt], {"CONTINUE_TELEMETRY_ENABLED": "0"})
    assert "The tool said" in ran.out and "ten-10" in ran.out, ran
    one_row_a_call(bench.seen(), PATH, 2)


def aider(bench: Bench) -> None:
    """It has no tools: its answer is the edited file."""
    file = bench.project / "hello.txt"
    file.write_text("hello\n")
    edited = "hello.txt\n```\ngoodbye\n```\n"
    command = [str(bench.environment.python("aider") / "aider"), "--model", "openai/auto", "--edit-format", "whole"]
    command += ["--yes-always", "--no-git", "--no-check-update", "--no-show-model-warnings", "--analytics-disable"]
    command += ["--message", f"SAY {json.dumps(edited)}", "hello.txt"]
    ran = bench.run(command, AIDER.variables(bench.ladder.origin, bench.ladder.key))
    assert file.read_text() == "goodbye\n", ran
    one_row_a_call(bench.seen(), PATH, 1)


def llm(bench: Bench) -> None:
    folder = bench.home / "llm"
    folder.mkdir()
    model = f"- model_id: stepdown\n  model_name: auto\n  api_base: {bench.ladder.url}\n  api_key_name: stepdown\n"
    (folder / "extra-openai-models.yaml").write_text(model)
    command = [str(bench.environment.python("llm") / "llm"), "-m", "stepdown", "--key", bench.ladder.key, "hello"]
    ran = bench.run(command, {"LLM_USER_PATH": str(folder)})
    assert "You said: hello" in ran.out, ran
    one_row_a_call(bench.seen(), PATH, 1)


CHECKS = [
    Check("opencode", 7, "tool loop and title are 3 requests", opencode),
    Check("qwen-code", 7, "tool loop is 2 requests", qwen_code),
    Check("cline", 7, "tool loop is 2 requests", cline),
    Check("cn", 7, "tool loop is 2 requests", continue_cli),
    Check("aider", 7, "edits a file in 1 request", aider),
    Check("llm", 7, "answers", llm),
]
