"""Factors between units."""

from __future__ import annotations

KMH_PER_MPS = 3.6
"""One metre per second in kilometres per hour."""
