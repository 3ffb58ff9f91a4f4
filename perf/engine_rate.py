"""Script for 'ssd-triton engine-rate': stages of the one process, and the one that limits it."""

import sys

try:
    from ssd_triton.commands import main
except ModuleNotFoundError as error:
    sys.exit(f"{sys.argv[0]}: error: {error}: type 'source .venv/bin/activate' (after 'make setup')")

if __name__ == "__main__":
    main("engine-rate")
