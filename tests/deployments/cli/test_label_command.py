"""`stepdown label` as a process, against a server that answers slowly: Ctrl-C loses no answer that is under way."""

import json
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from outcome_rows import write_jsonl

pytestmark = pytest.mark.slow


class SlowLadder(BaseHTTPRequestHandler):
    asked = 0
    slow_s = 1.0

    def do_POST(self):
        type(self).asked += 1
        assert self.path == "/v1/chat/completions"
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(self.slow_s)
        said = {"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given):
        pass


@pytest.fixture
def ladder():
    class Fresh(SlowLadder):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Fresh, f"http://127.0.0.1:{server.server_port}/v1/"
    server.shutdown()


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_paid_for_and_the_same_command_goes_on(tmp_path, ladder):
    asked, url = ladder
    prompts = write_jsonl(tmp_path / "p.jsonl", [{"id": str(i), "prompt": str(i), "answer": "yes"} for i in range(6)])
    words = ["label", prompts, "-o", tmp_path / "out", "--url", url, "--tiers", "small,large", "--prices", "small=1,large=2"]
    command = [sys.executable, "-m", "deployments", *map(str, words), "--concurrency", "3", "--json"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # whatever started these tests may ignore it
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    until = time.monotonic() + 60
    while asked.asked < 3 and time.monotonic() < until:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130 and "the same command goes on" in said and "Traceback" not in said
    paid, asked.slow_s = asked.asked, 0.0
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert asked.asked == 12 and json.loads(again.stdout)["reused"] == paid
