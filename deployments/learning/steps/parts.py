"""What a run does with rows: train a router on them, and play requests by two routers. The heavy part of the flywheel.

`Parts` is what the flywheel needs of it, so that its own tests need no training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deployments.learning.live import weights as weights_store
from deployments.learning.live import weights_used
from deployments.learning.student.parts import StudentParts
from deployments.learning.student.real_parts import RealStudentParts
from deployments.tiers.fingerprints import to_record
from deployments.tiers.token_counters import counters, special_tokens
from router.config import Config
from router.engine import Router, load_artefact
from router.flywheel.pairs import Pair, pair_of
from router.flywheel.served import Served

if TYPE_CHECKING:
    from router.flywheel.rows.dataset import Dataset

Compare = Callable[[Served], Pair]
"""plays a request by candidate and incumbent; raises CannotPlay and Faulty"""


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of training."""

    dataset: str
    """digest of the data set; empty: none could be made"""
    trace_ids: tuple[str, ...] = ()
    method: str = ""
    """the classifier"""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """sizes, gates and the certificate, for the run's history"""
    whys: tuple[str, ...] = ()
    """why it is refused; empty: it passed every gate, and its artefact is in the folder"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a router is to be trained on and compared with."""

    rows: Sequence[Served]
    incumbent: Path | None
    """folder of the artefact in use; None: `auto` is the top tier, or what is in use has broken its promise"""
    folder: Path
    """where the candidate's artefact is written"""
    now_s: float
    seed: int
    tried: Mapping[str, str] = field(default_factory=dict)
    """digest of a data set -> run that failed with it"""
    since_certify_s: float | None = None
    """certify on requests of this time and after: before it, the traffic was another; None: on all"""
    paid_usd: float = 0.0
    """for the answers and grades that the log was filled in with"""
    weights: Mapping[str, str] = field(default_factory=dict)
    """tier -> digest of the weights that answered, where these are not the configured ones"""


class Parts(Protocol):
    @property
    def student(self) -> StudentParts: ...

    def train(self, asked: Asked) -> Trained: ...

    def compare(self, candidate: Path, incumbent: Path | None, least_chance: float) -> Compare: ...


class RealParts:
    """config: of the served ladder. fingerprints: of its configured models, for the certificate."""

    def __init__(self, config: Config, fingerprints: Mapping[str, Any]) -> None:
        self.config, self.fingerprints = config, fingerprints
        self.student: StudentParts = RealStudentParts(config)
        self.count, self.special = counters(config), special_tokens(config)

    def train(self, asked: Asked) -> Trained:
        from router.flywheel import candidate, gates  # late: they load scikit-learn
        from router.flywheel.rows import dataset

        data = dataset.build(asked.rows, tuple(self.config.names), asked.now_s, asked.seed, asked.since_certify_s)
        sizes = described(data)
        if before := asked.tried.get(data.digest):
            return Trained(
                data.digest, numbers=sizes, whys=(f"{before} failed with the same data set, which is not tried again",)
            )
        prints = to_record(self.prints(asked.weights))
        made = candidate.make_candidate(data, self.config, prints, asked.folder, asked.seed, asked.weights)
        numbers = {**sizes, "certificate": None if made.certificate is None else made.certificate.to_dict()}
        if made.why:
            return Trained(data.digest, numbers=numbers, whys=(made.why,))
        fresh, incumbent = self.router(asked.folder).artefact, self.router(asked.incumbent).artefact
        assert fresh is not None
        passed = gates.offline_gates(data, fresh, incumbent, self.config, asked.paid_usd)
        shown = [{"name": gate.name, "passed": gate.passed, "why": gate.why, **gate.numbers} for gate in passed]
        method = str(made.manifest.get("classifier", ""))
        whys = tuple(f"{gate.name}: {gate.why}" for gate in passed if not gate.passed)
        return Trained(data.digest, tuple(data.trace_ids), method, {**numbers, "gates": shown}, whys)

    def compare(self, candidate: Path, incumbent: Path | None, least_chance: float) -> Compare:
        """Each plays the answers of the weights that it is for."""
        ours, theirs = (weights_used.weights_of(folder) if folder else {} for folder in (candidate, incumbent))
        routers = self.router(candidate), self.router(incumbent)
        return partial(pair_on, *routers, ours, theirs, least_chance)

    def prints(self, weights: Mapping[str, str]) -> Mapping[str, Any]:
        """Fingerprints of the ladder on these weights. Raises BadInput."""
        if not weights:
            return self.fingerprints
        return weights_used.prints_on(self.config, weights, weights_store.root(self.config))

    def router(self, artefact: Path | None) -> Router:
        """A router that decides as an ingress with this artefact does; None: without one. Raises BadConfig, BadInput."""
        routing = self.config.routing.model_copy(update={"artefact": None if artefact is None else str(artefact)})
        config = self.config.model_copy(update={"routing": routing})
        prints = self.prints(weights_used.weights_of(artefact) if artefact else {})
        return Router(config, load_artefact(config), self.count, self.special, prints)


def pair_on(
    candidate: Router, incumbent: Router, ours: Mapping[str, str], theirs: Mapping[str, str], least_chance: float, served: Served
) -> Pair:
    """`pair_of` where the two are for other weights. ours, theirs: tier -> digest."""
    return pair_of(candidate, incumbent, served.on(ours), least_chance, served.on(theirs))


def described(data: "Dataset") -> dict[str, Any]:
    """The data set in figures."""
    shown = {"dataset": data.digest, "rows": data.counts, "left_out": dict(data.left_out)}
    return {**shown, "rests_on": data.rests_on, "notes": list(data.notes)}
