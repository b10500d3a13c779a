"""The heavy parts of a student's run: data, training, gates, answers, a router. A test of the run needs none of them.

Each may be cut short at any moment and is then asked the same again, in the same folder.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Engine

from deployments.learning.student.asked import StudentAsked
from router.flywheel.ladder_gate import Paid
from router.flywheel.served import Answer, Served

Report = Callable[[int, int, Mapping[str, Any]], None]
"""(done, of, more figures): how far a part is"""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a run is about."""

    run_id: str
    student: StudentAsked
    tiers: tuple[str, ...]
    """cheapest first"""
    began_s: float
    """requests after it are left out"""
    since_s: float
    """and those before it"""
    seed: int
    incumbent: Path | None
    """folder of the artefact that decides now; None: `auto` is the top tier"""
    weights: Mapping[str, str]
    """tier -> digest of the weights that it decides about; the configured ones are missing"""
    tried: Mapping[str, str] = field(default_factory=dict)
    """digest of a data set -> run that failed with it"""
    since_certify_s: float | None = None
    """when the promise of the incumbent was found broken: only requests since then certify; None: it was not"""
    labels_usd: float = 0.0
    """for the answers and grades that the log was filled in with"""
    shadow_pairs: int = 0
    """requests that a shadow looks at, at least"""

    @property
    def parent(self) -> str:
        """Digest of the weights that are replaced; empty: the configured ones."""
        return self.weights.get(self.student.tier, "")


@dataclass(frozen=True, slots=True)
class DataMade:
    """What can be learned from."""

    dataset: str
    """SHA-256"""
    trained_ids: tuple[str, ...]
    """requests of the side `train`"""
    other_ids: tuple[str, ...]
    """requests that choose among weights, or test"""
    until_s: float
    """time of the newest request that is trained on"""
    licence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """rows by side and kind, what was left out and why"""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "DataMade":
        return cls(**{**data, "trained_ids": tuple(data["trained_ids"]), "other_ids": tuple(data["other_ids"])})


@dataclass(frozen=True, slots=True)
class Learned:
    """Weights in the store."""

    digest: str
    files: Mapping[str, str]
    """name -> SHA-256"""
    method: str
    seconds: float = 0.0
    tokens: int = 0
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """rows, losses on dev rows, parents"""


@dataclass(frozen=True, slots=True)
class Gates:
    """What gates have found."""

    gates: tuple[Mapping[str, Any], ...]
    """each: name, passed, why, and its numbers"""
    slices: Mapping[str, Any] = field(default_factory=dict)
    """slice -> before, after, n, won, lost"""

    @property
    def whys(self) -> list[str]:
        """Of those that failed."""
        return [f"{gate['name']}: {gate['why']}" for gate in self.gates if not gate["passed"]]


@dataclass(frozen=True, slots=True)
class RouterAsked:
    """What a router on the new weights is made of, and what its bundle is compared with."""

    rows: Sequence[Served]
    """with the new weights' answers"""
    before: Mapping[str, Served]
    """trace id -> the same request with the answers of the weights in use"""
    lesson: Lesson
    weights: Mapping[str, str]
    """tier -> digest, with the new ones"""
    paid: Paid


@dataclass(frozen=True, slots=True)
class RouterMade:
    """A router that may be a candidate. An empty `gates` comes with a `why`."""

    dataset: str
    trace_ids: tuple[str, ...]
    method: str
    gates: Gates
    numbers: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    """why nothing was made; empty: the artefact is in the folder"""


class StudentParts(Protocol):
    """folder: of this part alone. Each raises BadInput where it cannot be done: the run is refused with that reason."""

    def data(self, engine: Engine, lesson: Lesson, folder: Path, report: Report) -> DataMade: ...

    def train(self, lesson: Lesson, data: Path, folder: Path, report: Report) -> Learned: ...

    def adopted(self, lesson: Lesson) -> Learned: ...

    def gates(self, lesson: Lesson, data: Path, digest: str, folder: Path, report: Report) -> Gates: ...

    def answers(
        self, lesson: Lesson, rows: Sequence[Served], digest: str, folder: Path, report: Report
    ) -> Mapping[str, Answer]: ...

    def router(self, asked: RouterAsked, folder: Path) -> RouterMade: ...

    def training_usd(self, lesson: Lesson, learned: Learned) -> float: ...

    def kept(self, digest: str) -> bool:
        """Whether weights are in the store."""
        ...

    def forget(self, digest: str) -> None:
        """Take weights that nobody will use out of the store."""
        ...
