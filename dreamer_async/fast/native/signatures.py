"""What the native functions are called with: their parameters, by name, and what they return.

`bind` gives each function of the library its signature, so that a call with another number of
arguments is a TypeError, and one with another kind of them a ctypes.ArgumentError, instead of
numbers from anywhere in memory.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

from dreamer_async.fast.native.structs import (
    Acting,
    Activations,
    Actor,
    Categorical,
    ConvLayer,
    Core,
    DenseLayer,
    Filtering,
    FilteringGradients,
    Imagination,
    OptimSettings,
    OptimTensor,
)


class Memory:
    """Address of numbers, a `ctypes.c_void_p`; a plain integer is not taken for one."""

    @classmethod
    def from_param(cls, value: object) -> ctypes.c_void_p:
        """What ctypes passes on."""
        if not isinstance(value, ctypes.c_void_p):
            raise TypeError(f"{value!r} is no address; see library.pointer")
        return value


class Signature(NamedTuple):
    """A function's parameters in their order, and the type of what it returns."""

    parameters: dict[str, Any]
    result: Any = None


INT, LONG = ctypes.c_int, ctypes.c_long


def _takes(**parameters: Any) -> Signature:
    """Of a function that returns nothing; a structure stands for a pointer to some of them."""
    return Signature(
        {
            name: ctypes.POINTER(kind) if issubclass(kind, ctypes.Structure) else kind
            for name, kind in parameters.items()
        }
    )


def _of_maps(*maps: str) -> Signature:
    """Of a function of feature maps."""
    pointers = dict.fromkeys(maps, Memory)
    return _takes(C=INT, rows=LONG, width=LONG, **pointers, pieces=LONG, threads=INT)


_MAPS = {
    "pool_forward": _of_maps("large", "scale", "pooled", "winner", "small"),
    "pool_backward": _of_maps("pooled", "winner", "scale", "dsmall", "dlarge", "dscale"),
    "shuffle_forward": _of_maps("small", "scale", "large"),
    "shuffle_backward": _of_maps("small", "scale", "dlarge", "dsmall", "dscale"),
}
FUNCTIONS = {
    # dense.cpp
    "dense_forward": _takes(
        layers=DenseLayer, count=INT, rows=LONG, x=Memory, ldx=LONG, y=Memory, ldy=LONG, threads=INT
    ),
    "dense_backward": _takes(
        layers=DenseLayer, count=INT, rows=LONG, x=Memory, ldx=LONG, dy=Memory, dx=Memory,
        sums=Memory, size=LONG, pieces=LONG, threads=INT,
    ),
    "pack_kernels": _takes(
        bfloat16=INT, count=LONG, rows=LONG, columns=LONG, kernels=Memory, apart=LONG, row=LONG,
        column=LONG, packed=Memory,
    ),
    "panel_width": Signature({}, INT),
    "permit_bfloat16": Signature({"tiles": INT}, INT),
    # encoder.cpp, decoder.cpp
    "images_of_group": Signature({}, INT),
    "floats_of_plane": Signature({"height": INT, "width": INT}, LONG),
    "encode_images": _takes(
        layers=ConvLayer, count=INT, taps=INT, height=INT, width=INT, strips=INT, images=LONG,
        bytes=Memory, features=Memory, threads=INT,
    ),
    "encode_images_backward": _takes(
        layers=ConvLayer, count=INT, taps=INT, height=INT, width=INT, images=LONG,
        bytes=Memory, dfeatures=Memory, pieces=LONG, threads=INT,
    ),
    "decode_images": _takes(
        layers=ConvLayer, count=INT, height=INT, width=INT, images=LONG,
        features=Memory, out=Memory, threads=INT,
    ),
    "decode_images_backward": _takes(
        layers=ConvLayer, count=INT, height=INT, width=INT, images=LONG,
        features=Memory, out=Memory, dimages=Memory, dfeatures=Memory, pieces=LONG, threads=INT,
    ),
    "image_loss": _takes(
        images=LONG, size=LONG, image=Memory, bytes=Memory, loss=Memory, threads=INT
    ),
    "image_loss_backward": _takes(
        images=LONG, size=LONG, image=Memory, bytes=Memory, dloss=Memory, dimage=Memory,
        threads=INT,
    ),
    # feature_maps.cpp
    **{f"{name}_{dtype}": maps for name, maps in _MAPS.items() for dtype in ("float", "bf16")},
    # filtering.cpp, imagination.cpp, acting.cpp
    "observe_forward": _takes(
        core=Core, filtering=Filtering, activations=Activations, rows=LONG, pieces=LONG,
        threads=INT,
    ),
    "observe_backward": _takes(
        core=Core, filtering=Filtering, activations=Activations, gradients=FilteringGradients,
        rows=LONG, pieces=LONG, threads=INT,
    ),
    "imagine_forward": _takes(
        core=Core, actor=Actor, imagination=Imagination, rows=LONG, threads=INT
    ),
    "act_forward": _takes(core=Core, actor=Actor, acting=Acting, rows=LONG),
    # kl.cpp, twohot.cpp, optim.cpp
    "kl_forward": _takes(
        c=Categorical, rows=LONG, posterior=Memory, prior=Memory, kl=Memory, entropy=Memory,
        prior_entropy=Memory, threads=INT,
    ),
    "kl_backward": _takes(
        c=Categorical, rows=LONG, posterior=Memory, prior=Memory, drep=Memory, ddyn=Memory,
        dposterior=Memory, dprior=Memory, threads=INT,
    ),
    "twohot_mean": _takes(
        M=INT, bins=Memory, rows=LONG, logits=Memory, mean=Memory, threads=INT
    ),
    "twohot_loss": _takes(
        M=INT, bins=Memory, J=INT, weights=Memory, rows=LONG, logits=Memory, targets=Memory,
        loss=Memory, threads=INT,
    ),
    "twohot_loss_backward": _takes(
        M=INT, bins=Memory, J=INT, weights=Memory, rows=LONG, logits=Memory, targets=Memory,
        dloss=Memory, dlogits=Memory, threads=INT,
    ),
    "optimiser_step": _takes(
        tensors=OptimTensor, count=LONG, settings=OptimSettings, threads=INT
    ),
    # layout.cpp
    "structure_layouts": Signature({}, ctypes.c_char_p),
}  # fmt: skip
"""Everything that the library exports; `tests/fast/test_native_boundary.py` has C++ beside it."""


def bind(library: ctypes.CDLL) -> None:
    """Give all functions of a library their signatures."""
    for name, (parameters, result) in FUNCTIONS.items():
        prototype = ctypes.CFUNCTYPE(result, *parameters.values())
        # Named parameters: without them ctypes would pass on arguments beyond the last one.
        named = tuple((1, parameter) for parameter in parameters)
        setattr(library, name, prototype((name, library), named))
