"""A trained classifier on disk: a folder of model.skops and a manifest.json that says what the model fits.

If the answers were known in training, answers.skops holds the posterior. Both files hold only plain arrays, numbers and
texts, so they load with an empty trust list. Their bytes depend on their content alone: members are stored in order, with
a fixed date, and named by position instead of by memory address.
"""

import hashlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray

import classifiers.models.registry  # noqa: F401  (defines every class that an artefact may hold)
from classifiers.arrays import Floats
from classifiers.choose import Rule
from classifiers.costs import constant_costs
from classifiers.errors import BadArtifact, ClassifierError
from classifiers.inputs import check_features, check_heads, check_names, input_names
from classifiers.light import import_blocked
from classifiers.models.base import BATCH, Classifier, sigmoid
from classifiers.replies.posterior import Posterior, restore
from classifiers.sufficiency import Sufficiency, prepare
from classifiers.text.view import View, check_extra

# skops imports all of scikit-learn, one shim of which imports PyTorch: a second and 200 MB of every deciding process.
with import_blocked("sklearn.externals.array_api_compat.torch"):
    import skops.io

FORMAT = 5
READABLE = (3, 4, 5)  # format 3 has one mean cost a tier; 3 and 4 do not name their inputs
MODEL = "model.skops"
MANIFEST = "manifest.json"
SHAPES = {"tiers": list, "costs": list, "rules": dict, "cascades": dict, "certificates": dict}  # of the manifest's entries
ANSWERS = "answers.skops"
TRUSTED_TYPES: list[str] = []  # none beyond those that skops trusts by itself


@dataclass(frozen=True, slots=True)
class Guess:
    """An artefact's estimates for n prompts, tiers cheapest first.

    p: (n, n_tiers) chances in [0, 1]. cost: (n, n_tiers) guessed costs, the top tier's mean in training = 1.
    unfamiliar: (n,) from 0, like the training prompts, to 1, unlike any of them.
    """

    p: Floats
    cost: Floats
    unfamiliar: Floats


@dataclass(frozen=True)
class Artifact:
    """A loaded artefact. Requests are judged by `guess_one`; `rules` are the targets behind `auto`."""

    model: Sufficiency
    manifest: dict[str, Any]
    tiers: list[str]  # cheapest first
    costs: Floats  # (n_tiers,) mean cost of a training request, the top tier's = 1
    rules: dict[str, Rule] = field(default_factory=dict)
    posterior: Posterior | None = None  # None: the answers were not known in training
    cascades: dict[str, Rule] = field(default_factory=dict)  # rules of kind `cascade`; empty without a posterior

    def guess_one(self, prompt: str) -> tuple[Floats, Floats, float]:
        """p (n_tiers,), cost (n_tiers,) and unfamiliarity of one prompt; see Guess. Give p and cost to `choose`."""
        logits, cost, strange = self.model.assess_one(prompt)
        return sigmoid(logits), cost, strange

    @property
    def slow(self) -> bool:
        """Whether a pretrained model reads each prompt, which takes 50 ms or more: see `read_ahead`."""
        return bool(self.model.inner_.needs)

    def read_ahead(self, prompt: str) -> None:
        """Do the slow part of `guess_one`, which is then fast for this prompt. Meant for a thread beside the event loop."""
        prepare(self.model.inner_, View([prompt]))

    def guess(self, prompts: Sequence[str]) -> Guess:
        """As `guess_one`, for many prompts."""
        groups = [prompts[i : i + BATCH] for i in range(0, len(prompts), BATCH)]
        parts = [self.model.assess(View(group)) for group in groups]
        if not parts:
            return Guess(np.zeros((0, len(self.tiers))), np.zeros((0, len(self.tiers))), np.zeros(0))
        logits, cost, strange = (np.concatenate(side) for side in zip(*parts, strict=True))
        return Guess(sigmoid(logits), cost, strange)

    def guess_honestly(self, prompts: Sequence[str]) -> tuple[Guess, int]:
        """A guess with out-of-fold chances for the prompts that were trained on, and how many those are."""
        found = self.guess(prompts)
        p, recalled = self.model.honest(prompts, found.p)
        return replace(found, p=p), recalled

    def trained_on(self, prompts: Sequence[str]) -> NDArray[np.bool_]:
        """(n,) which prompts were trained on; the model keeps eight bytes of each prompt's hash."""
        return self.model.places(prompts)[1]

    def predict_one(self, prompt: str) -> Floats:
        """Public API, see docs/training.md: the (n_tiers,) chances of one prompt, to be used with the mean `costs`."""
        return self.guess_one(prompt)[0]


def _canonical(data: bytes) -> bytes:
    """The same skops file with addresses replaced by positions and dates by a constant."""
    source = zipfile.ZipFile(io.BytesIO(data))
    schema = source.read("schema.json").decode()
    order: dict[str, str] = {}
    for found in re.findall(r'"__id__": (\d+)|"(\d+)\.np[yz]"', schema):
        order.setdefault(found[0] or found[1], str(len(order)))
    schema = re.sub(r'("__id__": )(\d+)', lambda m: m[1] + order[m[2]], schema)
    schema = re.sub(r'"(\d+)(\.np[yz])"', lambda m: f'"{order[m[1]]}{m[2]}"', schema)
    members = {f"{order[Path(n).stem]}{Path(n).suffix}": source.read(n) for n in source.namelist() if n != "schema.json"}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as target:
        for name, content in sorted({**members, "schema.json": schema.encode()}.items()):
            target.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED, 6)
    return out.getvalue()


