"""`stepdown prove` on the pocket ladder, as an operator runs it: from prompts to a page, and again without asking anything."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.pocket.tasks import fresh

pytestmark = pytest.mark.ladder
N = 150
IMAGES = Path(__file__).parents[2] / "docs" / "images"
PROGRAMS = [shutil.which("chromium"), shutil.which("chromedriver")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, the command's exit code and its words)."""
    folder = tmp_path_factory.mktemp("prove")
    tasks = fresh("single", N, seed=20261130)
    rows = [{"id": f"s{i}", "prompt": task.prompt, "answer": task.answer, "kind": task.kind} for i, task in enumerate(tasks)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder, run(folder)


def run(folder):
    words = ["--config", "pocket", "--prompts", "prompts.jsonl", "-o", "proof", "--alpha", "0.1", "--target", "balanced"]
    command = [sys.executable, "-m", "deployments", "prove", *words, "--max-tokens", "48"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800)


def test_the_page_and_its_figures_are_made(made):
    folder, ended = made
    assert ended.returncode in (0, 3), ended.stderr[-3000:]
    found = json.loads((folder / "proof" / "proof.json").read_text())
    assert found["figures"]["compared"] >= 20 and found["figures"]["quality"]["top"][0] > 0.9
    assert found["figures"]["verdict"]["shown"] == (ended.returncode == 0)
    assert set(found["figures"]["latency"]) == {"auto", "large"} and "ttft_s" in found["figures"]["latency"]["auto"]
    assert found["about"]["certificates"]["balanced"]["kind"] in ("certificate", "infeasible", "none")
    assert "What routing did on these models" in (folder / "proof" / "proof.html").read_text()


def test_the_same_command_asks_nothing_again(made):
    folder, ended = made
    paid = (folder / "proof" / "spent.jsonl").read_bytes()
    again = run(folder)
    assert again.returncode == ended.returncode and "starting the ladder" not in again.stderr
    assert "live: done before" in again.stderr and (folder / "proof" / "spent.jsonl").read_bytes() == paid


def test_the_picture_for_the_docs(made):
    folder, _ = made
    if None in PROGRAMS:
        pytest.skip("Chromium is not installed; apt install chromium chromium-driver")
    switches = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1080,1300"]
    page = (folder / "proof" / "proof.html").as_uri()
    subprocess.run([PROGRAMS[0], *switches, f"--screenshot={IMAGES / 'prove_page.png'}", page], check=True, timeout=120)
    assert (IMAGES / "prove_page.png").stat().st_size > 20_000
