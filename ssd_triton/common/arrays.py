"""Array types by dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int32]
UInt8Array = npt.NDArray[np.uint8]


def shortest(values: FloatArray) -> list[Any]:
    """Convert FP32 values to the shortest decimals that parse back to the same FP32 values."""
    decimals: list[Any] = values.astype(str).astype(np.float64).tolist()
    return decimals
