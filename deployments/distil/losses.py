"""The losses, each summed over the answer tokens of a batch; the trainer divides by the answer tokens of the whole step.

Logits are float32 here, whatever the passes were computed in. The prompt is masked.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from deployments.distil.batching import Batch
from router.distil.recipe import Loss
from router.errors import BadInput

LossSum = Callable[[Any, Batch], torch.Tensor]
"""(model, batch) -> the sum over the batch's answer tokens, a float32 scalar, nats"""
LEAST = 1e-6  # chance of the tail, at least


def answer_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Logits that predict the answer tokens, (answer tokens of the batch, vocabulary), float32."""
    counted = batch.answer[:, 1:]
    columns = counted.any(0).nonzero().squeeze(1)
    kept = {"logits_to_keep": columns} if takes_columns(model) else {}
    logits = model(input_ids=batch.ids[:, :-1], use_cache=False, **kept).logits
    wanted = counted[:, columns] if kept else counted
    found: torch.Tensor = logits[wanted].float()
    return found


def takes_columns(model: Any) -> bool:
    """Whether it can compute logits at some positions alone."""
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(bare.forward).parameters


def answer_ids(batch: Batch) -> torch.Tensor:
    """(answer tokens,), int64, in the order of the logits."""
    return batch.ids[:, 1:][batch.answer[:, 1:]]


def rows_right(model: Any, batch: Batch) -> torch.Tensor:
    """(rows,), bool: whether every token of the answer is the most likely one, so that a greedy answer is the right one."""
    counted = batch.answer[:, 1:]
    wrong = torch.zeros_like(counted)
    wrong[counted] = answer_logits(model, batch).argmax(dim=-1) != answer_ids(batch)
    return ~wrong.any(dim=1)


def sequence(model: Any, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the answer to learn."""
    return cross_entropy(answer_logits(model, batch), answer_ids(batch), reduction="sum")


def token(model: Any, batch: Batch) -> torch.Tensor:
    """0.5 cross-entropy + 0.5 divergence from the teacher's scores. Raises BadInput for rows without them."""
    if batch.scores is None:
        raise BadInput(
            "the token loss needs the teacher's scores of each row; run `stepdown distil score` first, or train without it"
        )
    logits = answer_logits(model, batch)
    divergence = top_divergence(log_softmax(logits, dim=-1), batch.scores.ids, batch.scores.logprobs).sum()
    return 0.5 * cross_entropy(logits, answer_ids(batch), reduction="sum") + 0.5 * divergence


def top_divergence(student: torch.Tensor, ids: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """sum_K p (ln p - ln q) + p_r (ln p_r - ln q_r) at each token: the rest of the vocabulary is one more outcome.

    student: (tokens, vocabulary), logarithms of its full softmax. ids, teacher: (tokens, K), the teacher's highest, logarithms.
    p_r, q_r: what the K leave over, at least 1e-6. With K = vocabulary both are that, so the tail adds nothing.
    Leaving it out, or scaling both sides to 1, teaches nothing: measured on the pocket ladder.
    """
    q = student.gather(1, ids)
    p = teacher.exp()
    p_rest = (1 - p.sum(1)).clamp(min=LEAST)
    q_rest = (1 - q.exp().sum(1)).clamp(min=LEAST)
    return (p * (teacher - q)).sum(1) + p_rest * (p_rest.log() - q_rest.log())


class TeacherDivergence:
    """The divergence from a live teacher's whole distribution. teacher: a model of the same vocabulary."""

    def __init__(self, teacher: Any) -> None:
        self.teacher = teacher.eval()

    def __call__(self, model: Any, batch: Batch) -> torch.Tensor:
        with torch.inference_mode():
            target = log_softmax(answer_logits(self.teacher, batch), dim=-1)
        return kl_div(log_softmax(answer_logits(model, batch), dim=-1), target.clone(), log_target=True, reduction="sum")


LOSSES: dict[Loss, LossSum] = {"sequence": sequence, "token": token}