def save(folder: str | Path, model: Sufficiency, manifest: Mapping[str, Any], posterior: Posterior | None = None) -> None:
    """Write the artefact. An existing one is replaced only when the new one is complete.

    manifest: needs "tiers" (names, cheapest first), "costs" and "rules"; other entries are kept.
    """
    folder = Path(folder)
    data = _canonical(skops.io.dumps(model.state()))
    full = {
        **{key: value for key, value in manifest.items() if key != "answers_sha256"},
        "format": FORMAT,
        "scikit_learn": sklearn.__version__,
        "inputs": input_names(posterior),
        "model_sha256": hashlib.sha256(data).hexdigest(),
    }
    answers = None if posterior is None else _canonical(skops.io.dumps(posterior.state()))
    if answers is not None:
        full["answers_sha256"] = hashlib.sha256(answers).hexdigest()
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    (fresh / MODEL).write_bytes(data)
    if answers is not None:
        (fresh / ANSWERS).write_bytes(answers)
    (fresh / MANIFEST).write_text(manifest_text(full), "utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    fresh.rename(folder)


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """The manifest as JSON, with sorted keys: the same content gives the same bytes."""
    return json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest, checked for format and scikit-learn version."""
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BadArtifact(f"{folder}: no {MANIFEST} there; make an artefact with `stepdown train`") from None
    except (ValueError, RecursionError) as error:
        raise BadArtifact(f"{path}: not JSON ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("format") not in READABLE:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise BadArtifact(f"{path}: format {found!r}, this version reads {READABLE}; train again")
    for name, kind in SHAPES.items():
        if not isinstance(manifest.get(name, kind()), kind):
            raise BadArtifact(f"{path}: {name} is {manifest[name]!r:.60}, expected a {kind.__name__}; train again")
    trained, here = str(manifest.get("scikit_learn")), sklearn.__version__
    if trained.split(".")[:2] != here.split(".")[:2]:
        raise BadArtifact(f"{path}: trained with scikit-learn {trained}, here is {here}; train again")
    return manifest


def load(folder: str | Path, tiers: Sequence[str] | None = None) -> Artifact:
    """Read an artefact. Raises BadArtifact for another format, version, hash or ladder (`tiers`), and for a damaged one."""
    try:
        return _load(folder, tiers)
    except ClassifierError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise BadArtifact(f"{folder}: damaged ({type(error).__name__}: {error}); train again") from error


def _load(folder: str | Path, tiers: Sequence[str] | None) -> Artifact:
    manifest = read_manifest(folder)
    if tiers is not None and list(tiers) != manifest["tiers"]:
        raise BadArtifact(f"{folder}: trained for tiers {manifest['tiers']}, asked for {list(tiers)}; train again")
    if len(manifest["tiers"]) != len(manifest["costs"]) or not manifest["tiers"]:
        raise BadArtifact(f"{folder}: {len(manifest['tiers'])} tiers and {len(manifest['costs'])} costs; train again")
    check_names(str(Path(folder) / MANIFEST), manifest)
    path = Path(folder) / MODEL
    data = _checked(path, manifest["model_sha256"])
    model = rebuild(skops.io.loads(data, trusted=TRUSTED_TYPES))
    if not isinstance(model, Sufficiency):
        raise BadArtifact(f"{path}: holds a bare {type(model).__name__}, expected a calibrated classifier; train again")
    if manifest["format"] == 3:
        model.restore({"cost_": constant_costs(np.array(manifest["costs"], dtype=np.float64))})
    check_features(str(path), model.cost_)
    for name in model.inner_.needs:
        check_extra(name)  # now, not at the first prompt
    return Artifact(
        model=model,
        manifest=manifest,
        tiers=list(manifest["tiers"]),
        costs=np.array(manifest["costs"], dtype=np.float64),
        rules={name: Rule.from_dict(rule) for name, rule in manifest["rules"].items()},
        posterior=_posterior(Path(folder), manifest),
        cascades={name: Rule.from_dict(rule) for name, rule in manifest.get("cascades", {}).items()},
    )


def _checked(path: Path, sha256: str) -> bytes:
    """The file's bytes, if their hash is the manifest's."""
    if not path.exists():
        raise BadArtifact(f"{path.parent}: no {path.name} there; train again")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise BadArtifact(f"{path}: sha256 is {found}, the manifest says {sha256}; train again")
    return data


def _posterior(folder: Path, manifest: Mapping[str, Any]) -> Posterior | None:
    if "answers_sha256" not in manifest:
        return None
    found = restore(skops.io.loads(_checked(folder / ANSWERS, manifest["answers_sha256"]), trusted=TRUSTED_TYPES))
    check_heads(str(folder / ANSWERS), found)
    return found


def _subclasses(base: type[Classifier]) -> Iterator[type[Classifier]]:
    for child in base.__subclasses__():
        yield child
        yield from _subclasses(child)


# The classes that an artefact may hold, by name: this package's classifiers. The file cannot add any.
LOADABLE = {child.__name__: child for child in _subclasses(Classifier) if child.__module__.startswith("classifiers.")}


def rebuild(state: dict[str, Any]) -> Classifier:
    """The classifier that `Classifier.state` described; the classifiers that it holds are rebuilt first."""
    if state.get("class") not in LOADABLE:
        raise BadArtifact(f"unknown classifier {state.get('class')!r}; this version knows {sorted(LOADABLE)}")
    learned = {
        key: rebuild(value) if isinstance(value, dict) and "class" in value else value for key, value in state["learned"].items()
    }
    return LOADABLE[state["class"]](**state["params"]).restore(learned)
