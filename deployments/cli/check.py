"""stepdown check: find everything that would stop the start, without starting."""

import click

from deployments.serve.shipped_models import make_missing
from router.config import Config, load_config


@click.command()
@click.argument("config", default="pocket")
@click.option("--gpus", type=click.IntRange(1, 1024), help="GPUs of the machine: also look whether every replica has a place.")
@click.option("--ask", is_flag=True, help="Also ask each remote tier what it can do, which costs some tokens.")
def check(config: str, gpus: int | None, ask: bool) -> None:
    """Check CONFIG (a YAML file, or a shipped ladder by name) without starting anything."""
    from deployments.tiers.check import check as check_all  # reads the artefact, with scikit-learn

    loaded = load_config(config)
    make_missing(loaded)
    check_all(loaded)
    artefact = loaded.routing.artefact or "none, so auto is the largest tier"
    services = f"; services {', '.join(loaded.service_names)}" if loaded.services else ""
    click.echo(f"{config}: fine; tiers {' < '.join(loaded.names)}{services}; router {artefact}")
    if gpus:
        click.echo(cards_of(loaded, gpus))
    if ask:
        from deployments.tiers.ask_remote import asked_all

        click.echo(asked_all(loaded))


def cards_of(config: Config, gpus: int) -> str:
    """Which replica gets which GPU. Raises BadConfig."""
    from deployments.replicas.card.cards import needs, placed
    from router.engine_settings import VllmReplicas

    its = [one for one in (*config.tiers, *config.services) if isinstance(one, VllmReplicas)]
    lines = [f"  {need.name} {need.share:g} of GPU {', '.join(map(str, cards))}" for need, cards in placed(needs(its), gpus)]
    return "\n".join(lines) or "  no tier needs a GPU"
