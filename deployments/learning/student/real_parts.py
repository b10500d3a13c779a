"""A student's run with real models: rows from the ledger, training in a child, vLLM's engine in another, real routers."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from classifiers import Artifact, load
from deployments.learning.kept.completions import Chosen
from deployments.learning.live import weights
from deployments.learning.live.weights_used import prints_on
from deployments.learning.student import adopted, training
from deployments.learning.student.parts import DataMade, Gates, Learned, Lesson, Report, RouterAsked, RouterMade
from deployments.tiers.file_hashes import hashes
from deployments.tiers.fingerprints import to_record
from router.config import Config, VllmTier
from router.costs.prices import per_token
from router.distil.training_costs import training_usd
from router.errors import BadInput
from router.flywheel.served import Answer, Served

NAMES = ("tokens", "lora", "rank", "loss", "longest", "learning_rate")
"""wishes of a training that a run may have"""


class RealStudentParts:
    """config: of the served ladder, with the configured weights."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def store(self) -> Path:
        return weights.root(self.config)

    def tier(self, lesson: Lesson) -> VllmTier:
        """Raises BadInput."""
        found = next((tier for tier in self.config.tiers if tier.name == lesson.student.tier), None)
        if not isinstance(found, VllmTier):
            raise BadInput(
                f"the student {lesson.student.tier} is no tier on vllm; only such have weights that can be trained here"
            )
        return found

    # -- data, weights and their gates ---------------------------------------------------------------------------------

    def data(self, engine: Engine, lesson: Lesson, folder: Path, report: Report) -> DataMade:
        from deployments.distil import data_folder
        from deployments.learning.student.from_log import Wanted, student_data

        asked = lesson.student
        chosen = Chosen(metadata=dict(asked.metadata), since_s=lesson.since_s, until_s=lesson.began_s)
        wanted = Wanted(asked.tier, asked.teacher, chosen, lesson.seed, weights=lesson.parent)
        found, about = student_data(engine, self.config, wanted, lesson.began_s, plain(report), folder.parent / "asked")
        manifest = data_folder.write(folder, found, about)
        names = ("counts", "left_out", "licences", "keys", "notes")
        return DataMade(
            dataset=manifest["dataset_sha256"],
            trained_ids=tuple(row.id for row in found.train),
            other_ids=tuple(row.id for row in (*found.dev, *found.test)),
            until_s=max((row.at_s for row in found.train), default=lesson.since_s),
            licence=", ".join(found.licences),
            numbers={name: manifest[name] for name in names if name in manifest},
        )

    def train(self, lesson: Lesson, data: Path, folder: Path, report: Report) -> Learned:
        """Always from the configured weights, with the rows of all rounds: errors of one round do not add up in the next."""
        tier = self.tier(lesson)
        if (base := tier.model_source.folder) is None:
            raise BadInput(f"tier {tier.name}: its model is no folder on this machine; download it as safetensors")
        recipe = {name: value for name, value in lesson.student.recipe.items() if value is not None}
        wanted = {**recipe, "seed": lesson.seed, "parents": [lesson.parent] if lesson.parent else [], "base_name": tier.name}
        if (threads := few_threads(base)) is not None:
            wanted["threads"] = threads
        found = training.run(data, base, folder, wanted, report)
        digest = weights.keep(folder / "model", self.store)
        how = "all weights" if found["recipe"]["rank"] is None else f"LoRA of rank {found['recipe']['rank']}"
        told = {
            "dev": found["dev"],
            "parents": found["parents"],
            "trained_rows": found["rows"],
            "ended_early": found["ended_early"],
        }
        method = f"{found['recipe']['loss']}, {how}"
        return Learned(digest, self.files(digest), method, float(found["seconds"]), int(found["tokens"]), told)

    def adopted(self, lesson: Lesson) -> Learned:
        """Weights that were trained elsewhere. Raises BadInput where they were not adopted here, or for another tier."""
        about = adopted.read(lesson.student.adopt, self.store)
        if about.get("student") != lesson.student.tier:
            raise BadInput(f"the weights {lesson.student.adopt[:12]} were adopted for {about.get('student')}; give --student so")
        weights.find(lesson.student.adopt, self.store)
        digest = lesson.student.adopt
        return Learned(
            digest, self.files(digest), "adopted", numbers={"licence": about.get("licence", ""), "name": about.get("name")}
        )

    def files(self, digest: str) -> dict[str, str]:
        found = weights.files_of(self.store / digest)
        return dict(zip((file.name for file in found), hashes(found), strict=True))

    def gates(self, lesson: Lesson, data: Path, digest: str, folder: Path, report: Report) -> Gates:
        from deployments.distil import data_folder
        from deployments.distil.answering import spec_of
        from deployments.distil.comparing import evaluated

        tier, parent = self.tier(lesson), lesson.parent
        before = spec_of(tier, weights.find(parent, self.store) if parent else "", greedy=True)
        after = spec_of(tier, weights.find(digest, self.store), greedy=True)
        found = evaluated(data_folder.read(data), before, after, plain(report), folder)
        return Gates(tuple(shown(gate) for gate in found.gates), found.report["slices"])

    def answers(self, lesson: Lesson, rows: Sequence[Served], digest: str, folder: Path, report: Report) -> Mapping[str, Answer]:
        from deployments.distil.answering import answers, spec_of
        from deployments.distil.comparing import as_answer

        tier = self.tier(lesson)
        asked = [{"id": one.trace_id, "messages": one.messages, "tools": one.tools, "sampling": one.sampling} for one in rows]
        spec = spec_of(tier, weights.find(digest, self.store))
        found = answers(spec, asked, plain(report), folder)
        return {id: as_answer(tier.name, one, per_token(tier)) for id, one in found.items()}

    # -- the router ----------------------------------------------------------------------------------------------------

    def router(self, asked: RouterAsked, folder: Path) -> RouterMade:
        from router.flywheel.candidate import make_candidate  # late: they load scikit-learn
        from router.flywheel.ladder_gate import Bundle, ladder_gates
        from router.flywheel.rows import dataset

        lesson, names = asked.lesson, tuple(self.config.names)
        data = dataset.build(asked.rows, names, lesson.began_s, lesson.seed, lesson.since_certify_s)
        prints = to_record(prints_on(self.config, asked.weights, self.store))
        made = make_candidate(data, self.config, prints, folder, lesson.seed, asked.weights)
        numbers: dict[str, Any] = {
            "router_dataset": data.digest,
            "router_sides": data.counts,
            "notes": [*data.notes, *made.notes],
            "certificate": None if made.certificate is None else made.certificate.to_dict(),
        }
        method = str(made.manifest.get("classifier", ""))
        if made.why:
            return RouterMade(data.digest, tuple(data.trace_ids), method, Gates(()), numbers, made.why)
        incumbent = Bundle(artefact_of(lesson.incumbent, self.config), asked.before)
        found = ladder_gates(data, load(folder, names), incumbent, self.config, asked.paid)
        return RouterMade(data.digest, tuple(data.trace_ids), method, Gates(tuple(shown(gate) for gate in found)), numbers)

    # -- books ---------------------------------------------------------------------------------------------------------

    def training_usd(self, lesson: Lesson, learned: Learned) -> float:
        return training_usd(self.tier(lesson), learned.seconds, learned.tokens)

    def kept(self, digest: str) -> bool:
        return bool(weights.DIGEST.fullmatch(digest)) and (self.store / digest).is_dir()

    def forget(self, digest: str) -> None:
        if weights.DIGEST.fullmatch(digest):
            shutil.rmtree(self.store / digest, ignore_errors=True)


def plain(report: Report) -> Callable[[int, int], None]:
    """For who has nothing more to tell than how far it is."""
    return lambda done, of: report(done, of, {})


def shown(gate: Any) -> dict[str, Any]:
    """A gate as JSON."""
    return {"name": gate.name, "passed": bool(gate.passed), "why": gate.why, **gate.numbers}


def artefact_of(folder: Path | None, config: Config) -> Artifact | None:
    return None if folder is None else load(folder, tuple(config.names))


def few_threads(base: Path) -> int | None:
    """One thread is fastest for models of a few million parameters, and gives the same bits each time; None: as torch chooses."""
    from deployments.distil.base_models import size_of
    from router.distil.recipe import SMALL

    return 1 if size_of(base).parameters < SMALL else None
