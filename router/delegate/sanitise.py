"""Text of models and clients made harmless before it goes into another prompt."""

import re
from collections.abc import Sequence

from router.delegate.splice import REFERENCE

# What chat templates use to mark turns, tools and the ends of a text; the last column is any <|word|>, full width too.
CONTROL = re.compile(
    r"</?s>|\[/?INST\]|<</?SYS>>|\[/?SYSTEM_PROMPT\]|\[/?(?:AVAILABLE_)?TOOL(?:_CALLS|_RESULTS|S|_CONTENT)\]|\[(?:IMG|PREFIX|SUFFIX|MIDDLE)\]"
    r"|</?(?:start_of_turn|end_of_turn|bos|eos|pad|unk|mask|tool_call|tool_response|tools|think)>|<unused[0-9]{1,4}>"
    r"|<[|｜][^<>\n]{0,64}[|｜]>",
    re.IGNORECASE,
)


def neutralise(text: str, special: Sequence[str] = ()) -> str:
    """The text with a space inside every string that a chat template or tokenizer could take for one of its own.

    A tokenizer turns `<|im_end|>` in plain text into the real end of a turn; `< |im_end|>` stays words.
    special: further strings, such as all special tokens of a tier's tokenizer.
    """
    text = CONTROL.sub(apart, text)
    extra = [token for token in special if len(token) > 1]
    return re.sub("|".join(map(re.escape, sorted(extra, key=len, reverse=True))), apart, text) if extra else text


def apart(found: re.Match[str]) -> str:
    return f"{found[0][0]} {found[0][1:]}"


def inert(text: str, special: Sequence[str] = ()) -> str:
    """A worker's text as the merging tier may read it: no control strings, and no reference it could copy."""
    return REFERENCE.sub(apart, neutralise(text, special))
