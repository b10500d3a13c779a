"""A tier's own fields in each request to it (`body` in its settings): what tells a rung that thinks from one that does not.

They win over the client's, or a rung that is not to think could be made to. A client's say in how a text is sampled stays.
"""

from collections.abc import Collection, Mapping
from typing import Any

from router.reasoning_settings import SWITCH, Reasoning, pinned
from router.request import thinking
from router.tier_settings import laid_over

KWARGS = "chat_template_kwargs"
CHAT_ONLY = frozenset({KWARGS, "reasoning_effort"})
DEFAULTS = frozenset(
    """
    temperature top_p top_k min_p typical_p frequency_penalty presence_penalty repetition_penalty length_penalty seed stop
    stop_token_ids min_tokens logit_bias bad_words allowed_token_ids ignore_eos verbosity
    """.split()
)
"""fields in which the client's word counts, and the tier's only where it says nothing"""


def written(
    body: Mapping[str, Any], tier: str, settings: Reasoning | None, own: Mapping[str, Any], family: Collection[str] = ()
) -> Mapping[str, Any]:
    """The body of a call as that tier gets it; often the same object. settings: its `thinking`. own: its `body`. family: tiers
    whose thoughts it reads as its own.
    """
    if not own:
        return thinking.written(body, tier, settings, family)
    return with_own(thinking.written(without_wish(body, own), tier, settings, family), own)


def without_wish(body: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body without the client's word on whether to think, where that is settled. A limit of the thought's length stays."""
    if pinned(own) is None or "messages" not in body:
        return body
    kept = {name: value for name, value in body.items() if name not in CHAT_ONLY}
    asked = {name: value for name, value in thinking.kwargs_of(body).items() if name != SWITCH}
    return kept | ({KWARGS: asked} if asked else {})


def with_own(body: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The body with the tier's own fields."""
    chat = "messages" in body
    sent = {name: value for name, value in own.items() if (chat or name not in CHAT_ONLY) and not is_said(body, name)}
    return laid_over(body, sent)


def is_said(body: Mapping[str, Any], name: str) -> bool:
    """Whether the client gave a field in which its word counts."""
    return name in DEFAULTS and body.get(name) is not None
