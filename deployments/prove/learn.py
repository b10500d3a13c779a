"""The steps of a proof that learn: label by every tier, train a router, certify it. What they leave are files of the folder."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from classifiers import Rule, save
from classifiers.files import atomic_write
from deployments.prove.budget import PricedClient, Purse
from deployments.tiers.fingerprints import ladder_fingerprints, to_record
from router.config import Config, NamedTarget
from router.decide import certificates as ct
from router.errors import BadInput
from router.learn.calibration import QUALITY_OF
from router.learn.cascades import bind, certificate_text, judged_by, promise, reach_of, rows_to_judge, teach
from router.learn.certified_rows import certifiable
from router.learn.evidence import read_seen
from router.learn.inputs import (
    answers_of,
    check_costs_rise,
    measured_rows,
    open_artefact,
    read_all,
    rewrite_manifest,
    training_rows,
)
from router.learn.labels.grading import Grader
from router.learn.labels.labelling import Labelling, line_of
from router.learn.labels.ladder_client import Row, ServedLadder
from router.learn.outcomes import parse_tiers
from router.learn.training import check_teaches
from router.learn.training import train as fit

OUTCOMES = "outcomes.jsonl"
TEACH = "teach.jsonl"
CERTIFY = "certify.jsonl"
TRAINED = "trained"
ROUTER = "router"
Progress = Callable[[int, int], None]
Json = dict[str, Any]


async def label(
    rows: Sequence[Row], ladder: ServedLadder, grader: Grader | None, folder: Path, purse: Purse, progress: Progress
) -> Json:
    """Ask every tier every row, grade, and write the outcomes, in one file and by part. Raises BadInput."""
    work = Labelling(rows, ladder, grader, folder / OUTCOMES, progress)
    work.client_of = partial(PricedClient, purse=purse, what="labels")
    await work.run(check=True)
    by_part = parts_of(json.loads(line) for line in (folder / OUTCOMES).read_text("utf-8").splitlines())
    for name, part in ((TEACH, "teach"), (CERTIFY, "certify")):
        write_rows(folder / name, by_part.get(part, []))
    counts = {part: len(members) for part, members in by_part.items()}
    return {"asked": counts, "missing": dict(work.missing.most_common(8)), "partial": purse.refused > 0}


def parts_of(rows: Any) -> dict[str, list[Row]]:
    """The rows by `part`; without it, as any row of outcomes."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["part"], []).append({name: value for name, value in row.items() if name not in ("part", "split")})
    return found


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    atomic_write(path, "".join(line_of(row) + "\n" for row in rows))


# -- training -------------------------------------------------------------------------------------------------------------------


def train(folder: Path, config: Config, classifier: str, target: str, progress: Progress) -> Json:
    """Fit a router on the rows to teach, and save it. Where nothing can be learned from them, the result has a `reason`."""
    tiers, named = ",".join(config.names), cast(NamedTarget, target)
    shutil.rmtree(folder / TRAINED, ignore_errors=True)
    try:
        table = training_rows(read_all([folder / TEACH], tiers))
        check_costs_rise(table)
        check_teaches(table)
    except BadInput as error:
        return {"classifier": classifier, "rows": 0, "reason": str(error)}
    seen = read_seen([folder / TEACH], parse_tiers(tiers), table, config.escalation.holdback_tokens)
    trained = fit(table, classifier, progress)
    posterior, cascades = teach(trained, table, seen, [named]) if seen else (None, {})
    trained.manifest["cascades"] = {key: rule.to_dict() for key, rule in cascades.items()}
    save((folder / TRAINED).resolve(), trained.model, trained.manifest, posterior)
    rules = {name: Rule.from_dict(rule).describe(table.tiers) for name, rule in trained.manifest["rules"].items()}
    rules |= {name: rule.describe(table.tiers) for name, rule in cascades.items()}
    bold = target in cascades and cascades[target].quality_bound < QUALITY_OF[named]
    recovered = [float(value) for value in trained.manifest["recovered"]]
    return {"rows": len(table), "classifier": classifier, "rules": rules, "recovered": recovered, "bold": bold}


# -- certifying -----------------------------------------------------------------------------------------------------------------


def certify(folder: Path, config: Config, target: str, alpha: float, delta: float) -> Json:
    """Copy the trained router and write certificates into the copy, which is what is served. Says why where there is none."""
    shutil.rmtree(folder / ROUTER, ignore_errors=True)
    fresh = folder / f".{ROUTER}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(folder / TRAINED, fresh)
    found: dict[str, Json] = {}
    for holdback in (False, True) if config.escalation.mode == "holdback" else (False,):
        name = target + ct.HOLDBACK * holdback
        try:
            found[name] = certified(fresh, folder / CERTIFY, config, target, alpha, delta, holdback)
        except BadInput as error:
            found[name] = {"kind": "none", "reason": str(error), "rule": name}
    fresh.rename(folder / ROUTER)
    return {"certificates": found}


def certified(place: Path, rows: Path, config: Config, target: str, alpha: float, delta: float, holdback: bool) -> Json:
    """As `stepdown calibrate --alpha`. Raises BadInput where the artefact or the rows allow no certificate."""
    artefact = open_artefact(place)
    posterior, _ = judged_by(artefact, target, holdback)
    table, left = certifiable(artefact, measured_rows((rows,), None, artefact.tiers, None, None))
    judged, _ = rows_to_judge(artefact, table, answers_of((rows,), None, table, prefix=posterior.prefix))
    made: Mapping[str, Any] = {**to_record(ladder_fingerprints(config)), "sampling": {"temperature": 0.0}}
    result, region = promise(artefact, judged, target, alpha, delta, made, reach_of(artefact, table), holdback)
    rewrite_manifest(place, bind(artefact.manifest, target, result))
    digest = {"digest": ct.digest(result)} if isinstance(result, ct.Certificate) else {}
    return {**result.to_dict(), **digest, "text": certificate_text(result, region, left.lines())}
