"""Words for arrays, wherever they are mentioned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Float32Array", "FloatArray", "IntArray"]

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64]
