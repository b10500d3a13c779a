"""`python -m router` is `stepdown`."""

from router.cli import main

main()
