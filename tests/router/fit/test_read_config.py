"""Parameters and precisions from config.json."""

import pytest

from router.errors import UnknownShape
from router.fit.families import known
from router.fit.read_config import precision, shape_of

QWEN = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}


@pytest.mark.parametrize(
    "name, billions",
    [  # as the model cards say, without what sees and what speculates
        ("Qwen3-0.6B", 0.596),
        ("Qwen3-8B", 8.19),
        ("Qwen3-32B", 32.76),
        ("Qwen3-30B-A3B", 30.53),
        ("Qwen3-235B-A22B", 235.09),
        ("gpt-oss-20b", 20.91),
        ("gpt-oss-120b", 116.83),
        ("Qwen3.5-397B-A17B", 397.0),
        ("Qwen3.5-122B-A10B", 122.0),
        ("Qwen3.6-35B-A3B", 35.0),
        ("Qwen3.6-27B", 27.0),
        ("gemma-4-31B", 30.7),
        ("gemma-4-26B-A4B", 25.2),
    ],
)
def test_the_parameters_are_those_that_are_published(name, billions):
    found = next(model for model in known().models if model.name == name)
    assert found.shape.total / 1e9 == pytest.approx(billions, rel=0.011)


@pytest.mark.parametrize(
    "source, gigabytes",
    [("Qwen/Qwen3-8B-AWQ", 6.1), ("openai/gpt-oss-20b", 13.8), ("openai/gpt-oss-120b", 65.3), ("Qwen/Qwen3-32B", 65.5)],
)
def test_the_weights_have_the_size_of_the_files(source, gigabytes):
    model = known().named(source)
    assert model.checkpoints[0].bytes_of(model.shape) / 1e9 == pytest.approx(gigabytes, rel=0.01)


def test_of_experts_only_the_chosen_are_active():
    shape = next(model.shape for model in known().models if model.name == "gpt-oss-20b")
    assert shape.active / 1e9 == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize(
    "given, found",
    [
        (None, ("bf16", ())),
        ({"quant_method": "fp8", "modules_to_not_convert": ["lm_head", "model.layers.0.linear_attn.conv1d"]}, ("fp8", ())),
        ({"quant_method": "awq", "bits": 4}, ("int4", ())),
        (
            {"quant_method": "gptq", "bits": 4, "dynamic": {"-:.*attn.*": {}, "-:.*shared_expert.*": {}}},
            ("int4", ("attention", "mlp")),
        ),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}, ("mxfp4", ("attention",))),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4}}}}, ("int4", ())),
    ],
)
def test_the_precision_is_what_the_checkpoint_says(given, found):
    assert precision({**QWEN, "quantization_config": given}, "mine") == found


def test_a_precision_nobody_knows_is_refused():
    with pytest.raises(UnknownShape, match="mine: weights of quant_method 'gguf'"):
        precision({**QWEN, "quantization_config": {"quant_method": "gguf"}}, "mine")


@pytest.mark.parametrize(
    "change, said",
    [
        ({"model_type": "mystery"}, "model_type 'mystery'"),
        ({"hidden_size": None}, "config.json lacks"),
        ({"hidden_size_per_layer_input": 256}, "embeddings for each layer"),
    ],
)
def test_a_shape_that_is_not_known_is_refused_by_name(change, said):
    with pytest.raises(UnknownShape) as raised:
        shape_of({**QWEN, **change}, "mine")
    assert str(raised.value).startswith("mine: ") and said in str(raised.value)


def test_the_language_model_is_found_inside_one_that_sees():
    inside = shape_of({"model_type": "qwen3", "vision_config": {}, "text_config": QWEN}, "mine")
    assert inside.total == shape_of(QWEN, "mine").total and inside.sees


def test_layers_that_share_a_cache_are_counted_once():
    shared = {**QWEN, "model_type": "gemma4_text", "num_kv_shared_layers": 16, "sliding_window": 512}
    assert sum(each.layers for each in shape_of(shared, "mine").attention) == 20
