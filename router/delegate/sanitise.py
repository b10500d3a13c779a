"""Makes text of models and clients harmless before it goes into another prompt."""

import re
from collections.abc import Sequence

from router.delegate.splice import REFERENCE

# Chat templates mark turns, tools and the end of a text with these. The last line is any <|word|>, full-width bars too.
CONTROL = re.compile(
    r"</?s>|\[/?INST\]|<</?SYS>>|\[/?SYSTEM_PROMPT\]|\[/?(?:AVAILABLE_)?TOOL(?:_CALLS|_RESULTS|S|_CONTENT)\]|\[(?:IMG|PREFIX|SUFFIX|MIDDLE)\]"
    r"|</?(?:start_of_turn|end_of_turn|bos|eos|pad|unk|mask|tool_call|tool_response|tools|think)>|<unused[0-9]{1,4}>"
    r"|<[|｜][^<>\n]{0,64}[|｜]>",
    re.IGNORECASE,
)


def neutralise(text: str, special: Sequence[str] = ()) -> str:
    """The text with a space inside every string that a chat template or tokenizer could take for one of its own.

    A tokenizer turns `<|im_end|>` in plain text into a real end of turn; `< |im_end|>` stays plain text.
    special: further strings, such as all special tokens of a tier's tokenizer.
    """
    text = CONTROL.sub(split_by_space, text)
    extra = [token for token in special if len(token) > 1]
    return re.sub("|".join(map(re.escape, sorted(extra, key=len, reverse=True))), split_by_space, text) if extra else text


def split_by_space(found: re.Match[str]) -> str:
    return f"{found[0][0]} {found[0][1:]}"


def inert(text: str, special: Sequence[str] = (), kept: frozenset[str] = frozenset()) -> str:
    """A worker's text made safe for the merging tier: without control strings and without references that it could copy.

    kept: references that are the client's own text, and never replaced.
    """
    return REFERENCE.sub(lambda found: found[0] if found[1] in kept else split_by_space(found), neutralise(text, special))
