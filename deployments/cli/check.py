"""stepdown check: everything that would stop the start, without starting."""

import click


@click.command()
@click.argument("config", default="pocket")
def check(config: str) -> None:
    """Check CONFIG (a YAML file, or a shipped ladder by name) without starting anything."""
    from deployments.app import check as check_all
    from router.config import load_config

    loaded = load_config(config)
    check_all(loaded)
    ladder = " < ".join(loaded.names)
    artefact = loaded.routing.artefact or "none, so auto is the largest tier"
    click.echo(f"{config}: fine; tiers {ladder}; router {artefact}")
