"""The losses against their formulas."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import log_softmax

from deployments.distil.batching import Batch, Scores
from deployments.distil.losses import TeacherDivergence, sequence, token, top_divergence
from router.errors import BadInput

WORDS = 11


class Fixed:
    """A model whose logits are a table by the token read: it needs no passes."""

    def __init__(self, seed, columns=True):
        self.table = torch.randn(WORDS, WORDS, generator=torch.Generator().manual_seed(seed))
        self.columns = columns

    def eval(self):
        return self

    def forward(self, input_ids, use_cache, logits_to_keep=None):
        logits = self.table[input_ids]
        return SimpleNamespace(logits=logits if logits_to_keep is None else logits[:, logits_to_keep])

    def __call__(self, **given):
        return self.forward(**given)


class WithoutColumns(Fixed):
    def forward(self, input_ids, use_cache):
        return SimpleNamespace(logits=self.table[input_ids])


IDS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]])
ANSWER = torch.tensor([[0, 0, 0, 1, 1], [0, 1, 1, 0, 0]], dtype=torch.bool)
PAIRS = [(3, 4), (4, 5), (6, 7), (7, 8)]  # (token read, answer token to predict)


@pytest.mark.parametrize("kind", [Fixed, WithoutColumns])
def test_sequence_is_the_cross_entropy_of_answer_tokens_alone(kind):
    model = kind(0)
    expected = -sum(log_softmax(model.table[read], -1)[said] for read, said in PAIRS)
    assert sequence(model, Batch(IDS, ANSWER)) == pytest.approx(expected.item(), rel=1e-6)


def test_the_prompt_and_the_padding_are_masked():
    other = IDS.clone()
    other[0, :2], other[1, 3:] = 9, 10
    assert sequence(Fixed(0), Batch(other, ANSWER)) == sequence(Fixed(0), Batch(IDS, ANSWER))


def by_hand(p, q, kept):
    """The formula of one token with plain numbers: p, q whole distributions."""
    rest_p, rest_q = (max(1e-6, 1 - sum(x[i] for i in kept)) for x in (p, q))
    return sum(p[i] * (math.log(p[i]) - math.log(q[i])) for i in kept) + rest_p * (math.log(rest_p) - math.log(rest_q))


@pytest.mark.parametrize("top", [1, 3, WORDS - 1])
def test_the_divergence_with_a_tail_is_its_formula(top):
    student, teacher = (log_softmax(Fixed(seed).table.double(), -1) for seed in (0, 1))
    best = teacher.topk(top)
    found = top_divergence(student, best.indices, best.values)
    for row in range(WORDS):
        expected = by_hand(teacher[row].exp().tolist(), student[row].exp().tolist(), best.indices[row].tolist())
        assert found[row].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_with_the_whole_vocabulary_it_is_the_full_divergence(dtype, close):
    student, teacher = (log_softmax(Fixed(seed).table.to(dtype), -1) for seed in (0, 1))
    best = teacher.topk(WORDS)
    full = (teacher.exp() * (teacher - student)).sum(1)
    torch.testing.assert_close(top_divergence(student, best.indices, best.values), full, rtol=0, atol=close)


def test_the_tail_teaches_what_a_renormalised_top_hides():
    """Student and teacher agree within the top 2, and the student has half of its mass elsewhere."""
    teacher = torch.tensor([[0.6, 0.4 - 2e-6, 1e-6, 1e-6]]).log()
    student = torch.tensor([[0.3, 0.2, 0.25, 0.25]]).log().requires_grad_()
    best = teacher.topk(2)
    loss = top_divergence(student, best.indices, best.values)
    assert loss.item() > 0.6
    loss.backward()
    assert student.grad[0, 0] < 0


def test_token_is_half_of_each():
    model, teacher = Fixed(0), Fixed(1)
    best = torch.stack([log_softmax(teacher.table[read], -1) for read, _ in PAIRS]).topk(5)
    batch = Batch(IDS, ANSWER, Scores(best.indices, best.values))
    student = torch.stack([log_softmax(model.table[read], -1) for read, _ in PAIRS])
    divergence = top_divergence(student, best.indices, best.values).sum()
    assert token(model, batch).item() == pytest.approx((0.5 * sequence(model, batch) + 0.5 * divergence).item(), rel=1e-6)


def test_token_without_scores_says_what_to_do():
    with pytest.raises(BadInput, match="stepdown distil score"):
        token(Fixed(0), Batch(IDS, ANSWER))


def test_a_live_teachers_divergence_is_the_full_one():
    model, teacher = Fixed(0), Fixed(1)
    q, p = (torch.stack([log_softmax(m.table[read], -1) for read, _ in PAIRS]) for m in (model, teacher))
    expected = (p.exp() * (p - q)).sum()
    assert TeacherDivergence(teacher)(model, Batch(IDS, ANSWER)).item() == pytest.approx(expected.item(), rel=1e-5)
    assert TeacherDivergence(teacher)(teacher, Batch(IDS, ANSWER)).item() == pytest.approx(0, abs=1e-6)
