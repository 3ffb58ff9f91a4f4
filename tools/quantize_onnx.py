"""Script for 'ssd-triton quantize': an INT8 detector, and the measurements that it needs."""

import sys

try:
    from ssd_triton.commands import main
except ModuleNotFoundError as error:
    sys.exit(f"{sys.argv[0]}: error: {error}: type 'source .venv/bin/activate' (after 'make setup')")

if __name__ == "__main__":
    main("quantize")
