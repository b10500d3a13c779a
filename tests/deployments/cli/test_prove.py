"""`stepdown prove` as a command: what is wrong is said before anything is paid, and each end has its code."""

import json
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner
from outcome_rows import write_jsonl
from waiting import until

from deployments.cli.main import main

pytestmark = pytest.mark.slow


@pytest.fixture
def prompts(tmp_path):
    return write_jsonl(tmp_path / "p.jsonl", [{"id": f"p{i}", "prompt": f"what is {i}", "answer": str(i)} for i in range(100)])


def prove(*words):
    return CliRunner().invoke(main, ["prove", *map(str, words)])


def test_what_is_wrong_is_said_before_a_ladder_is_started(tmp_path, prompts):
    out = tmp_path / "proof"
    few = write_jsonl(tmp_path / "few.jsonl", [{"prompt": "x", "answer": "y"}])
    (tmp_path / "file").write_text("")
    one = tmp_path / "one.yaml"
    one.write_text("tiers: [{name: a, engine: echo, context: 99, price: {usd_per_1m_input: 1, usd_per_1m_output: 1}}]")
    wrong = {
        "at least 80 are needed": ["--prompts", few],
        "no such file": ["--prompts", tmp_path / "nowhere.jsonl"],
        "nothing to route between": ["--prompts", prompts, "--config", one],
        "--grader 'exakt'": ["--prompts", prompts, "--grader", "exakt"],
        "--classifier 'x'": ["--prompts", prompts, "--classifier", "x"],
        "no references": ["--prompts", prompts, "--answers", write_jsonl(tmp_path / "a.jsonl", [{"id": "p1"}])],
        "are expected to cost": ["--prompts", prompts, "--config", "echo", "--usd", "1e-9"],
    }
    for said, words in wrong.items():
        found = prove("--config", "echo", "-o", out, *words)
        assert found.exit_code == 2 and said in found.output, (said, found.output)
    found = prove("--config", "echo", "--prompts", prompts, "-o", tmp_path / "file")
    assert found.exit_code == 2 and "is no folder" in found.output


def test_a_ladder_that_does_not_answer_is_said(tmp_path, prompts):
    found = prove("--config", "echo", "--prompts", prompts, "-o", tmp_path / "proof", "--url", "http://127.0.0.1:9")
    assert found.exit_code == 2 and "is it running?" in found.output


class SlowLadder(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        self.answer({"data": [{"id": name} for name in ("small", "medium", "large")]})

    def do_POST(self):
        type(self).asked += 1
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(0.2)
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        self.answer({"choices": [{"message": {"content": "yes"}}], "usage": usage})

    def answer(self, said):
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given):
        pass


def test_ctrl_c_says_how_to_go_on(tmp_path, prompts):
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowLadder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    given = [
        "--config",
        "echo",
        "--prompts",
        prompts,
        "-o",
        tmp_path / "proof",
        "--url",
        f"http://127.0.0.1:{server.server_port}",
    ]
    command = [sys.executable, "-m", "deployments", "prove", *map(str, given)]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # whatever started these tests may ignore it
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    until(lambda: SlowLadder.asked > 20)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=60)[1]
    server.shutdown()
    assert running.returncode == 130 and "the same command goes on" in said and "Traceback" not in said
    assert "split" in json.loads((tmp_path / "proof" / "steps.json").read_text())
    assert len((tmp_path / "proof" / "outcomes.jsonl.journal").read_text().splitlines()) >= 20, "what was paid for is kept"
