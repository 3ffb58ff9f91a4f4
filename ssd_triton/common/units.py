"""Factors between units."""

from __future__ import annotations

KMH_PER_MPS = 3.6
"""Kilometres per hour in a metre per second."""
