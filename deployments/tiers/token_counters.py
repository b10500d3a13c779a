"""Counts the tokens of a text as a tier does: with its own tokenizer if we have it, else by an estimate that errs upwards."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.config import Config
from router.engine_settings import ModelSource, Served
from router.request.token_bounds import TemplateCost
from router.types import Counter

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger("stepdown")
TEMPLATE_TOKENS = 8  # what a chat template adds around one question
SLICE = 1 << 16  # bytes looked at before another thread may run
BYTES_PER_TOKEN = 3.0  # fewer than current tokenizers need for English
# Pieces that are at most one token each for current tokenizers: of a word four letters, of other scripts two bytes, and every
# digit, sign and line break. Spaces go with the words that follow them.
PIECES = re.compile(rb"[A-Za-z]{1,4}|[\x80-\xef]{1,2}|[^A-Za-z\x80-\xef ]")
KNOWN_NORMALIZERS = {"NFC": 3, "Prepend": 1, "Replace": 1, "Sequence": 1}
"""normalizers that do not drop text -> into how much less they may turn it, in bytes"""


def estimate(text: str) -> int:
    """Rather too many for English, code, digits, hexadecimal and most scripts; no upper bound, which only the bytes are."""
    return estimated(text) + TEMPLATE_TOKENS


def estimated(text: str) -> int:
    """The same without a template."""
    data = text.encode("utf-8", "replace")
    pieces = sum(len(PIECES.findall(data, at, at + SLICE)) for at in range(0, len(data), SLICE))
    return max(round(len(data) / BYTES_PER_TOKEN), pieces)


# A function's own attributes have no type: see `types.Counter`.
estimate.exact = False  # type: ignore[attr-defined]
estimate.tokens = estimated  # type: ignore[attr-defined]


class TokenizerCount:
    """Counts with a tokenizer, and knows the chat template of the same model. May be used in several threads."""

    exact = True

    def __init__(self, tokenizer_json: bytes, source: ModelSource = ModelSource("")) -> None:
        self.file = tokenizer_json
        self.tokenizer = read(tokenizer_json)
        settings = json.loads(tokenizer_json)
        added = [token["content"] for token in settings.get("added_tokens", []) if token.get("content")]
        self.special = re.compile("|".join(map(re.escape, added))) if added else None
        self.longest = longest_token(settings, added)
        """bytes of text that one token may stand for; 0: unknown"""
        # One decision asks for the same texts several times, and counting is its most expensive step.
        self.tokens = lru_cache(maxsize=16)(self.counted)
        self.template: TemplateCost | None = None
        self.rendered: Callable[[Mapping[str, Any]], int] | None = None
        self.read_template(source)

    def __call__(self, text: str) -> int:
        return self.tokens(text) + TEMPLATE_TOKENS

    def counted(self, text: str) -> int:
        """The tokens of a text. A special token in it may be read as one token, or as any other text: the larger counts."""
        found = encoded(self.tokenizer, text)
        if self.special and self.special.search(text):
            return max(found, encoded(self.plain, text))
        return found

    @cached_property
    def plain(self) -> "Tokenizer":
        """Reads special tokens as any other text."""
        made = read(self.file)
        made.encode_special_tokens = True
        return made

    def read_template(self, source: ModelSource) -> None:
        """Measure the chat template, where it is on this machine."""
        from deployments.tiers.chat_template import REFUSALS, ChatTemplate, special_names, template_text

        try:
            text = template_text(source)
            template = ChatTemplate(text, special_names(source.folder), lru_cache(4)(lambda t: encoded(self.tokenizer, t)))
            cost = template.measured(len(self.tokenizer.encode("x").ids) - encoded(self.tokenizer, "x")) if text else None
        except (*REFUSALS, OSError) as error:
            log.warning("the chat template of %s cannot be read (%s); safe figures are used for what it adds", source.id, error)
            return
        if cost:
            self.template, self.rendered = cost, template.rendered


def read(tokenizer_json: bytes) -> "Tokenizer":
    from tokenizers import Tokenizer

    return Tokenizer.from_buffer(tokenizer_json)


def encoded(tokenizer: "Tokenizer", text: str) -> int:
    readable = text.encode("utf-8", "replace").decode()  # without lone surrogates, which JSON can hold and UTF-8 cannot
    # A batch of one, since only a batch lets other threads run meanwhile.
    (found,) = tokenizer.encode_batch_fast([readable], add_special_tokens=False)
    return len(found)


def longest_token(settings: Mapping[str, Any], added: list[str]) -> int:
    """Most bytes of text that one token stands for; 0 where a token may stand for any text, such as an unknown word."""
    model, normalizer = settings.get("model") or {}, settings.get("normalizer")
    whole = model.get("byte_fallback") or '"ByteLevel"' in json.dumps(settings.get("pre_tokenizer"))
    steps = [normalizer, *(normalizer.get("normalizers") or [])] if normalizer else []
    kinds = [str(step.get("type")) for step in steps]
    swallows = any(token.get("lstrip") or token.get("rstrip") for token in settings.get("added_tokens") or [])
    known = all(kind in KNOWN_NORMALIZERS for kind in kinds) and not any(map(shortens, steps))
    if model.get("type") != "BPE" or not whole or not known or swallows:
        return 0
    longest = max((len(token.encode()) for token in [*(model.get("vocab") or {}), *added]), default=0)
    return longest * max((KNOWN_NORMALIZERS[kind] for kind in kinds), default=1)


def shortens(step: Mapping[str, Any]) -> bool:
    """Whether a normalizer's step replaces text by less, or by we do not know what."""
    if step.get("type") != "Replace":
        return False
    sought = (step.get("pattern") or {}).get("String")
    return not isinstance(sought, str) or len(str(step.get("content", "")).encode()) < len(sought.encode())


