"""Script for 'ssd-triton attack': hostile requests of all kinds beside good ones."""

import sys

try:
    from ssd_triton.commands import main
except ModuleNotFoundError as error:
    sys.exit(f"{sys.argv[0]}: error: {error}: type 'source .venv/bin/activate' (after 'make setup')")

if __name__ == "__main__":
    main("attack")
