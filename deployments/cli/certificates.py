"""stepdown certificates: what audits have found of each, and lifting a retirement. Works whether or not the server is running."""

from datetime import UTC, datetime

import click
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from deployments.cli.shared import AS_JSON, aligned, show
from deployments.ledger import certificate_audits
from deployments.ledger.database import connect, driver_message, migrate, writing
from router.config import load_config
from router.errors import BadInput

CONFIG = click.option("--config", default="pocket", show_default=True, help="The configuration whose ledger keeps the counts.")
HEAD = ("DIGEST", "CERTIFICATE", "AUDITS", "DIFFERED", "LAST", "RETIRED")


@click.group()
def certificates() -> None:
    """List what audits have found of certificates, and lift a retirement."""


@certificates.command("list")
@CONFIG
@AS_JSON
def list_(config: str, as_json: bool) -> None:
    """List all certificates that were audited, of former artefacts too; /v1/status has the digests of those in use."""
    with ledger_of(config).connect() as connection:
        found = certificate_audits.listed(connection)
    lines = [
        (r["digest"], r["rule"], str(r["audits"]), str(r["errors"]), minute(r["changed_s"]), r["retired"] or "-") for r in found
    ]
    text = "\n".join(line.rstrip() for line in aligned([HEAD, *lines])) if found else "no certificate was audited yet"
    show(found, text, as_json)


@certificates.command()
@click.argument("digest")
@CONFIG
def lift(digest: str, config: str) -> None:
    """Forget what audits found of the certificate DIGEST, so that it is no longer retired and its alarm begins anew.

    Do so only where the audits were at fault. Where the traffic has changed, calibrate again instead: a new certificate is
    another one, and is not retired.
    """
    with writing(ledger_of(config)) as connection:
        if not certificate_audits.lift(connection, digest):
            raise BadInput(f"no audited certificate {digest!r}; `stepdown certificates list` shows their digests")
    click.echo("lifted; every ingress goes by it within seconds")


def minute(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M}"


def ledger_of(config: str) -> Engine:
    """The ledger's database, with its tables up to date. Raises BadConfig, and BadInput where it does not answer."""
    engine = connect(load_config(config).ledger)
    try:
        migrate(engine)
    except SQLAlchemyError as error:
        raise BadInput(f"the ledger's database does not answer: {driver_message(error)}; see ledger.url") from None
    return engine
