"""`python -m geard` is `geard`."""

from geard.cli import main

main()