def model_folder(tier: Served) -> Path | None:
    """Where the tier's tokenizer and chat template are on this machine: named in its settings, with its model, or downloaded."""
    source = tier.model_source
    if source.tokenizer or source.folder:
        return source.tokenizer or source.folder
    if not tier.local:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(source.id, "tokenizer.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def tokenizer_file(tier: Served) -> bytes:
    """The tier's tokenizer.json; empty where it is not on this machine."""
    folder = model_folder(tier)
    return file.read_bytes() if folder and (file := folder / "tokenizer.json").exists() else b""


def counters(config: Config) -> Mapping[str, Counter]:
    """By tier. Tiers with the same tokenizer and template share one counter, so a text is counted once for all of them."""
    made: dict[tuple[bytes, str], Counter] = {}
    return {tier.name: shared(tier, made) for tier in config.tiers}


def service_counters(config: Config) -> Mapping[str, Counter]:
    """By service."""
    made: dict[tuple[bytes, str], Counter] = {}
    return {service.name: shared(service, made) for service in config.services}


def shared(tier: Served, made: dict[tuple[bytes, str], Counter]) -> Counter:
    file = tokenizer_file(tier)
    if not file:
        return estimate
    source = tier.model_source._replace(folder=model_folder(tier))
    key = file, template_key(source)
    if key not in made:
        made[key] = TokenizerCount(file, source)
    return made[key]


def template_key(source: ModelSource) -> str:
    folder = source.folder
    files = [folder / name for name in ("chat_template.jinja", "tokenizer_config.json")] if folder else []
    return json.dumps([source.chat_template, *(file.read_text("utf-8") for file in files if file.is_file())])


def special_tokens(config: Config) -> list[str]:
    """All special tokens of the tiers' tokenizers: a client's text must not smuggle them into a prompt."""
    found: set[str] = set()
    for file in {tokenizer_file(tier) for tier in config.tiers} - {b""}:
        found |= {token["content"] for token in json.loads(file).get("added_tokens", []) if token.get("special")}
    return sorted(found)
