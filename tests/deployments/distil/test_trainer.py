"""The trainer: exact resume, accumulation, the loss on dev rows."""

import pytest
import torch
from distilling import drawn, tiny_model

from deployments.distil import base_models, encoding
from deployments.distil.batching import Batch, RowSource, in_order
from deployments.distil.losses import rows_right, sequence
from deployments.distil.trainer import Interrupted, Trainer
from router.distil.recipe import Recipe
from router.errors import BadInput


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def rows(folder):
    from distilling import a_row

    made = [a_row(i, task.prompt, task.answer) for i, task in enumerate(drawn(80))]
    return encoding.encode(made, base_models.load_tokenizer(folder), [3], 256).rows


def recipe(**more):
    plain = {
        "learning_rate": 5e-3,
        "tokens": 6_000,
        "batch_tokens": 600,
        "micro_tokens": 600,
        "warmup_steps": 2,
        "schedule": "line",
    }
    return Recipe(**{**plain, "optimiser": "muon+adamw", "precision": "float32", **more})


def trainer(folder, rows, run, made=None, dev=(), identity=""):
    made = made or recipe()
    source = RowSource(rows, made.seed, made.micro_tokens, made.batch_tokens, 0)
    return Trainer(base_models.load_model(folder), made, source, sequence, run, dev, identity)


def weights(trained):
    return {name: p.detach().clone() for name, p in trained.model.named_parameters()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def silent(progress):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", ["muon+adamw", "adamw"])
@pytest.mark.parametrize("micro", [600, 200])
def test_an_interrupted_training_ends_with_the_same_bits(folder, rows, tmp_path, optimiser, micro):
    made = recipe(optimiser=optimiser, micro_tokens=micro)
    dev = in_order(rows[:9], 300, 0)
    whole = trainer(folder, rows[9:], tmp_path / "whole", made, dev)
    whole.run(silent)
    for stop_at in (3, 7):
        cut = trainer(folder, rows[9:], tmp_path / "cut", made, dev)
        with pytest.raises(Interrupted):
            cut.run(silent, lambda cut=cut, stop_at=stop_at: cut.progress.steps == stop_at)
    last = trainer(folder, rows[9:], tmp_path / "cut", made, dev)
    assert last.progress.steps == 7
    last.run(silent)
    assert same(weights(whole), weights(last)) and last.progress.dev == whole.progress.dev
    assert not same(weights(whole), weights(trainer(folder, rows, tmp_path / "new")))


@pytest.mark.slow
def test_passes_of_any_length_give_the_same_step(folder, rows, tmp_path):
    """The loss is a mean over the answer tokens of the whole step, not a mean of means."""
    one, many = (trainer(folder, rows, tmp_path / name) for name in ("one", "many"))
    for trained, micro in ((one, 10_000), (many, 100)):
        trained.learn(in_order(rows, micro, 0))
    for name, weight in weights(one).items():
        torch.testing.assert_close(weight, weights(many)[name], rtol=0, atol=2e-4)
    assert one.progress.loss == pytest.approx(many.progress.loss, rel=1e-5)


@pytest.mark.slow
def test_checkpointing_of_gradients_changes_nothing(folder, rows, tmp_path):
    plain = trainer(folder, rows, tmp_path / "a", recipe(tokens=1_200))
    saving = trainer(folder, rows, tmp_path / "b", recipe(tokens=1_200, gradient_checkpointing=True))
    plain.run(silent)
    saving.run(silent)
    for name, weight in weights(plain).items():
        torch.testing.assert_close(weight, weights(saving)[name], rtol=0, atol=1e-5)


def test_another_trainings_checkpoint_is_refused(folder, rows, tmp_path):
    trainer(folder, rows, tmp_path, identity="one").save()
    with pytest.raises(BadInput, match="another training"):
        trainer(folder, rows, tmp_path, identity="two")


def test_a_damaged_checkpoint_says_what_to_do(folder, rows, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half")
    with pytest.raises(BadInput, match="delete it"):
        trainer(folder, rows, tmp_path)


class Scripted(Trainer):
    """A trainer whose loss on dev rows is a list. Nothing is right, unless a list says otherwise."""

    script: list[float]
    says: list[float] = []

    def dev_right(self):
        return self.says[len(self.progress.right)] if self.says else 0.0

    def dev_loss(self):
        return self.script[len(self.progress.dev)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "script, looks, ended_early",
    [([3, 2, 4, 5, 6, 1, 1], 5, True), ([3, 2, 4, 4, 1, 4, 4], 7, False), ([1, 4, 5, 3, 2, 0.9, 2], 7, False)],
)
def test_three_looks_above_the_lowest_end_it_and_the_lowest_is_kept(folder, rows, tmp_path, script, looks, ended_early):
    made = recipe(looks=6, tokens=6_000)
    source = RowSource(rows, 0, 600, 600, 0)
    trained = Scripted(base_models.load_model(folder), made, source, sequence, tmp_path, in_order(rows[:5], 300, 0))
    trained.script = script
    kept = {}

    def note(progress):
        if progress.dev[-1][1] == min(loss for _, loss in progress.dev) and progress.dev[-1][0] == progress.tokens:
            kept.update(weights(trained))

    trained.run(note)
    assert len(trained.progress.dev) == looks and trained.progress.ended_early is ended_early
    assert same(kept, weights(trained))


def test_a_loss_that_is_no_number_ends_with_words(folder, rows, tmp_path):
    broken = trainer(folder, rows, tmp_path)
    with torch.no_grad():
        next(iter(broken.learned.values())).fill_(float("nan"))
    with pytest.raises(BadInput, match="lower rate"):
        broken.learn(in_order(rows[:4], 300, 0))


@pytest.mark.slow
def test_what_gets_more_right_is_kept_though_its_loss_is_higher(folder, rows, tmp_path):
    made = recipe(looks=4, tokens=4_000)
    source = RowSource(rows, 0, 600, 600, 0)
    trained = Scripted(base_models.load_model(folder), made, source, sequence, tmp_path, in_order(rows[:5], 300, 0))
    trained.script, trained.says = [1, 2, 3, 4, 5], [0.5, 0.6, 0.7, 0.7, 0.6]
    assert trained.run(lambda progress: None).best == 2


def test_a_row_is_right_if_every_token_of_its_answer_is(folder, rows):
    model = base_models.load_model(folder).eval()
    (batch,) = in_order(rows[:4], 10_000, 0)
    said = model(batch.ids).logits.argmax(dim=-1)
    ids = batch.ids.clone()
    at = batch.answer[0].nonzero()[:, 0]
    assert not rows_right(model, batch).all()
    own = Batch(ids[:1, : at[0] + 1], batch.answer[:1, : at[0] + 1])
    own.ids[0, at[0]] = said[0, at[0] - 1]
    assert rows_right(model, own).tolist() == [True]
