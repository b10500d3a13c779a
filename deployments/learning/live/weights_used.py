"""Which weights the tiers run on: what an artefact names, the settings and fingerprints of a ladder on them.

A learned artefact was trained and certified on the weights that its manifest names (`weights`: tier -> digest), so whoever uses
it runs these. An artefact that names none belongs to the configured weights.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from deployments.learning.live import model_store
from deployments.learning.live.weights import DIGEST, find
from deployments.tiers.fingerprints import ladder_fingerprints, model
from router.config import Config, VllmTier
from router.errors import BadInput
from router.flywheel.variants import SHORT, Versions

KEY = "weights"  # of an artefact's manifest
Find = Callable[[str, Path], Path]
MOST_NAME = 64 - SHORT - 1  # letters of a tier's name: the columns `tier` have to hold a variant's name too


def weights_of(artefact: str | Path | Mapping[str, Any]) -> dict[str, str]:
    """tier -> digest of the weights that an artefact was made for. artefact: its folder, or its manifest. Raises BadInput."""
    manifest = artefact if isinstance(artefact, Mapping) else manifest_in(Path(artefact))
    found = manifest.get(KEY, {})
    good = isinstance(found, Mapping) and all(isinstance(digest, str) and DIGEST.fullmatch(digest) for digest in found.values())
    if not good:
        raise BadInput(f"{KEY} of an artefact's manifest: found {found!r:.200}, expected tiers' names and digests of weights")
    return {str(tier): digest for tier, digest in found.items()}


def manifest_in(folder: Path) -> dict[str, Any]:
    """Raises BadInput."""
    path = folder / model_store.MANIFEST
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); expected the folder of a trained router") from None
    except (ValueError, TypeError, RecursionError):
        raise BadInput(f"{path}: no JSON object; train again") from None


def settings_on(config: Config, weights: Mapping[str, str], store: Path) -> Config:
    """The configuration with these weights behind its tiers; everything else as it is.

    Raises BadInput where a tier cannot have learned weights, or its weights are missing or changed.
    """
    return placed(config, weights, store, find)


def in_store(digest: str, store: Path) -> Path:
    return store / digest


def placed(config: Config, weights: Mapping[str, str], store: Path, find: Find = in_store) -> Config:
    """The same with folders that `find` gives for (digest, store), by default without a look at them. Raises BadInput."""
    if not weights:
        return config
    named = {tier.name: tier for tier in config.tiers}
    if unknown := sorted(weights.keys() - named.keys()):
        raise BadInput(f"weights are named for {unknown[0]!r}, which is no tier; expected some of {', '.join(named)}")
    tiers = [on(tier, find(weights[tier.name], store)) if tier.name in weights else tier for tier in config.tiers]
    return config.model_copy(update={"tiers": tiers})


def on(tier: Any, folder: Path) -> VllmTier:
    """A tier's settings with the weights of a folder. Raises BadInput."""
    if not isinstance(tier, VllmTier):
        raise BadInput(f"tier {tier.name} runs on {tier.engine}; only a tier on vllm can have weights that were learned")
    if len(tier.name) > MOST_NAME:
        raise BadInput(f"tier {tier.name} has a name of {len(tier.name)} letters; with learned weights at most {MOST_NAME}")
    return tier.model_copy(update={"source": str(folder)})


def prints_on(config: Config, weights: Mapping[str, str], store: Path) -> dict[str, Any]:
    """`ladder_fingerprints` of the configuration on these weights. Raises BadInput."""
    return ladder_fingerprints(settings_on(config, weights, store))


def versions_of(connection: Connection, config: Config, configured: Mapping[str, str], store: Path) -> Versions:
    """All weights whose answers can be told apart. configured: tier -> fingerprint of its configured model.

    Weights that are not in the store are unknown: nobody can say by which fingerprint they answered.
    """
    tiers = {tier.name: tier for tier in config.tiers if isinstance(tier, VllmTier)}
    learned: dict[str, dict[str, str]] = {}
    for row in model_store.weights_listed(connection):
        folder = store / row.digest
        if row.tier in tiers and folder.is_dir():
            learned.setdefault(row.tier, {})[row.digest] = model(tiers[row.tier].model_copy(update={"source": str(folder)}))
    return Versions.of(configured, learned)
