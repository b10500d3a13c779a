"""The top tier as a judge: scores smaller tiers' answers against its own, where prompts have no reference.

Each answer is judged twice with the two positions swapped, because judges favour one position (Zheng et al., arXiv
2306.05685): as good both times scores 1, once 0.5, never 0. The top tier's own answer scores 1 by definition, so the
scores say how often a smaller tier is as good as the largest.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from router.request.thoughts import spoken

Row = dict[str, Any]
LONGEST = 4000  # most characters of the question, and of each answer, that the judge reads

PROMPT = """Two assistants answered the same request. Say whether assistant {asked} answered at least as well as the \
other. Correctness and completeness count; length and style do not.

Request:
{question}

Answer of assistant 1:
{first}

Answer of assistant 2:
{second}

Is assistant {asked} at least as good? Reply with one word: yes or no."""


class ChatClient(Protocol):
    """Sends chat requests to tiers."""

    async def ask(self, tier: str, messages: list[Row], max_tokens: int) -> Row:
        """The reply as JSON."""


def question_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """The conversation as the judge reads it."""
    return "\n".join(f"{m.get('role')}: {m.get('content')}" for m in messages)[-LONGEST:]


def judge_prompt(question: str, answer: str, reference: str, swapped: bool) -> str:
    """The judge's prompt; swapped: the reference comes first."""
    first, second = (reference, answer) if swapped else (answer, reference)
    return PROMPT.format(asked=2 if swapped else 1, question=question, first=first[:LONGEST], second=second[:LONGEST])


def says_yes(text: str) -> bool:
    """Whether the verdict is yes; anything unclear is no."""
    return text.strip().lower().lstrip("*\"'( ").startswith("yes")


async def judge(client: ChatClient, top: str, messages: Sequence[Mapping[str, Any]], answer: str, reference: str) -> float:
    """The score: 1, 0.5 or 0. The same answer needs no judge."""
    if answer.strip() == reference.strip():
        return 1.0
    yes = 0
    for swapped in (False, True):
        prompt = judge_prompt(question_of(messages), answer, reference, swapped)
        reply = await client.ask(top, [{"role": "user", "content": prompt}], 8)
        yes += says_yes(spoken(reply["choices"][0]["message"]).text)
    return yes / 2
