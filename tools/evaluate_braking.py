"""Script for 'ssd-triton evaluate-braking': UN R152 and Euro NCAP scenarios with braking in the loop."""

import sys

try:
    from ssd_triton.commands import main
except ModuleNotFoundError as error:
    sys.exit(f"{sys.argv[0]}: error: {error}: type 'source .venv/bin/activate' (after 'make setup')")

if __name__ == "__main__":
    main("evaluate-braking")
