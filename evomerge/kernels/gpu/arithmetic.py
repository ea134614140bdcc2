"""Helpers of the Triton kernel, named like those of the CPU kernel."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "as_float",
    "divide",
    "encode_bfloat16",
    "encode_float16",
    "encode_float32",
    "f32",
    "hash24",
    "high_word_salt",
    "inverse_span",
    "magnitude",
    "sum_of_block",
    "where",
]


@triton.jit
def f32(value: tl.constexpr):
    """See the function of this name in ``kernels.cpu.arithmetic``."""
    return tl.full((), value, tl.float32)


@triton.jit
def where(condition, yes, no):
    """See the function of this name in ``kernels.cpu.arithmetic``."""
    return tl.where(condition, yes, no)


@triton.jit
def magnitude(x):
    """See the function of this name in ``kernels.cpu.arithmetic``."""
    return tl.abs(x)


@triton.jit
def divide(x, y):
    """See the function of this name in ``kernels.cpu.arithmetic``."""
    return tl.div_rn(x, y)  # the plain operator is off by up to two units in the last place


@triton.jit
def sum_of_block(x):
    """Sum of a block."""
    return tl.reduce(x, 0, _plus)


@triton.jit
def _plus(x, y):
    return x + y


@triton.jit
def as_float(x):
    """Widen to float32."""
    return x.to(tl.float32)


@triton.jit
def inverse_span(low, high):
    """See the function of this name in ``kernels.cpu.arithmetic``."""
    span = tl.where(high > low, high - low, 1.0)
    return tl.div_rn(tl.full(span.shape, 1.0, tl.float32), span)


@triton.jit
def encode_float32(x):
    """See the function of this name in ``kernels.cpu.arithmetic``."""
    return x


@triton.jit
def encode_float16(x):
    """See the function of this name in ``kernels.cpu.arithmetic``."""
    return x.to(tl.float16)


@triton.jit
def encode_bfloat16(x):
    """See the function of this name in ``kernels.cpu.arithmetic``."""
    # Rounds to nearest, ties to even, on the bits: the interpreter's own cast truncates.
    bits = x.to(tl.uint32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    is_number = x == x  # noqa: PLR0124 - NaN is not
    return tl.where(is_number, rounded, 0x7FC0).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def high_word_salt(high_key, index):
    """See the function of this name in ``kernels.cpu.arithmetic``."""
    return (high_key + (index >> 32) * 0x9E3779B1).to(tl.uint32)


@triton.jit
def hash24(index, low_key, salt):
    """See the function of this name in ``kernels.cpu.arithmetic``."""
    return _mix((_mix(index) ^ low_key) + salt) >> 8


@triton.jit
def _mix(x):
    """See the function of this name in ``kernels.cpu.arithmetic``."""
    x = (x ^ (x >> 16)) * 0x21F0AAAD
    x = (x ^ (x >> 15)) * 0x735A2D97
    return x ^ (x >> 15)
