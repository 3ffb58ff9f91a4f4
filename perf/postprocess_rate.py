"""The same as 'ssd-triton postprocess-rate'."""

import sys

try:
    from ssd_triton.commands import main
except ModuleNotFoundError:
    sys.exit(f"{sys.argv[0]}: error: ssd_triton is not installed: type 'source .venv/bin/activate' (after 'make setup')")

if __name__ == "__main__":
    main("postprocess-rate")
