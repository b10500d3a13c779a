"""The pocket tokenizer: one token for each word of the task family's own English, one for every other character.

Byte-level, so any text can be read and written; words that a task works on (made-up words, numbers, names) stay
letters and digits, which is what spelling, sorting and adding need.
"""

import re
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from deployments.pocket import tasks

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL = [PAD, USER, ASSISTANT, END]
# The models know one question at a time: the template shows them the last user message and drops the rest.
CHAT_TEMPLATE = (
    "{% set last = messages | selectattr('role', 'equalto', 'user') | list | last %}"
    "{{ '<|user|>' }}{% if last is defined %}{% if last.content is string %}{{ last.content }}{% else %}"
    "{% for part in last.content %}{{ part.text or '' }}{% endfor %}{% endif %}{% endif %}{{ '<|end|>' }}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CHAIN_WORDS = "Start Begin with Take the number Add Subtract Double it Give result of every step Write after each"
PLAN_WORDS = "plan direct split tasks task part answer yes no done"


def words() -> list[str]:
    """The words of all templates, sorted; each becomes a token with and without a space before it."""
    texts = [CHAIN_WORDS, PLAN_WORDS, *tasks.INTRO, *tasks.POLITE, *tasks.ORDINALS, "and or"]
    texts += [t for value in vars(tasks).values() if isinstance(value, list) for t in value if isinstance(t, str)]
    return sorted({w for text in texts for w in re.findall(r"[A-Za-z]{2,}", re.sub(r"\{\w\}", "", text))})


def build() -> Tokenizer:
    vocabulary = {token: i for i, token in enumerate(SPECIAL)}
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), ",Ġ", *(p + w for w in words() for p in ("", "Ġ"))]
    for piece in pieces:
        vocabulary.setdefault(piece, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    word = "|".join(sorted(words(), key=lambda w: (-len(w), w)))
    piece = Regex(rf" ?(?:(?<![A-Za-z])(?:{word}))(?![A-Za-z])|, |[\s\S]")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(piece, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def save(folder: Path) -> None:
    """Write tokenizer.json, its config and the chat template the way transformers and vLLM read them."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=build(), pad_token=PAD, eos_token=END, model_max_length=512)
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
