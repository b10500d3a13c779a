"""What a command checks before its work: places to write to, ranges of options, the order of tiers; and what it keeps when the
disk fails after it.
"""

import asyncio
import errno
import json
import os

import httpx
import pytest
from click.testing import CliRunner
from outcome_rows import rows, write_jsonl

from deployments.cli import demo
from deployments.cli.main import TRACE, main
from router.config import SHIPPED
from router.learn import inputs

pytestmark = pytest.mark.slow

TIERS = "small=s,large=l"
POCKET = str(SHIPPED.parent / "pocket" / "router")


def stepdown(*words, code=2):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "good", rows(40))
    return tmp_path


RANGES = [
    *((["calibrate", POCKET, "good", "--quality", value], "--quality") for value in ("1.5", "0", "-1", "nan", "x")),
    *((["calibrate", POCKET, "good", "--cost", value], "--cost") for value in ("1.5", "nan", "-0.1")),
    *((["calibrate", POCKET, "good", "--alpha", value], "--alpha") for value in ("0", "1", "nan")),
    *((["calibrate", POCKET, "good", "--alpha", "0.1", "--delta", value], "--delta") for value in ("0", "1", "inf")),
    (["calibrate", POCKET, "good", "--quality", "0.9", "--name", "mine"], "--name"),
    (["calibrate", POCKET, "good", "--quality", "0.9", "--confidence", "nan"], "--confidence"),
    (["calibrate", POCKET, "good", "--alpha", "0.1", "--temperature", "-1"], "--temperature"),
    (["evaluate", POCKET, "good", "--seed", "-1"], "--seed"),
    *((["label", "good", "-o", "o", "--max-tokens", value], "--max-tokens") for value in ("0", "-5")),
    *((["label", "good", "-o", "o", "--concurrency", value], "--concurrency") for value in ("0", "-1")),
    *((["label", "good", "-o", "o", "--rate", value], "--rate") for value in ("-1", "nan", "inf")),
    (["demo", "--n", "0"], "--n"),
    (["bench", "decide", "--n", "0"], "--n"),
    (["bench", "decide", "--characters", "-1"], "--characters"),
]


@pytest.mark.parametrize("words, option", RANGES)
def test_numbers_out_of_range_are_refused(words, option):
    assert f"Invalid value for '{option}'" in stepdown(*words)


def label(*words, prices="small=1,large=2", tiers="small,large", url="http://127.0.0.1:9"):
    return stepdown("label", "good", "-o", "out", "--tiers", tiers, "--prices", prices, "--url", url, *words)


def test_label_checks_its_options_before_it_asks_anyone():
    assert "expected cheapest first" in label(prices="small=3,large=2")
    assert "expected different names" in label(tiers="small,small")
    assert "no price of tier 'huge'" in label(tiers="small,huge")
    assert "has no tier 'smal'; did you mean 'small'?" in label("--config", "echo", tiers="smal,large", prices="smal=1,large=2")
    assert "expected http://HOST:PORT" in label(url="127.0.0.1:8000")
    assert "`answer` is missing" in label(), "the rows have no references"
    assert "--grader" in label("--grader", "exakt")
    assert "is the file that this command reads" in label("-o", "good")
    assert "there is no folder" in label("-o", "nowhere/out")
    assert "is running?" in label("--grader", "judge").replace("is it", "is"), "then it asks"
    assert sorted(os.listdir()) in (["good"], ["good", "out.journal"])


@pytest.mark.parametrize("output", [".", "..", "/", "here/..", "./"])
def test_train_does_not_replace_the_folder_it_runs_in(place, output):
    (place / "here").mkdir()
    (place / "manifest.json").write_text("{}")  # as if it were an artefact
    assert "cannot be replaced" in stepdown("train", "good", "--tiers", TIERS, "-o", output)


def test_train_does_not_replace_what_it_reads(place):
    (place / "old").mkdir()
    (place / "old" / "manifest.json").write_text("{}")
    write_jsonl(place / "old" / "rows", rows(40))
    assert "which this command reads" in stepdown("train", "old/rows", "--tiers", TIERS, "-o", "old")


def test_the_report_of_train_has_a_place_before_the_work(place):
    assert "good is no folder" in stepdown("train", "good", "--tiers", TIERS, "-o", "out", "--report", "good/report")


def test_a_place_that_cannot_be_written_is_found_before_the_work(monkeypatch):
    def refused(self, *given, **more):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(inputs.Path, "touch", refused)
    for words in (["train", "good", "--tiers", TIERS, "-o", "out"], ["decide", POCKET, "good", "-o", "out"]):
        assert "Read-only file system" in stepdown(*words)


def test_tiers_are_listed_cheapest_first():
    dear = "expected cheapest first, but by their mean costs 'large' (0.01 USD) costs more than 'small' (0.001 USD)"
    assert dear in stepdown("train", "good", "--tiers", "large=l,small=s", "-o", "out")
    assert "the ladder of echo is small, medium, large" in stepdown(
        "train", "good", "--tiers", TIERS, "-o", "out", "--config", "echo"
    )


