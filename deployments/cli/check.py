"""stepdown check: find everything that would stop the start, without starting."""

import click

from router.config import load_config


@click.command()
@click.argument("config", default="pocket")
def check(config: str) -> None:
    """Check CONFIG (a YAML file, or a shipped ladder by name) without starting anything."""
    from deployments.tiers.check import check as check_all  # reads the artefact, with scikit-learn

    loaded = load_config(config)
    check_all(loaded)
    artefact = loaded.routing.artefact or "none, so auto is the largest tier"
    services = f"; services {', '.join(loaded.service_names)}" if loaded.services else ""
    click.echo(f"{config}: fine; tiers {' < '.join(loaded.names)}{services}; router {artefact}")
