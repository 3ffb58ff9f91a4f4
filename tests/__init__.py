"""Tests of the project, in folders named like the parts of the package; those in `served` need a running server."""

import os

# Two test processes share the cores: threads of PyTorch that wait for each other would spin, and take them from the
# other process. OpenMP reads this when PyTorch is imported, which conftest.py does.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
