"""Script for 'ssd-triton view': pictures, a camera, drives and the server's state in a browser."""

import sys

try:
    from ssd_triton.commands import main
except ModuleNotFoundError as error:
    sys.exit(f"{sys.argv[0]}: error: {error}: type 'source .venv/bin/activate' (after 'make setup')")

if __name__ == "__main__":
    main("view")
