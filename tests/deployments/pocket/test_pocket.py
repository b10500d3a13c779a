"""The task family, its prompts, its tokenizer, and the shipped models as files."""

import json
import random
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from deployments.cli.main import main
from deployments.pocket import data, tasks, tokenizer

MODELS = Path(tasks.__file__).parent / "models"
TIERS = ("small", "medium", "large")


@pytest.mark.parametrize("kind", ["single", "composite", "chain"])
def test_prompts_are_fresh_graded_and_the_same_for_the_same_seed(kind):
    runs = [CliRunner().invoke(main, ["pocket", "prompts", "--kind", kind, "--n", "50", "--seed", "3"]).output for _ in "ab"]
    rows = [json.loads(line) for line in runs[0].splitlines()]
    assert runs[0] == runs[1] and len(rows) == len({r["messages"][0]["content"] for r in rows}) == 50
    assert all(set(r) == {"id", "messages", "answer", "kind", "difficulty"} for r in rows)
    assert all(tasks.held_out(r["messages"][0]["content"]) for r in rows)


def test_training_never_sees_a_held_out_prompt():
    rng = random.Random(0)
    assert not any(tasks.held_out(data.training_task(rng).prompt) for _ in range(2000))


@pytest.mark.parametrize("prompt, answer", [("reverse", "edcba"), ("upper", "ABCDE"), ("count", "5"), ("spell", "a-b-c-d-e")])
def test_answers_are_right(monkeypatch, prompt, answer):
    monkeypatch.setattr(tasks, "some_word", lambda rng, level: "abcde")
    assert tasks.SINGLES[prompt](random.Random(0), 1)[1] == answer


def test_a_composite_is_numbered_and_a_chain_lists_every_step():
    composite, chain = tasks.composite(random.Random(1)), tasks.chain(random.Random(1))
    assert 3 <= composite.difficulty == composite.answer.count("\n") + 1 <= 8
    assert chain.answer.count(",") + 1 == chain.difficulty


@pytest.mark.parametrize("text", ["What is 23 plus 45?", "naïve 漢字 \n\t 🙂", "Reverse the word thebanoki."])
def test_the_tokenizer_reads_and_writes_any_text(text):
    made = tokenizer.build()
    assert made.decode(made.encode(text).ids) == text


def parameters(tier: str) -> int:
    from safetensors import safe_open

    with safe_open(MODELS / tier / "model.safetensors", "np") as file:
        return sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118 - not a dict


def test_each_tier_is_at_least_four_times_the_one_below_and_all_are_small():
    small, medium, large = map(parameters, TIERS)
    assert medium >= 4 * small and large >= 4 * medium
    assert sum(f.stat().st_size for f in MODELS.rglob("*") if f.is_file()) <= 16e6


@pytest.mark.slow
def test_training_can_be_killed_and_goes_on_to_the_same_weights(tmp_path):
    import torch
    from safetensors.torch import load_file

    from deployments.pocket.train import Shape, train, trainer

    shape = Shape(hidden=32, heads=1, inner=32, layers=1, tokens_m=0.02, lr=1e-3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train("tiny", tmp_path / "whole", lambda progress: None, shape=shape)
        first = trainer("tiny", tmp_path / "cut", shape=shape)
        with pytest.raises(KeyboardInterrupt):
            first.run(partial(save_and_die, first))
        train("tiny", tmp_path / "cut", lambda progress: None, shape=shape)
    finally:
        torch.set_num_threads(threads)
    whole, cut = (load_file(tmp_path / name / "tiny" / "model.safetensors") for name in ("whole", "cut"))
    assert len(whole) > 5 and all(torch.equal(whole[name], cut[name]) for name in whole)


def save_and_die(trainer, progress):
    if progress.steps == 4:
        trainer.save()
    if progress.steps == 6:
        raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("kind, least, most", [("single", 0.95, 1.0), ("composite", 0.0, 0.0), ("chain", 0.0, 0.05)])
def test_the_certificate_covers_what_it_was_made_on(kind, least, most):
    """It was made on single prompts."""
    from deployments.tiers.token_counters import counters
    from router.config import load_config
    from router.engine import Router, load_artefact
    from router.types import Request

    config = load_config("pocket")
    router = Router(config, load_artefact(config), counters(config))
    asked = [[{"role": "user", "content": task.prompt}] for task in tasks.fresh(kind, 60, 5)]
    bodies = [{"model": "auto", "temperature": 0, "messages": messages} for messages in asked]
    states = [router.decide(Request("chat/completions", body)).certificate for body in bodies]
    assert set(states) <= {"valid", "uncovered"} and least <= states.count("valid") / 60 <= most


@pytest.mark.slow
def test_the_certificates_say_how_far_their_prompts_go_as_it_is_measured_now():
    """Where familiarity is measured in another way, what a certificate says of it means something else."""
    from router.config import load_config
    from router.decide import certificates
    from router.engine import load_artefact

    artefact = load_artefact(load_config("pocket"))
    texts = [task.prompt for task in tasks.fresh("single", 1500, 201)]  # as docs/cascade.md has it
    measured = certificates.reach_of(artefact.guess_honestly(texts)[0].unfamiliar, texts)
    for name in artefact.manifest["certificates"]:
        assert certificates.find_certificate(artefact.manifest, name).reach == pytest.approx(measured, rel=0.02)
