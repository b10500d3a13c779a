"""The cache's arithmetic against what vLLM 0.29 said, by starts and by its own code (design of the feature, 30 November 2026)."""

import pytest

from router.fit.cache import pool
from router.fit.families import known
from router.fit.read_config import shape_of

GIB = 2**30
SMOL = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
GEMMA = {
    "model_type": "gemma3_text",
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "sliding_window": 512,
    "vocab_size": 262144,
}


def shape(name):
    return next(model.shape for model in known().models if model.name == name)


@pytest.mark.parametrize(
    "model, tokens, ahead, windows",
    [
        (shape_of(SMOL, "SmolLM2-135M"), 2048, 2048, 22.75),
        (shape_of(GEMMA, "Gemma 3 270M"), 2048, 2048, 27.03),
        (shape_of(GEMMA, "Gemma 3 270M"), 32_768, 2048, 7.56),
        (shape("gpt-oss-20b"), 32_768, 4096, 1.18),
        (shape("Qwen3.5-9B"), 8192, 2048, 2.68),
    ],
)
def test_a_gib_holds_as_many_windows_as_vllm_says(model, tokens, ahead, windows):
    assert pool(model, 1, 128, ahead).requests(GIB, tokens) == pytest.approx(windows, abs=0.01)


def test_a_window_of_qwen3_8b_takes_what_vllm_says():
    assert pool(shape("Qwen3-8B"), 1, 128, 2048).bytes_of(32_768) == 4.5 * GIB


def test_a_hybrids_block_holds_a_state():
    (attention, _), (state, groups) = pool(shape("Qwen3.5-9B"), 1, 128, 2048).groups
    assert attention.block == 640 and groups == 3
    assert attention.page == state.page >= shape("Qwen3.5-9B").state.page(1)


def test_cards_share_heads_but_never_split_one():
    alone, two, eight = (pool(shape("Qwen3-30B-A3B"), cards, 16, 2048).bytes_of(32_768) for cards in (1, 2, 8))
    assert (alone, alone) == (2 * two, 4 * eight)


def test_pages_of_two_sizes_become_one():
    kinds = [kind for kind, _ in pool(shape("gemma-4-31B"), 1, 16, 4096).groups]
    assert len({kind.page for kind in kinds}) == 1
    assert {kind.window: kind.block for kind in kinds} == {None: 32, 1024: 16}


def test_a_sliding_window_stops_growing():
    found = pool(shape("gpt-oss-20b"), 1, 16, 4096)
    (whole, _), (sliding, _) = found.groups
    assert sliding.blocks(32_768, 4096) == sliding.blocks(131_072, 4096)
    assert whole.blocks(131_072, 4096) == 4 * whole.blocks(32_768, 4096)


def test_no_memory_holds_no_window():
    assert pool(shape("Qwen3-8B"), 1, 16, 2048).requests(0, 2048) == 0
