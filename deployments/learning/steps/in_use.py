"""Which artefact decides now, where its files are, and whether its promise holds, by the ledger's database."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from deployments.learning.live import bundles
from deployments.learning.live.model_store import digest_of
from deployments.ledger.schema import certificates as audited
from router.config import Config
from router.decide import certificates
from router.decide.certificates import HOLDBACK, Certificate

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class InUse:
    """By which artefact every ingress decides."""

    digest: str
    """empty: by none, `auto` is the largest tier"""
    configured: str
    """digest of the artefact that the configuration names; empty: none"""


def in_use(connection: Connection, config: Config) -> InUse:
    """Raises BadInput where the configured artefact cannot be read."""
    configured = digest_of(config.routing.artefact) if config.routing.artefact else ""
    promoted = bundles.read(connection).get("promoted")
    learned = promoted.digest if promoted is not None and promoted.over == configured else ""
    return InUse(learned or configured, configured)


def certificate_digests(manifest: Mapping[str, Any], target: str) -> tuple[str, ...]:
    """Of the promises behind a target: for whole answers and for streams."""
    found = (certificates.find_certificate(manifest, name) for name in (target, target + HOLDBACK))
    return tuple(certificates.digest(one) for one in found if isinstance(one, Certificate))


def manifest_of(folder: Path | None) -> dict[str, Any]:
    """Empty where there is no artefact."""
    return {} if folder is None else dict(json.loads((folder / MANIFEST).read_text("utf-8")))


def retired(connection: Connection, digests: Sequence[str]) -> tuple[str, float] | None:
    """Why and when audits retired one of these certificates; None: they stand."""
    found = select(audited.c.retired, audited.c.changed_s).where(audited.c.digest.in_(list(digests)), audited.c.retired != "")
    row = connection.execute(found.order_by(audited.c.changed_s).limit(1)).first()
    return None if row is None else (row[0], row[1])
