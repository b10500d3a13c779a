"""`python -m deployments` is `stepdown`."""

from deployments.cli.main import main

main()
