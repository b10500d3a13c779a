"""The pocket tokenizer: one token for each word of the task family's own English, one for every other character.

It is byte-level, so it can read and write any text. Words that a task works on (made-up words, numbers, names) stay
letters and digits, as spelling, sorting and adding need.
"""

import re
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from deployments.pocket import tasks

PAD = "<|pad|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
END = "<|end|>"
SPECIAL = [PAD, USER, ASSISTANT, END]
CHAT_TEMPLATE = Path(__file__).parent / "chat_template.jinja"
"""shows the models the last user message only: they were trained on single questions"""
CHAIN_WORDS = "Start Begin with Take the number Add Subtract Double it Give result of every step Write after each"
PLAN_WORDS = "plan direct split tasks task part answer yes no done"


def words() -> list[str]:
    """The words of all templates, sorted; each becomes a token with and without a space before it."""
    texts = [CHAIN_WORDS, PLAN_WORDS, "and or", *(text for texts in tasks.TEMPLATES.values() for text in texts)]
    return sorted({w for text in texts for w in re.findall(r"[A-Za-z]{2,}", re.sub(r"\{\w\}", "", text))})


def build() -> Tokenizer:
    vocabulary = {token: i for i, token in enumerate(SPECIAL)}
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), ",Ġ", *(p + w for w in words() for p in ("", "Ġ"))]
    for piece in pieces:
        vocabulary.setdefault(piece, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    word = "|".join(sorted(words(), key=lambda w: (-len(w), w)))
    pattern = Regex(rf" ?(?:(?<![A-Za-z])(?:{word}))(?![A-Za-z])|, |[\s\S]")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def save(folder: Path) -> None:
    """Write tokenizer.json, its config and the chat template as transformers and vLLM read them."""
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": PAD, "eos_token": END}
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers' class has no annotations
        tokenizer_object=build(), model_max_length=512, **special
    )
    fast.chat_template = CHAT_TEMPLATE.read_text()
    fast.save_pretrained(folder)
