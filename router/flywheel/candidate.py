"""Makes a router from a dataset: trains it, certifies its target on rows of their own, writes its folder."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from classifiers import CLASSIFIERS, DEFAULT, Artifact, Rule, load, save
from classifiers.errors import ClassifierError
from router.config import Config, NamedTarget
from router.decide.certificates import Certificate, Infeasible, fewest_rows
from router.decide.targets import TARGETS
from router.errors import BadInput
from router.flywheel.price import best_rule
from router.flywheel.rows.dataset import Dataset
from router.flywheel.rows.tables import answers, tables_of
from router.flywheel.served import Served
from router.learn import cascades as ca
from router.learn.calibration import DEFAULT_RULE, QUALITY_OF
from router.learn.certified_rows import certifiable
from router.learn.inputs import check_costs_rise, rewrite_manifest
from router.learn.training import check_teaches, train
from router.request.body import asks_for_more


@dataclass(frozen=True)
class Made:
    """A candidate. An empty manifest: nothing could be trained, and there is no folder."""

    manifest: Mapping[str, Any] = field(default_factory=dict)
    certificate: Certificate | Infeasible | None = None
    """of whole answers; None: none could be tried"""
    holdback: Certificate | Infeasible | None = None
    """of streams, where escalation.mode is holdback"""
    why: str = ""
    """what is missing, and why; empty: nothing is"""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """of the requests that the certificate is about"""
    notes: tuple[str, ...] = ()
    """what was left out of the certificate, for people"""


def target_of(config: Config) -> str:
    """The target that is certified: what `auto` stands for, or `balanced` where that is a chance."""
    return str(config.routing.target) if config.routing.target in TARGETS else DEFAULT_RULE


def make_candidate(
    dataset: Dataset,
    config: Config,
    fingerprints: Mapping[str, Any],
    folder: Path,
    seed: int,
    weights: Mapping[str, str] | None = None,
) -> Made:
    """Train on `train`, certify on `certify`, write the artefact to `folder`, which is replaced.

    fingerprints: of the ladder that served the rows, as a certificate keeps them. weights: tier -> digest of the weights whose
    answers the rows hold, where they are not the configured ones; the artefact belongs to them from then on. The rows are in a
    folder for temporary files meanwhile, never in the artefact. Raises OSError; what the rows are unfit for is in `Made.why`.
    """
    name = config.flywheel.classifier or DEFAULT
    if name not in CLASSIFIERS:
        return Made(why=f"flywheel.classifier: {name!r} is none of {', '.join(CLASSIFIERS)}")
    with TemporaryDirectory(prefix="stepdown-flywheel-") as place:
        try:
            artefact = trained_on(dataset, config, name, folder, Path(place), seed, weights or {})
        except (BadInput, ClassifierError) as error:
            return Made(why=f"nothing could be trained: {error}")
        try:
            return certified(artefact, dataset, config, fingerprints, folder, Path(place))
        except BadInput as error:
            return Made(artefact.manifest, why=f"nothing could be certified: {error}")


# -- training -------------------------------------------------------------------------------------------------------------------


def trained_on(
    dataset: Dataset, config: Config, name: str, folder: Path, place: Path, seed: int, weights: Mapping[str, str]
) -> Artifact:
    """The artefact, written to `folder` and read again. Raises BadInput, ClassifierError."""
    if not dataset.train:
        raise BadInput("no row is left to train on")
    prefix = config.escalation.holdback_tokens
    outcomes, seen = tables_of(dataset.train, dataset, place / "train.jsonl", prefix)
    check_costs_rise(outcomes)
    check_teaches(outcomes)
    trained = train(outcomes, name)
    lesson = ca.learn_answers(trained, outcomes, seen)
    rules = ca.worthwhile(trained, lesson)
    if config.escalation.looks and (own := own_rule(lesson, dataset, config)):
        rules[target_of(config)] = own
    cascades = {key: rule.to_dict() for key, rule in rules.items()}
    manifest = {**trained.manifest, "cascades": cascades, "dataset_sha256": dataset.digest, "seed": seed}
    if weights:
        manifest["weights"] = dict(sorted(weights.items()))
    save(folder, trained.model, manifest, lesson.posterior)
    return load(folder, dataset.tiers)


def own_rule(lesson: ca.Lesson, dataset: Dataset, config: Config) -> Rule | None:
    """The target's rule by what it saves under the certificate: see price.py.

    With too few rows to certify anything it is as with enough: then the certificate says what is lacking.
    """
    settings, share = config.flywheel, QUALITY_OF[cast(NamedTarget, target_of(config))]
    n_certify = max(len(dataset.certify), 2 * fewest_rows(settings.alpha, settings.delta))
    return best_rule(lesson, n_certify, settings.alpha, settings.delta, share)


# -- certifying -----------------------------------------------------------------------------------------------------------------


def certified(
    artefact: Artifact, dataset: Dataset, config: Config, fingerprints: Mapping[str, Any], folder: Path, place: Path
) -> Made:
    """The artefact with its certificates, in its folder too. Raises BadInput where there is nothing to certify on."""
    target, settings = target_of(config), config.flywheel
    if not config.escalation.looks:
        mode = config.escalation.mode
        return Made(artefact.manifest, why=f"escalation.mode is {mode}: no answer is judged, so none is certified; set buffer")
    if target not in artefact.cascades:
        return Made(artefact.manifest, why=f"no rule for {target!r} that judges answers costs less than the top tier")
    rows, sampling = alike(dataset.certify)
    if not rows:
        raise BadInput("no plain chat request is left to certify with: those with tools or a format are under no certificate")
    table, left = certifiable(artefact, tables_of(rows, dataset, place / "certify.jsonl")[0])
    seen = answers(place / "certify.jsonl", table, artefact)
    judged, _ = ca.rows_to_judge(artefact, table, seen)
    prints, reach = {**fingerprints, "sampling": sampling}, ca.reach_of(artefact, table)
    found: dict[bool, Certificate | Infeasible] = {}
    manifest, why = artefact.manifest, list[str]()
    for held in (False, True) if config.escalation.mode == "holdback" else (False,):
        try:
            given = (artefact, judged, target, settings.alpha, settings.delta, prints, reach, held)
            found[held] = ca.promise(*given)[0]
        except BadInput as error:
            why.append(str(error))
            continue
        manifest = ca.bind(manifest, target, found[held])
        if isinstance(one := found[held], Infeasible):
            why.append(f"{'streams' if held else 'whole answers'}: {one.reason}")
    rewrite_manifest(folder, manifest)
    notes = [*left.lines()]
    if other := len(dataset.certify) - len(rows):
        notes.append(f"left out: {other} rows with another temperature, or with what no certificate covers")
    return Made(manifest, found.get(False), found.get(True), "; ".join(why), sampling, tuple(notes))


def alike(rows: Sequence[Served]) -> tuple[list[Served], dict[str, Any]]:
    """The requests that one certificate can cover, and their sampling: plain chats with the most frequent temperature.

    A certificate holds for one temperature; a request that leaves it to the model has None. See promises.covering.
    """
    plain = [row for row in rows if not asks_for_more(row.body)]
    heat = Counter(row.sampling.get("temperature") for row in plain)
    if not heat:
        return [], {}
    most = max(heat, key=lambda t: (heat[t], t is not None, -(t or 0)))
    return [row for row in plain if row.sampling.get("temperature") == most], {"temperature": most}
