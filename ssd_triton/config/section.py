"""What the sections of the configuration have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0)]
Score = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]

_UNITS = {
    "deg_per_mps2": "°/(m/s²)",
    "per_s": "/s",
    "mps2": "m/s²",
    "mps": "m/s",
    "kmh": "km/h",
    "fps": "frames/s",
    "hz": "Hz",
    "deg": "°",
    "mib": "MiB",
    "px": "px",
    "ms": "ms",
    "m": "m",
    "s": "s",
}
"""Units by the suffix of a key, longer suffixes first."""


class Section(BaseModel):
    """A part of the configuration: unknown keys, NaN and infinity are errors, and nothing changes once it is loaded.

    The docstring of a key is its description in help texts and in the reference.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )


def unit_of(key: str) -> str:
    """The unit of a key, by its suffix: ``s`` for ``client.timeout_s``; empty where the key has none."""
    name = key.rpartition(".")[2]
    return next((unit for suffix, unit in _UNITS.items() if f"_{name}".endswith(f"_{suffix}")), "")
