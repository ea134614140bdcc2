"""Helpers of the compiled loop: 16-bit floats, the mask's hash, selection.

Everything is written so that the loop around it has no branch and vectorises. numba widens integer
arithmetic to 64 bits; each step is cut back to 32, which halves the cost.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = [
    "add",
    "as_float",
    "decode_bfloat16",
    "decode_float16",
    "decode_float32",
    "divide",
    "encode_bfloat16",
    "encode_float16",
    "encode_float32",
    "f32",
    "hash24",
    "high_word_salt",
    "inverse_span",
    "magnitude",
    "where",
]

f32 = np.float32
_u32 = np.uint32


@intrinsic
def _bits(typing: Any, value: Any) -> Any:
    """Reinterpret a float32 as uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@intrinsic
def _float(typing: Any, bits: Any) -> Any:
    """Reinterpret a uint32 as float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic
def add(typing: Any, total: Any, term: Any) -> Any:
    """Add a term to a sum over a loop, whose order the compiler may choose, so as to vectorise."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments, flags=("reassoc",))

    return types.float32(types.float32, types.float32), generate


@intrinsic
def where(typing: Any, condition: Any, yes: Any, no: Any) -> Any:
    """Select one of two values that are both at hand; never a branch, which would not vectorise."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return types.float32(types.boolean, types.float32, types.float32), generate


@njit
def magnitude(x):
    """|x|."""
    return abs(x)


@njit
def divide(x, y):
    """Quotient, correctly rounded."""
    return x / y


@njit
def as_float(x):
    """An integer below 2**24 as float32."""
    return f32(x)


@njit
def inverse_span(low, high):
    """1 / (high − low), or 1 for an empty span."""
    return f32(1.0) / (high - low) if high > low else f32(1.0)


@njit
def decode_float32(x):
    """float32 as it is."""
    return x


@njit
def encode_float32(x):
    """float32 as it is."""
    return x


@njit
def decode_bfloat16(half):
    """Upper half of a float32."""
    return _float(_u32(_u32(half) << _u32(16)))


@njit
def encode_bfloat16(x):
    """Round to nearest, ties to even; NaN stays NaN."""
    bits = _bits(x)
    odd = _u32(_u32(bits >> _u32(16)) & _u32(1))
    rounded = _u32(_u32(bits + _u32(odd + _u32(0x7FFF))) >> _u32(16))
    return np.uint16(_u32(0x7FC0) if x != x else rounded)  # noqa: PLR0124 - is NaN


@njit
def decode_float16(half):
    """Move exponent and mantissa in place, then multiply to correct the exponent's bias.

    The multiplication is exact and also turns subnormal halves into ordinary numbers.
    """
    sign = _u32(_u32(_u32(half) & _u32(0x8000)) << _u32(16))
    shifted = _u32(_u32(_u32(half) & _u32(0x7FFF)) << _u32(13))
    finite = _bits(_float(shifted) * f32(2.0**112))
    special = _u32(shifted | _u32(0x7F800000))
    return _float(_u32(sign | (special if shifted >= _u32(0x0F800000) else finite)))


@njit
def encode_float16(x):
    """Round to nearest, ties to even; overflow to infinity; NaN stays NaN."""
    bits = _bits(x)
    sign = _u32(_u32(bits >> _u32(16)) & _u32(0x8000))
    size = _u32(bits & _u32(0x7FFFFFFF))
    odd = _u32(_u32(size >> _u32(13)) & _u32(1))
    normal = _u32(_u32(size - _u32(0x38000000) + _u32(odd + _u32(0xFFF))) >> _u32(13))
    # Adding 0.5 leaves a subnormal half in the lowest bits, rounded by the addition itself.
    subnormal = _u32(_bits(_float(size) + f32(0.5)) - _u32(0x3F000000))
    half = subnormal if size < _u32(0x38800000) else normal
    half = _u32(0x7C00) if size >= _u32(0x47800000) else half
    half = _u32(0x7E00) if size > _u32(0x7F800000) else half
    return np.uint16(_u32(sign | half))


@njit
def high_word_salt(high_key, index):
    """What the high words of key and element index add to the hash."""
    return _u32(high_key + _u32(_u32(index >> 32) * _u32(0x9E3779B1)))


@njit
def hash24(index, low_key, salt):
    """``masks.hash24`` for one low word of an index."""
    return _u32(_mix(_u32(_u32(_mix(index) ^ low_key) + salt)) >> _u32(8))


@njit
def _mix(x):
    x = _u32(_u32(x ^ _u32(x >> _u32(16))) * _u32(0x21F0AAAD))
    x = _u32(_u32(x ^ _u32(x >> _u32(15))) * _u32(0x735A2D97))
    return _u32(x ^ _u32(x >> _u32(15)))
