"""A teacher's scores: what they are, how they resume, and what is refused."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from distilling import MODELS, pocket_data, tiny_model
from torch.nn.functional import log_softmax

from deployments.cli.distil_train import score as command
from deployments.distil import base_models, encoding, scores, scoring, training
from deployments.distil.scoring import Scoring
from deployments.distil.training import Job
from router.distil.recipe import Asked
from router.errors import BadInput


@pytest.fixture
def data(tmp_path):
    return pocket_data(tmp_path / "data", 40, 10)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(scoring, "SHARD_ROWS", 20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def silent(done, of):
    pass


@pytest.mark.slow
def test_scores_are_the_teachers_highest_log_probabilities_row_by_row(data):
    scoring.score(Scoring(data, MODELS / "medium", top=5), silent)
    tokenizer, model = base_models.load_tokenizer(MODELS / "medium"), base_models.load_model(MODELS / "medium")
    rows = encoding.encode(list(encoding.read_rows(data, "train")), tokenizer, [3], 512).rows
    for row in scores.joined(data, rows, tokenizer)[::7]:
        with torch.inference_mode():
            logits = model(input_ids=torch.from_numpy(row.ids)[None].long()).logits[0, row.prompt - 1 : -1]
        best = log_softmax(logits, -1).topk(5)
        assert np.allclose(row.scores.logprobs, best.values.numpy(), atol=1e-4)
        assert np.array_equal(row.scores.ids[:, 0], best.indices[:, 0].numpy())


@pytest.mark.slow
def test_a_killed_scoring_goes_on_with_what_is_missing_and_ends_the_same(data, tmp_path):
    whole = pocket_data(tmp_path / "whole", 40, 10)
    scoring.score(Scoring(whole, MODELS / "medium", top=5), silent)

    def die(done, of):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scoring.score(Scoring(data, MODELS / "medium", top=5), die)
    first = data / "scores" / scores.shard_name(0)
    stamp = first.stat().st_mtime_ns
    with pytest.raises(BadInput, match="2 of 3 shards"):
        scores.manifest_of(data)
    seen = []
    scoring.score(Scoring(data, MODELS / "medium", top=5), lambda done, of: seen.append((done, of)))
    assert seen == [(1, 3), (2, 3), (3, 3)] and first.stat().st_mtime_ns == stamp
    assert scores.sha256_of(data) == scores.sha256_of(whole)


@pytest.mark.slow
def test_another_top_or_teacher_in_the_same_folder_is_refused(data):
    scoring.score(Scoring(data, MODELS / "medium", top=5), silent)
    with pytest.raises(BadInput, match="another top"):
        scoring.score(Scoring(data, MODELS / "medium", top=6), silent)
    with pytest.raises(BadInput, match="another teacher"):
        scoring.score(Scoring(data, MODELS / "large", top=5), silent)


@pytest.mark.slow
def test_token_loss_learns_from_scores(data, tmp_path):
    job = Job(data, MODELS / "small", tmp_path / "run", Asked(tokens=3_000, loss="token"))
    with pytest.raises(BadInput, match="stepdown distil score"):
        training.train(job, lambda progress, recipe: None)
    scoring.score(Scoring(data, MODELS / "large"), silent)
    manifest = training.train(job, lambda progress, recipe: None)
    assert manifest["recipe"]["loss"] == "token" and len(manifest["dev"]) > 2


@pytest.mark.slow
def test_another_vocabulary_is_refused_by_score_and_by_train(tmp_path):
    other = tiny_model(tmp_path / "other", "qwen2")  # transformers gives that family's tokenizer a token of its own
    told = pocket_data(tmp_path / "told", 5, 2, tokenizer_sha256="a" * 64)
    for wanted in (Scoring(told, other), Scoring(told, other, student=MODELS / "small")):
        with pytest.raises(BadInput, match="another vocabulary .* sequence loss"):
            scoring.score(wanted, silent)
    silent_about_it = pocket_data(tmp_path / "silent", 5, 2)
    scoring.score(Scoring(silent_about_it, other), silent)
    with pytest.raises(BadInput, match="another vocabulary"):
        training.train(Job(silent_about_it, MODELS / "small", tmp_path / "run", Asked(loss="token")), lambda p, r: None)


def test_padding_of_the_vocabulary_is_never_among_the_scores(tmp_path):
    folder = tiny_model(tmp_path / "tiny")
    model, tokenizer = base_models.load_model(folder), base_models.load_tokenizer(folder)
    rows = encoding.encode(list(encoding.read_rows(pocket_data(tmp_path / "d", 5, 2), "train")), tokenizer, [3], 256).rows
    words = 1 + max(tokenizer.get_vocab().values())
    found = scoring.scored(model, rows, words, words)
    assert max(int(row.scores.ids.max()) for row in found) == words - 1 < model.config.vocab_size - 1
    assert np.allclose(np.exp(found[0].scores.logprobs).sum(1), 1, atol=1e-5)


def test_a_damaged_shard_says_what_to_do(tmp_path):
    (tmp_path / "00000.safetensors").write_bytes(b"x")
    with pytest.raises(BadInput, match="delete it"):
        scores.read_shard(tmp_path / "00000.safetensors")


@pytest.mark.slow
def test_the_command_finds_the_teacher_in_the_ladder(tmp_path):
    data = pocket_data(tmp_path / "data", 12, 3, teacher={"tier": "medium"})
    done = CliRunner().invoke(command, [str(data), "--top", "3", "--json"])
    assert done.exit_code == 0, done.output
    last = json.loads(done.output.splitlines()[-1])
    assert last["event"] == "finished" and last["rows"] == 15 and last["teacher"]["name"] == "medium"
