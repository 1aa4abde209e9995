"""`python -m gateway.cli`: how `hilum serve` starts its parts."""

from gateway.cli.app import main

main()
