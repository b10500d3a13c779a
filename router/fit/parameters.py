"""How many parameters a model has in each part, counted from its config.json."""

from collections.abc import Mapping
from typing import Any

from router.fit.shape import Part

GATED = ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text")
"""models whose queries come with a gate of the same size"""
TIED = ("gemma3_text", "gemma3", "gemma4", "gemma4_text", "gemma4_unified")
"""models whose output embeddings are their input embeddings unless config.json says otherwise"""


def counted(text: Mapping[str, Any], kind: str) -> dict[Part, int]:
    """Parameters by part. text: config.json's settings of the language model. Raises KeyError where one is missing."""
    hidden, layers = int(text["hidden_size"]), int(text["num_hidden_layers"])
    linear = linear_layers(text)
    tied = text.get("tie_word_embeddings", kind in TIED)
    return {
        "embeddings": int(text["vocab_size"]) * hidden * (1 if tied else 2),
        "attention": attention(text, kind, layers - linear) + linear * delta_net(text, hidden),
        "mlp": mlp(text, kind, hidden, layers),
        "experts": layers * experts(text) * expert(text, hidden),
        "other": other(text, kind, hidden, layers),
    }


def linear_layers(text: Mapping[str, Any]) -> int:
    """Layers with a gated delta net instead of attention."""
    if "linear_num_value_heads" not in text:
        return 0
    types = text.get("layer_types")
    layers = int(text["num_hidden_layers"])
    return list(types).count("linear_attention") if types else layers - layers // int(text.get("full_attention_interval") or 4)


def attention(text: Mapping[str, Any], kind: str, layers: int) -> int:
    """Queries, keys, values and output of all layers with attention."""
    hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
    few = int(text.get("num_key_value_heads") or heads)
    size = int(text.get("head_dim") or hidden // heads)
    queries = 2 if kind in GATED else 1
    narrow = hidden * size * (heads * queries + 2 * few + heads)
    if "global_head_dim" not in text:
        return layers * narrow
    every = int(text.get("sliding_window_pattern") or 6)
    types = text.get("layer_types")
    whole = list(types).count("full_attention") if types else layers // every
    size = int(text["global_head_dim"])
    if text.get("attention_k_eq_v"):
        few = int(text.get("num_global_key_value_heads") or few)
    return (layers - whole) * narrow + whole * hidden * size * (2 * heads + 2 * few)


def delta_net(text: Mapping[str, Any], hidden: int) -> int:
    """A layer's projections of queries, keys, values and their gate, and its output."""
    if "linear_num_value_heads" not in text:
        return 0
    keys = int(text["linear_num_key_heads"]) * int(text.get("linear_key_head_dim") or 128)
    values = int(text["linear_num_value_heads"]) * int(text.get("linear_value_head_dim") or 128)
    return hidden * (2 * keys + 3 * values)


def experts(text: Mapping[str, Any]) -> int:
    return int(text.get("num_experts") or text.get("num_local_experts") or 0)


def expert(text: Mapping[str, Any], hidden: int) -> int:
    """Parameters of one expert: two projections in, one out."""
    return 3 * hidden * int(text.get("moe_intermediate_size") or text["intermediate_size"]) if experts(text) else 0


def mlp(text: Mapping[str, Any], kind: str, hidden: int, layers: int) -> int:
    """What every token passes: the dense network, or the shared expert, or, in Gemma 4, a network beside the experts."""
    if not experts(text) or kind.startswith("gemma"):
        return 3 * hidden * int(text["intermediate_size"]) * layers
    return 3 * hidden * int(text.get("shared_expert_intermediate_size") or 0) * layers


def other(text: Mapping[str, Any], kind: str, hidden: int, layers: int) -> int:
    """Norms, the experts' router, and biases where there are many."""
    norms = (4 if kind.startswith("gemma") else 2) * hidden
    router = experts(text) * hidden
    many = experts(text) * 3 * hidden if kind == "gpt_oss" else 0
    small = 2 * int(text.get("linear_num_value_heads") or 0) * hidden
    return layers * (norms + router + many + small)


def active(parameters: Mapping[Part, int], text: Mapping[str, Any]) -> int:
    """Parameters that a token passes, without the embeddings."""
    number = experts(text)
    chosen = int(text.get("num_experts_per_tok") or text.get("top_k_experts") or 0)
    shared = sum(parameters[part] for part in ("attention", "mlp", "other"))
    return shared + (parameters["experts"] * chosen // number if number else 0)
