"""What the kernels are made of: products, norms and samples of a tile of rows.

Arithmetic is float32; tiles are rounded to the compute type where they are stored or multiplied.
What is beyond an edge is loaded as 0, and stays 0 or is not stored.

Legend: R rows, W columns of a tile, S variables and K classes, both padded to powers of two.
"""
# pyright: reportMissingImports=false, reportMissingParameterType=false

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether numpy computes (TRITON_INTERPRET=1), which multiplies no bfloat16."""
LEAST = 16
"""Shortest side of a matrix that tensor cores multiply."""


def padded(width: int, least: int = LEAST) -> int:
    """The power of two that holds this many columns."""
    return max(least, triton.next_power_of_2(width))


@triton.jit
def fetch(pointers, inside):
    """Load, 0 where not inside."""
    return tl.load(pointers, mask=inside, other=0.0)


@triton.jit
def put(pointers, values, inside):
    """Store, rounded to the type of the memory; return the values as they were stored."""
    rounded = values.to(pointers.dtype.element_ty)
    tl.store(pointers, rounded, mask=inside)
    return rounded


@triton.jit
def matmul(a, b, total):
    """total + a b: [R, N], [N, W], [R, W] float32. Products of float32 are not TF32."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")


# -- SiLU(norm(x) * gain) --------------------------------------------------------------------------


@triton.jit
def squares(x):
    """Sum of squares by row: [R, W] -> [R, 1] float32."""
    x = x.to(tl.float32)
    return tl.sum(x * x, 1, keep_dims=True)


@triton.jit
def inverse_rms(total, width: tl.constexpr, eps: tl.constexpr):
    """What RMSNorm multiplies by, of a sum of squares of `width` numbers: [R, 1]."""
    return tl.rsqrt(total / width + eps)


@triton.jit
def activate(x, inverse, gain):
    """SiLU(norm(x) * gain), where inverse is that of the root mean square: [R, W] float32."""
    scaled = x.to(tl.float32) * inverse * gain
    return scaled * tl.sigmoid(scaled)


@triton.jit
def activate_rows(x, gain, width: tl.constexpr, eps: tl.constexpr):
    """SiLU(norm(x) * gain) of a tile that holds whole rows of `width` numbers."""
    return activate(x, inverse_rms(squares(x), width, eps), gain)


@triton.jit
def through_gain(x, inverse, gain, dy):
    """norm(x) and the loss's gradient with respect to it, from that of SiLU(norm(x) * gain)."""
    normed = x.to(tl.float32) * inverse
    scaled = normed * gain
    share = tl.sigmoid(scaled)
    return normed, dy.to(tl.float32) * share * (1.0 + scaled * (1.0 - share)) * gain


@triton.jit
def through_rows(x, gain, dy, width: tl.constexpr, eps: tl.constexpr):
    """The loss's gradient with respect to x, of a tile that holds whole rows: [R, W] float32."""
    inverse = inverse_rms(squares(x), width, eps)
    normed, dnormed = through_gain(x, inverse, gain, dy)
    mean = tl.sum(dnormed * normed, 1, keep_dims=True) / width
    return inverse * (dnormed - normed * mean)


# -- gates and classes -----------------------------------------------------------------------------


@triton.jit
def tanh(x):
    """Hyperbolic tangent, within 1e-7; the interpreter has none."""
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def softmax(logits, classes: tl.constexpr):
    """Probabilities over the last axis, of which `classes` are real: [R, S, K]."""
    real = tl.arange(0, logits.shape[2])[None, None, :] < classes
    logits = tl.where(real, logits, float("-inf"))
    share = tl.exp(logits - tl.max(logits, 2, keep_dims=True))
    return share / tl.sum(share, 2, keep_dims=True)


@triton.jit
def unimix(probs, share: tl.constexpr, classes: tl.constexpr):
    """Mix with the uniform distribution of `classes`; padding stays 0: [R, S, K]."""
    real = tl.arange(0, probs.shape[2])[None, None, :] < classes
    return tl.where(real, (1.0 - share) * probs + share / classes, 0.0)


@triton.jit
def sample_class(probs, noise, classes: tl.constexpr):
    """Classes by the inverse CDF of uniform noise, or integer noise itself: [R, S, K], [R, S]."""
    if noise.dtype.is_floating():
        cdf = tl.cumsum(probs, 2)
        threshold = noise.to(tl.float32)[:, :, None] * tl.max(cdf, 2, keep_dims=True)
        below = tl.sum((cdf <= threshold).to(tl.int32), 2)
        return tl.minimum(below, classes - 1)
    return noise.to(tl.int32)


@triton.jit
def onehot(index, depth: tl.constexpr):
    """[R, S] -> [R, S, depth] float32."""
    return (index[:, :, None] == tl.arange(0, depth)[None, None, :]).to(tl.float32)