@pytest.mark.slow
@pytest.mark.parametrize("at", ["manifest.json", "model.skops"])
def test_a_trained_artefact_is_kept_elsewhere_when_the_disk_is_full(place, monkeypatch, at):
    import classifiers.artifact

    write_bytes, write_text = classifiers.artifact.Path.write_bytes, classifiers.artifact.Path.write_text

    def full(write):
        def written(self, *given, **more):
            if self.name == at and place in self.parents and "stepdown-router" not in str(self):
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(self, *given, **more)

        return written

    monkeypatch.setattr(classifiers.artifact.Path, "write_bytes", full(write_bytes))
    monkeypatch.setattr(classifiers.artifact.Path, "write_text", full(write_text))
    said = stepdown("train", "good", "--tiers", TIERS, "-o", "out", "--classifier", "length", "--no-report")
    assert "out: No space left on device; the artefact was written to" in said
    elsewhere = said.split("was written to ")[1].split(" instead")[0]
    assert "small, large" in stepdown("show", elsewhere, code=0)


def test_an_error_of_ours_names_the_file_with_its_trace(monkeypatch, place):
    def broken(name):
        raise KeyError("what")

    monkeypatch.setattr("deployments.cli.check.load_config", broken)
    monkeypatch.setattr("tempfile.tempdir", str(place))
    said = stepdown("check", "pocket", code=1)
    assert "unexpected error: KeyError: 'what'; its trace is in" in said and "Traceback" not in said
    assert "KeyError: 'what'" in next(place.glob("stepdown-*.log")).read_text()
    monkeypatch.setenv(TRACE, "1")
    assert isinstance(CliRunner().invoke(main, ["check", "pocket"]).exception, KeyError)


GOOD_LINE = {
    "began_s": 1.0,
    "key_id": "k",
    "wanted": "auto",
    "prompt": None,
    "flow": "direct",
    "cost_usd": 0.1,
    "p": {"small": 0.5},
    "calls": [{"tier": "small", "role": "answer", "input_tokens": 1, "output_tokens": 1, "cached_tokens": 0}],
}
BAD_LINES = {
    "began_s a text": ({"began_s": "x"}, "began_s is 'x'"),
    "began_s negative": ({"began_s": -1}, "began_s is -1"),
    "began_s null": ({"began_s": None}, "began_s is None"),
    "cost negative": ({"cost_usd": -0.1}, "cost_usd is -0.1"),
    "a chance of 2": ({"p": {"small": 2}}, "p.small is 2"),
    "calls a number": ({"calls": 5}, "calls is 5"),
    "a call without tier": ({"calls": [{"role": "answer"}]}, "calls.0.tier is missing"),
    "tokens negative": ({"calls": [{**GOOD_LINE["calls"][0], "input_tokens": -5}]}, "calls.0.input_tokens is -5"),
    "tokens a text": ({"calls": [{**GOOD_LINE["calls"][0], "input_tokens": "many"}]}, "calls.0.input_tokens is 'many'"),
    "tokens without end": ({"calls": [{**GOOD_LINE["calls"][0], "input_tokens": 10**30}]}, "calls.0.input_tokens is 1000"),
    "prompt a list": ({"prompt": []}, "prompt is []"),
    "a key that is a number": ({"key_id": 5}, "key_id is 5"),
}


@pytest.mark.parametrize("change, said", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_replay_names_the_line_and_the_field(place, change, said):
    write_jsonl(place / "log", [GOOD_LINE, GOOD_LINE | change])
    found = stepdown("replay", "log")
    assert f"log: line 2: not a request of a log: {said}" in found and found.count("\n") == 1


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_demo_takes_an_address_with_and_without_v1(monkeypatch, end):
    asked = []

    def answer(request):
        asked.append(request.url.path)
        said = {
            "model": "small",
            "choices": [{"message": {"content": "7"}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        }
        return httpx.Response(200, text=json.dumps(said))

    client = httpx.AsyncClient
    monkeypatch.setattr(demo.httpx, "AsyncClient", lambda **given: client(**given, transport=httpx.MockTransport(answer)))
    asyncio.run(demo.ask_all(f"http://here{end}", "key", "auto", demo.fresh("single", 2, 1), demo.load_config("echo")))
    assert asked == ["/v1/chat/completions"] * 2


def test_demo_says_what_it_found_in_place_of_an_endpoint(monkeypatch):
    assert "http://127.0.0.1:9: no answer" in stepdown("demo", "--url", "http://127.0.0.1:9", "--n", "1")
    page = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>"))
    client = httpx.AsyncClient
    monkeypatch.setattr(demo.httpx, "AsyncClient", lambda **given: client(**given, transport=page))
    assert "HTTP 200: <html>; expected a chat completion" in stepdown("demo", "--url", "http://here/v1", "--n", "1")
