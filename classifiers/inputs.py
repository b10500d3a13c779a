"""The names of the columns that an artefact's coefficients belong to: coefficients for other columns are refused.

The name of a group of signs or words includes a checksum of its contents: the same name with other words is another column.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from classifiers.errors import BadArtifact
from classifiers.replies.posterior import Posterior
from classifiers.replies.signals import AGREEMENT, SIGNALS, design_width
from classifiers.text.features import FEATURES, SIGN_GROUPS, WORD_GROUPS

GROUPS: Mapping[str, str] = {**SIGN_GROUPS, **WORD_GROUPS}
FEATURE_NAMES = [f"{name}#{zlib.crc32(GROUPS[name].encode()):08x}" if name in GROUPS else name for name in FEATURES]
KINDS = {"features": FEATURE_NAMES, "signals": [*SIGNALS], "agreement": [*AGREEMENT]}


def input_names(posterior: Posterior | None) -> dict[str, list[str]]:
    """The columns that this version's classifiers use, and the posterior's if there is one; for the manifest."""
    return {kind: names for kind, names in KINDS.items() if posterior is not None or kind == "features"}


def check_names(where: str, manifest: Mapping[str, Any]) -> None:
    """Raises BadArtifact for an artefact made for other columns. Formats before 5 name none; only their sizes are checked."""
    if manifest["format"] < 5:
        return
    found = manifest.get("inputs")
    wanted = input_names(None) if "answers_sha256" not in manifest else KINDS
    if not isinstance(found, Mapping) or set(found) != set(wanted):
        raise BadArtifact(f"{where}: its inputs are {found!r:.80}, expected names of {', '.join(wanted)}; train again")
    for kind, names in wanted.items():
        if found[kind] != names:
            raise BadArtifact(f"{where}: for other {kind} than this version's: {difference(found[kind], names)}; train again")


def difference(found: Sequence[str], expected: Sequence[str], shown: int = 3) -> str:
    """The names that only one of the lists has, or that only the order differs; at most `shown` of each, for a message."""
    extra = [name for name in found if name not in expected]
    missing = [name for name in expected if name not in found]
    if not extra and not missing:
        return f"the same {len(expected)} in another order"
    return ", ".join(
        f"{word} {', '.join(map(str, names[:shown])) or 'none'}{' ...' * (len(names) > shown)}"
        for word, names in (("found", extra), ("expected", missing))
    )


def check_features(where: str, cost: Mapping[str, Any]) -> None:
    """Raises BadArtifact for a model made for another number of features. cost: see costs.py; every model has one."""
    found = len(cost["coef"])
    if found != len(FEATURES):
        raise BadArtifact(f"{where}: made for {found} features, this version has {len(FEATURES)}; train again")


def check_heads(where: str, posterior: Posterior) -> None:
    """Raises BadArtifact for heads of another width than their `design`."""
    for name, head in posterior.heads.items():
        view, _, tiers = name.partition(":")
        found, expected = head.coef.shape[0], design_width(view, posterior.n_tiers, tiers.count(",") + 1)
        if found != expected:
            raise BadArtifact(f"{where}: head {name} takes {found} numbers, this version gives it {expected}; train again")
