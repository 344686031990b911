"""``python -m burr_otel.cli``."""

from burr_otel.cli.app import main

main()
