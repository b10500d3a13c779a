"""Pairs: one kept request played by a candidate and by the incumbent; and what the pairs of one stage have shown so far."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from router.engine import Router
from router.errors import StepdownError
from router.flywheel.played import CannotPlay, Played, play
from router.flywheel.sequential import Wealth
from router.flywheel.served import Served


@dataclass(frozen=True, slots=True)
class Pair:
    """One request, played twice."""

    candidate: Played
    incumbent: Played
    top_usd: float
    """cost of the top tier's answer"""
    graded: bool
    """every tier's answer has a score"""
    weight: float = 1.0
    """least chance of being drawn / this request's chance, in (0, 1]"""

    @property
    def d(self) -> float | None:
        """The candidate's score less the incumbent's, in [-1, 1]; None: undecided.

        A request of which any tier has no score is undecided even where both took the same tier. If it counted as equal there,
        and as undecided where they differ, requests that cannot be graded would make the candidate look better than it is.
        """
        if not self.graded or self.candidate.score is None or self.incumbent.score is None:
            return None
        return self.candidate.score - self.incumbent.score


class Faulty(StepdownError):
    """The candidate refuses or fails on a request that the incumbent decides."""

    code = "faulty_candidate"


def pair_of(
    candidate: Router, incumbent: Router, served: Served, least_chance: float = 1.0, before: Served | None = None
) -> Pair:
    """Play a request by both. Raises CannotPlay, or Faulty where that is the candidate's fault.

    least_chance: the smallest with which any request of the stage was drawn. before: the same request with the answers of the
    weights that the incumbent is for, where those of `served` are others.
    """
    names, theirs = tuple(candidate.names), served if before is None else before
    other = play(incumbent, theirs)
    try:
        mine = play(candidate, served)
    except CannotPlay as error:
        raise (Faulty(str(error)) if error.refused else error) from None
    except Exception as error:  # noqa: BLE001 an artefact that was just made may fail in any way, which is what a shadow is for
        raise Faulty(f"the candidate fails ({type(error).__name__}: {error})"[:300]) from None
    top = served.answers.get(names[-1])
    if top is None:
        raise CannotPlay(f"no answer of {names[-1]} is kept")
    graded = served.complete(names) and (before is None or before.complete(names))
    return Pair(mine, other, top.cost_usd, graded, min(1.0, least_chance / served.chance))


def one_a_conversation(rows: Iterable[Served], seen: set[str]) -> Iterator[Served]:
    """The first row of each conversation; a row that belongs to none is one. seen: those that had one already, added to."""
    for row in rows:
        if row.conversation and row.conversation in seen:
            continue
        seen.add(row.conversation)
        yield row


@dataclass(frozen=True, slots=True)
class Tally:
    """What the pairs of one stage have shown. Made by `Tally.begin`; JSON and back, since each look at it is written down."""

    not_worse: Wealth
    worse: Wealth
    lost: int = 0
    """decided pairs with d < 0"""
    won: int = 0
    escalated: int = 0
    """pairs on which the candidate asked a larger tier after a smaller one"""
    unplayable: int = 0
    """requests that could not be played by both; they are no pairs"""
    faults: int = 0
    """of these, through the candidate's fault"""
    candidate_usd: float = 0.0
    incumbent_usd: float = 0.0
    top_usd: float = 0.0
    """of always asking the top tier alone"""
    tiers: Mapping[str, int] = field(default_factory=dict)
    """pairs by the tier whose answer the candidate would have given"""

    @classmethod
    def begin(cls, margin: float) -> "Tally":
        return cls(Wealth(margin, "not worse"), Wealth(margin, "worse"))

    @property
    def pairs(self) -> int:
        return self.not_worse.pairs

    @property
    def decided(self) -> int:
        return self.not_worse.decided

    @property
    def saving(self) -> float | None:
        """Share of the top tier's cost that the candidate would have saved; None: nothing was played."""
        return 1 - self.candidate_usd / self.top_usd if self.top_usd > 0 else None

    def add(self, pair: Pair) -> "Tally":
        """The tally with one more pair."""
        d, taken = pair.d, pair.candidate.tier
        return replace(
            self,
            not_worse=self.not_worse.update(d, pair.weight),
            worse=self.worse.update(d, pair.weight),
            lost=self.lost + (d is not None and d < 0),
            won=self.won + (d is not None and d > 0),
            escalated=self.escalated + pair.candidate.escalated,
            candidate_usd=self.candidate_usd + pair.candidate.cost_usd,
            incumbent_usd=self.incumbent_usd + pair.incumbent.cost_usd,
            top_usd=self.top_usd + pair.top_usd,
            tiers={**self.tiers, taken: self.tiers.get(taken, 0) + 1},
        )

    def skip(self, fault: bool = False) -> "Tally":
        """The tally with one more request that could not be played. fault: the candidate's."""
        return replace(self, unplayable=self.unplayable + 1, faults=self.faults + fault)

    def after(self, rows: Iterable[Served], candidate: Router, incumbent: Router, least_chance: float = 1.0) -> "Tally":
        """The tally after these requests, each played by both. least_chance: see `pair_of`."""
        tally = self
        for row in rows:
            try:
                tally = tally.add(pair_of(candidate, incumbent, row, least_chance))
            except (CannotPlay, Faulty) as error:
                tally = tally.skip(isinstance(error, Faulty))
        return tally

    def as_json(self) -> dict[str, Any]:
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("not_worse", "worse")}
        return {**plain, "tiers": dict(self.tiers), "not_worse": self.not_worse.as_json(), "worse": self.worse.as_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Tally":
        """What `as_json` gave."""
        known = {one.name for one in fields(cls)}
        plain = {name: value for name, value in data.items() if name in known}
        wealths = {name: Wealth.from_json(data[name]) for name in ("not_worse", "worse")}
        return cls(**{**plain, **wealths})
