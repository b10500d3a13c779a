"""Which recipe suits a model on a machine, and what is said where none does."""

import pytest
from pydantic import ValidationError

from router.distil.recipe import Asked, ModelSize, needed_bytes, recipe_for, share_of_rate
from router.errors import BadInput

POCKET = ModelSize(parameters=101_376, hidden=64, layers=2, vocabulary=491, context=512, linear=1_984)
SMOL = ModelSize(parameters=134_515_008, hidden=576, layers=30, vocabulary=49_152, context=8_192, linear=305_280)
SEVEN = ModelSize(parameters=7_600_000_000, hidden=3_584, layers=28, vocabulary=152_064, context=32_768, linear=1_261_568)
GB = 1e9


def test_a_small_model_on_a_processor_is_trained_whole_as_measured():
    found = recipe_for(POCKET, "cpu", 8 * GB, pass_tokens=300_000)
    assert (found.optimiser, found.learning_rate, found.batch_tokens, found.tokens) == ("muon+adamw", 2e-3, 1_800, 2_400_000)
    assert (found.rank, found.warmup_steps, found.schedule, found.precision) == (None, 50, "line", "float32")


def test_a_short_training_warms_up_for_a_tenth():
    assert recipe_for(POCKET, "cpu", 8 * GB, 300_000, Asked(tokens=180_000)).warmup_steps == 10


def test_lora_of_a_small_model():
    found = recipe_for(POCKET, "cpu", 8 * GB, 300_000, Asked(lora=True))
    assert (found.rank, found.alpha, found.learning_rate) == (16, 32, 1e-2)


def test_a_larger_model_on_a_processor_gets_adapters():
    found = recipe_for(SMOL, "cpu", 16 * GB, pass_tokens=20_000)
    assert (found.rank, found.optimiser, found.tokens) == (16, "adamw", 40_000)


@pytest.mark.parametrize("memory_gb, rank", [(192, None), (80, 32)])
def test_a_gpu_trains_all_weights_where_sixteen_bytes_a_parameter_fit(memory_gb, rank):
    found = recipe_for(SEVEN, "cuda", memory_gb * GB, pass_tokens=5_000_000)
    assert found.rank == rank
    assert (found.batch_tokens, found.precision, found.schedule, found.tokens) == (65_536, "bf16-autocast", "cosine", 10_000_000)
    assert found.learning_rate == (2e-4 if rank else 1e-5) and found.warmup_steps == round(0.03 * 10_000_000 / 65_536)
    assert needed_bytes(found, SEVEN, "cuda") <= 0.9 * memory_gb * GB


def test_less_memory_means_shorter_passes_and_then_checkpointing():
    roomy, tight = (recipe_for(SEVEN, "cuda", gb * GB, 5_000_000, Asked(lora=True)) for gb in (141, 40))
    assert tight.micro_tokens < roomy.micro_tokens or tight.gradient_checkpointing
    assert not roomy.gradient_checkpointing


@pytest.mark.parametrize(
    "asked, memory_gb, mend",
    [
        (Asked(lora=False), 80, "LoRA (--lora)"),
        (Asked(rank=256, longest=1_024), 21, "a lower rank (--rank"),
        (Asked(longest=8_192), 20, "shorter rows (--longest"),
        (Asked(), 8, "a smaller model, of fewer than 3,600 million parameters"),
    ],
)
def test_what_does_not_fit_says_what_would(asked, memory_gb, mend):
    with pytest.raises(BadInput, match="What would fit") as raised:
        recipe_for(SEVEN, "cuda", memory_gb * GB, 5_000_000, asked)
    assert mend in str(raised.value)


@pytest.mark.parametrize("rank", [2, 4, 12, 512])
def test_ranks_that_vllm_does_not_serve_are_refused(rank):
    with pytest.raises(BadInput, match="1, 8, 16, 32"):
        Asked(rank=rank)


def test_a_rank_without_lora_is_refused():
    with pytest.raises(BadInput, match="--lora"):
        Asked(lora=False, rank=8)


def test_the_rate_rises_and_falls_as_described():
    line = recipe_for(POCKET, "cpu", 8 * GB, 300_000)
    assert share_of_rate(line, 0, 0) == pytest.approx(1 / 50)
    assert share_of_rate(line, 1_200_000, 600) == pytest.approx(0.5)
    assert share_of_rate(line, 2_400_000, 1_300) == pytest.approx(0.02)
    cosine = recipe_for(SMOL, "cpu", 16 * GB, 50_000)
    assert share_of_rate(cosine, cosine.tokens // 2, 100) == pytest.approx(0.5)
    assert share_of_rate(cosine, cosine.tokens, 100) == pytest.approx(0.0)


def test_a_recipe_is_frozen_and_closed():
    found = recipe_for(POCKET, "cpu", 8 * GB, 300_000)
    with pytest.raises(ValidationError):
        found.seed = 1
    with pytest.raises(ValidationError):
        type(found)(**{**found.model_dump(), "temperature": 2})
