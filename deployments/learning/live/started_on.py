"""On which weights the main application starts: those of the artefact that decides, so that one engine a tier is enough.

Whatever is wrong with them stops no start: the tiers start on the configured weights then, and the artefact is not used until
its weights are there.
"""

import logging
from collections.abc import Mapping

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import SQLAlchemyError

from deployments.learning.live import bundles, weights_used
from deployments.learning.live.model_store import digest_of
from deployments.learning.live.routers_in_use import wanted
from deployments.learning.live.variants_wanted import Configured, weights_behind
from deployments.learning.live.weights import root
from deployments.learning.live.weights_used import settings_on, weights_of
from deployments.ledger.database import connect, driver_message
from deployments.ledger.schema import bundles as slots
from router.config import Config, VllmTier
from router.errors import BadConfig, BadInput

log = logging.getLogger("stepdown")


def configured(config: Config) -> Configured:
    """The configured artefact. Raises BadConfig where it cannot be read."""
    folder = config.routing.artefact
    try:
        return Configured(digest_of(folder), weights_of(folder)) if folder else Configured()
    except BadInput as error:
        raise BadConfig(f"routing.artefact: {error}") from None


def weights(config: Config) -> dict[str, str]:
    """tier -> digest of the weights that it is to start on; a tier that is missing starts on the configured ones. Never raises.

    config: with an absolute ledger.
    """
    if not any(isinstance(tier, VllmTier) for tier in config.tiers):
        return {}
    try:
        engine = connect(config.ledger)
        try:
            with engine.connect() as connection:
                decides = deciding(connection, config)
        finally:
            engine.dispose()
        found = {tier: digest for tier, digest in decides.items() if tier not in hosts(config)}
        settings_on(config, found, root(config))
        return found
    except (BadInput, BadConfig) as error:
        log.error("the tiers start on their configured weights: %s", error)
    except SQLAlchemyError as error:
        log.error("the tiers start on their configured weights: the ledger's database does not answer: %s", driver_message(error))
    return {}


def hosts(config: Config) -> set[str]:
    """Tiers whose engine other tiers' adapters run on. Those were trained for the configured weights, so it keeps them."""
    return {host for tier, host in dict(getattr(config, "hosts", {})).items() if host != tier}


def deciding(connection: Connection, config: Config) -> dict[str, str]:
    """Weights of the artefact that decides for everybody, by the ledger. Raises BadInput, BadConfig, the database's errors."""
    own = configured(config)
    if not inspect(connection).has_table(slots.name):  # nothing was served yet
        return dict(own.weights)
    active = wanted(bundles.read(connection), own.artefact).active
    return dict(weights_behind(connection, active, own, {}))


def placed(config: Config, weights: Mapping[str, str]) -> Config:
    """The configuration with these weights, which were found whole when the tiers started. Raises BadInput."""
    return weights_used.placed(config, weights, root(config)) if weights else config
