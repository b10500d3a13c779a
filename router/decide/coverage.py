"""Whether a request was answered as its certificate supposes: the one place where `valid` is taken from an answer.

A certificate is made by playing one cascade over all tiers on rows of prompts, with nothing failing on the way. An answer that
came about in any other way is `uncovered`, also where it may be as good: nothing was measured about it. The header, the ledger,
the metrics and the alarm all go by `of_answer`.
"""

from collections.abc import Collection, Sequence

from router.trace import FlowKind
from router.types import Decision

UNCOVERED = "uncovered"  # the certificate is valid, but the request or its handling differs from those it was made on


def of_answer(decided: Decision, ladder: Sequence[str], flow: FlowKind, tiers: Collection[str], departed: bool) -> str:
    """The certificate's state for an answer, `uncovered` where a valid one does not cover it.

    ladder: all tiers, cheapest first. flow: the kind that answered. tiers: those that were asked. departed: a flow says that
    something happened which no certificate knows of (`Commit.departed`).
    """
    if decided.certificate != "valid":
        return decided.certificate
    # A cascade whose first tier is the top one is a plain call to it.
    as_certified = flow == "cascade" or (flow == "direct" and set(tiers) <= {ladder[-1]})
    kept = as_certified and not departed and not decided.excluded and not moved(decided)
    return decided.certificate if kept else UNCOVERED


def moved(decided: Decision) -> bool:
    """Whether a queue or a session has changed the tiers that are asked first."""
    return decided.reason == "moved off a queue" or bool(decided.first) and decided.tier not in decided.first
