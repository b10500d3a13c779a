"""Files that are not what a command expects: each command says in one line what it found, and exits with code 2."""

import gzip
import json

import pytest
from click.testing import CliRunner

from deployments.cli.main import TRACE, main

pytestmark = pytest.mark.slow

DEEP = 100_000
FILES = {
    "empty": b"",
    "binary": bytes(range(256)) * 20,
    "Latin-1": '{"id": "a", "prompt": "caf\u00e9"}\n'.encode("latin-1"),
    "UTF-16": '{"id": "a", "prompt": "x"}\n'.encode("utf-16"),
    "null": b"null\n",
    "empty list": b"[]\n",
    "empty object": b"{}\n",
    "deep list": b"[" * DEEP,
    "deep object": b'{"a":' * DEEP,
    "a huge line": b'{"prompt": "' + b"x" * (33 * 2**20),
    "gzip of nothing": gzip.compress(b""),
    "cut gzip": gzip.compress(b'{"id": "a"}\n' * 1000)[:40],
    "zip": b"PK\x03\x04" + b"x" * 100,
    "Parquet in name": b"PAR1" + b"x" * 100,
    "NaN": b'{"id": "a", "prompt": "x", "score|s": NaN}\n',
    "number too long": b'{"id": ' + b"9" * 5000 + b"}\n",
    "CSV": b"a,b\n1,2\n",
    "YAML": b"tiers:\n  - name: small\n",
    "half an emoji": b'{"\\ud83d": "\\ud83d"}\n',
    "wrong types": b'{"id": [], "prompt": 5, "messages": 5, "outcomes": 5, "calls": 5, "began_s": "x", "key_id": 5}\n',
    "NUL bytes": b"\0" * 100,
    "SQLite, cut": b"SQLite format 3\0" + b"\0" * 50,
}
OTHER_NAMES = [(kind, name) for kind in ("binary", "CSV", "Latin-1", "empty") for name in ("bad.csv", "bad.parquet", "bad.yaml")]
NO_LADDER = ["--tiers", "small,large", "--prices", "small=1,large=2"]
COMMANDS = {
    "label": ["label", "BAD", "-o", "out", *NO_LADDER],
    "label with its config": ["label", "good", "-o", "out", "--config", "BAD"],
    "train": ["train", "BAD", "--tiers", "small=s,large=l", "-o", "out"],
    "train with its config": ["train", "good", "--tiers", "small=s,large=l", "-o", "out", "--config", "BAD"],
    "evaluate": ["evaluate", "BAD", "good"],
    "evaluate on it": ["evaluate", "pocket-router", "BAD"],
    "calibrate": ["calibrate", "BAD", "good", "--quality", "0.9"],
    "calibrate on it": ["calibrate", "pocket-router", "BAD", "--quality", "0.9"],
    "calibrate with its config": ["calibrate", "pocket-router", "good", "--alpha", "0.1", "--config", "BAD"],
    "prove": ["prove", "--prompts", "BAD", "-o", "out", "--config", "echo"],
    "prove with its answers": ["prove", "--prompts", "good", "--answers", "BAD", "-o", "out", "--config", "echo"],
    "prove with its config": ["prove", "--prompts", "good", "-o", "out", "--config", "BAD"],
    "simulate": ["simulate", "pocket-router", "BAD"],
    "decide": ["decide", "pocket-router", "BAD", "-o", "out"],
    "decide by it": ["decide", "BAD", "good", "-o", "out"],
    "explain": ["explain", "BAD", "what is 1"],
    "show": ["show", "BAD"],
    "check": ["check", "BAD"],
    "replay": ["replay", "BAD"],
    "replay with its artefact": ["replay", "good", "--artefact", "BAD"],
    "replay with its config": ["replay", "good", "--config", "BAD"],
    "costs": ["costs", "--config", "BAD"],
    "costs of its ledger": ["costs", "--ledger", "sqlite:///BAD"],
    "keys": ["keys", "list", "--config", "BAD"],
    "bench": ["bench", "decide", "--config", "BAD", "--n", "1"],
    "demo": ["demo", "--config", "BAD", "--url", "http://127.0.0.1:9", "--n", "1"],
    "serve": ["serve", "BAD"],
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to run in. BAD stands for the bad file, pocket-router for a trained artefact."""
    from shutil import copytree

    from router.config import SHIPPED

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("deployments.cli.main.claimed_elsewhere", lambda: None)  # reads the list of every installed package
    monkeypatch.delenv(TRACE, raising=False)
    monkeypatch.setenv("STEPDOWN_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "good").write_text(json.dumps({"id": "a", "prompt": "x", "answer": "y"}) + "\n")
    copytree(SHIPPED.parent / "pocket" / "router", tmp_path / "pocket-router")
    return tmp_path


def check_refused(words, bad):
    result = CliRunner().invoke(main, [word.replace("BAD", bad) for word in words])
    assert result.exit_code == 2, (result.output, result.exception)
    assert "Traceback" not in result.output and "unexpected" not in result.output
    assert len(result.output) < 2000
    return result.output


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_no_command_fails_on_a_bad_file_with_a_trace(place, words):
    for kind, name in [*((kind, "bad.jsonl") for kind in FILES), *OTHER_NAMES]:
        (place / name).write_bytes(FILES[kind])
        assert name in check_refused(words, name), (kind, name)
        (place / name).unlink()
    assert not (place / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_folder_a_missing_file_and_a_file_under_a_file_are_named(place, words):
    (place / "folder").mkdir()
    for bad in ("folder", "nowhere.jsonl", "good/under"):
        assert bad.split("/")[-1] in check_refused(words, bad)


DAMAGED = {
    "deep": lambda manifest: "[" * DEEP,
    "null": lambda manifest: "null",
    "empty": lambda manifest: "",
    "no tiers": lambda manifest: json.dumps(manifest | {"tiers": []}),
    "tiers a number": lambda manifest: json.dumps(manifest | {"tiers": 5}),
    "a cost too few": lambda manifest: json.dumps(manifest | {"costs": manifest["costs"][1:]}),
    "rules a list": lambda manifest: json.dumps(manifest | {"rules": []}),
    "a rule that is none": lambda manifest: json.dumps(manifest | {"rules": {"cheap": 5}}),
    "cascades null": lambda manifest: json.dumps(manifest | {"cascades": None}),
    "certificates a text": lambda manifest: json.dumps(manifest | {"certificates": "all"}),
    "no hash": lambda manifest: json.dumps({key: value for key, value in manifest.items() if key != "model_sha256"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_manifest_is_named(place, damaged):
    file = place / "pocket-router" / "manifest.json"
    file.write_text(damaged(json.loads(file.read_text())))
    for words in (["show", "BAD"], ["explain", "BAD", "what is 1"], ["decide", "BAD", "good", "-o", "out"]):
        assert "pocket-router" in check_refused(words, "pocket-router")
