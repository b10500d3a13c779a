"""Reading a model's config.json, as transformers writes it."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from router.errors import UnknownShape
from router.fit.parameters import active, counted
from router.fit.shape import LINEAR, Attention, Part, Shape, State, Weights

KNOWN = frozenset(
    """
    llama mistral qwen2 qwen3 qwen3_moe qwen3_next qwen3_5 qwen3_5_text qwen3_5_moe qwen3_5_moe_text gpt_oss
    gemma3_text gemma3 gemma4 gemma4_text gemma4_unified smollm3
    """.split()
)
"""`model_type` of models whose parameters can be counted from config.json"""
METHODS: dict[str, Weights] = {"fp8": "fp8", "awq": "int4", "gptq": "int4", "mxfp4": "mxfp4", "modelopt": "nvfp4"}
"""`quant_method` -> weights, where it says nothing else"""
WHERE: dict[str, Part] = {"attn": "attention", "attention": "attention", "shared_expert": "mlp"}
"""what the names of modules have in them that a checkpoint does not quantise -> the part. Heads and gates are never"""
EVERY = 6
"""one layer in so many looks back over all tokens, in a Gemma that does not list them"""


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of the language model, which are inside where a model also sees or hears."""
    inner = config.get("text_config")
    if not isinstance(inner, Mapping):
        return config
    outer = {name: config[name] for name in ("tie_word_embeddings", "model_type", "quantization_config") if name in config}
    return {**outer, **inner}


def shape_of(config: Mapping[str, Any], name: str) -> Shape:
    """The shape that a config.json describes. name: the model's, for errors. Raises UnknownShape."""
    text = text_part(config)
    kind = str(text.get("model_type") or config.get("model_type"))
    if kind not in KNOWN:
        raise UnknownShape(f"{name}: config.json has model_type {kind!r}, of which the memory is not known; known are {listed()}")
    if text.get("hidden_size_per_layer_input"):
        raise UnknownShape(f"{name}: embeddings for each layer (Gemma 4 E2B, E4B), whose memory is not known here")
    try:
        parameters = counted(text, kind)
        experts = bool(text.get("num_experts") or text.get("num_local_experts"))
        size: Literal["dense", "moe", "gemma"] = "gemma" if kind.startswith("gemma") else ("moe" if experts else "dense")
        context = int(text.get("max_position_embeddings") or 2048)
        sees = "vision_config" in config
        return Shape(parameters, active(parameters, text), attention(text, kind), state(text), context, size, sees)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UnknownShape(f"{name}: config.json lacks {error}, or has something else there than a number") from None


def listed() -> str:
    return ", ".join(sorted(KNOWN))


def layer_types(text: Mapping[str, Any], kind: str) -> list[str]:
    """Of each layer with a cache of its own: full_attention, sliding_attention or linear_attention."""
    layers = int(text["num_hidden_layers"])
    types = text.get("layer_types")
    if not types and "linear_num_value_heads" in text:
        every = int(text.get("full_attention_interval") or 4)
        types = ["full_attention" if (i + 1) % every == 0 else "linear_attention" for i in range(layers)]
    elif not types and kind == "gpt_oss":
        types = ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)]
    elif not types and kind.startswith("gemma"):
        every = int(text.get("sliding_window_pattern") or EVERY)
        types = ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(layers)]
    elif not types:
        looks_back = text.get("sliding_window") and text.get("use_sliding_window", kind == "mistral")
        types = ["sliding_attention" if looks_back else "full_attention"] * layers
    return [str(each) for each in types][: layers - int(text.get("num_kv_shared_layers") or 0)]


def attention(text: Mapping[str, Any], kind: str) -> tuple[Attention, ...]:
    """Kinds of layers with keys and values."""
    number = Counter(layer_types(text, kind))
    heads = int(text.get("num_key_value_heads") or text["num_attention_heads"])
    size = head_size(text)
    wide = int(text.get("global_head_dim") or size)
    few = int(text.get("num_global_key_value_heads") or heads) if text.get("attention_k_eq_v") else heads
    found = [
        Attention(number["full_attention"], few, wide),
        Attention(number["sliding_attention"], heads, size, int(text.get("sliding_window") or 0) or None),
    ]
    return tuple(each for each in found if each.layers)


def head_size(text: Mapping[str, Any]) -> int:
    return int(text.get("head_dim") or int(text["hidden_size"]) // int(text["num_attention_heads"]))


def state(text: Mapping[str, Any]) -> State | None:
    """Layers with a state, of a gated delta net."""
    layers = layer_types(text, str(text.get("model_type"))).count("linear_attention")
    if not layers:
        return None
    keys = int(text["linear_num_key_heads"]) * int(text.get("linear_key_head_dim") or 128)
    values = int(text["linear_num_value_heads"]) * int(text.get("linear_value_head_dim") or 128)
    kernel = int(text.get("linear_conv_kernel_dim") or 4)
    return State(layers, (2 * keys + values) * (kernel - 1), values * int(text.get("linear_key_head_dim") or 128))


def precision(config: Mapping[str, Any], name: str) -> tuple[Weights, tuple[Part, ...]]:
    """The weights of a checkpoint, and the linear parts that it leaves as they are. Raises UnknownShape."""
    given = text_part(config).get("quantization_config")
    if not isinstance(given, Mapping):
        return "bf16", ()
    method = str(given.get("quant_method"))
    bits = given.get("bits") or given.get("w_bit")
    weights = packed(given) if method in ("compressed-tensors", "modelopt") else METHODS.get(method)
    if weights is None or (weights == "int4" and bits not in (None, 4)):
        raise UnknownShape(f"{name}: weights of quant_method {method!r} with {bits} bits, of which the size is not known")
    named = [*(given.get("modules_to_not_convert") or []), *(given.get("ignore") or [])]
    named += [rule for rule in given.get("dynamic") or {} if str(rule).startswith("-:")]
    return weights, left_out([str(each) for each in named])


def packed(given: Mapping[str, Any]) -> Weights | None:
    """The weights of compressed-tensors and modelopt."""
    text = str(given)
    if "nvfp4" in text.lower():
        return "nvfp4"
    if "'num_bits': 4" in text:
        return "int4"
    return "fp8" if "'num_bits': 8" in text or "FP8" in text else None


def left_out(named: list[str]) -> tuple[Part, ...]:
    """The parts of which a whole class of modules is not quantised: small ones (gates, a convolution) do not count."""
    small = ("conv1d", "in_proj_a", "in_proj_b", "norm", "gate", "router", "visual", "vision", "mtp")
    names = [name for name in named if "shared_expert_gate" not in name and not any(word in name for word in small)]
    found = {part for name in names for word, part in WHERE.items() if word in name}
    return tuple(part for part in LINEAR if part in found)
