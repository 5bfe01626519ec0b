"""The structures that the native functions read and write, as `src/structs.h` has them.

The library says where each field lies (`src/layout.cpp`); `check` compares it with what is
written here, since a field that lies elsewhere there would be silent corruption of memory.

Legend: N rows, D deter, Hd hidden, S stoch, K classes, F feat, E embed, G blocks, B batch, T time,
R rows of H imagined steps, C columns of several actions. Pointers are addresses of contiguous
float32 tensors, unless it says something else; whoever fills a structure holds the tensors.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

Fields = tuple[tuple[str, Any], ...]


def _ints(*names: str) -> Fields:
    return tuple((name, ctypes.c_int) for name in names)


def _floats(*names: str) -> Fields:
    return tuple((name, ctypes.c_float) for name in names)


def _pointers(*names: str) -> Fields:
    return tuple((name, ctypes.c_void_p) for name in names)


# -- layers ---------------------------------------------------------------------------------------


class DenseLayer(ctypes.Structure):
    """One layer of a stack: linear, RMSNorm, SiLU; the last one may be linear alone."""

    _fields_ = (
        *_ints("inputs", "outputs"),
        *_ints("bfloat16"),  # whether packed kernels are, see `library.pack`
        *_pointers("kernel", "transposed"),  # packed [inputs, outputs], [outputs, inputs]
        *_pointers("bias", "gain"),  # [outputs]; gain null: linear alone
        *_pointers("pre_norm"),  # [N, outputs] in front of the norm; null: not saved
        *_pointers("dkernel", "dbias", "dgain"),  # [inputs, outputs filled up], [outputs]
    )


class ConvLayer(ctypes.Structure):
    """A convolution, then pooling (encoder) or a pixel shuffle (decoder), RMSNorm and SiLU."""

    _fields_ = (
        *_ints("inputs", "outputs"),  # channels; outputs after the pixel shuffle
        *_pointers("kernel"),  # Winograd-transformed and packed, see `images.transform_kernel`
        *_pointers("transposed"),  # of inputs and outputs; null: no gradient of the inputs
        *_pointers("bias", "gain"),  # [outputs]; gain null: neither norm nor SiLU
        *_pointers("pre_norm"),  # [groups] maps in front of the norm; null: not saved
        *_pointers("winner"),  # a byte for each float of them: which pixel pooling took
        *_pointers("dkernel"),  # [pieces, points, inputs, outputs filled up]
        *_pointers("dbias", "dgain"),  # [pieces, outputs]
    )


# -- the recurrent state-space model ---------------------------------------------------------------


class Core(ctypes.Structure):
    """The parameters of a step."""

    _fields_ = (
        *_ints("deter", "hidden", "variables", "classes", "blocks"),
        *_ints("bfloat16"),  # whether packed kernels are, see `library.pack`
        *_floats("unimix"),  # share of the uniform distribution in z's
        *_pointers("w0", "b0", "g0"),  # packed [D, Hd]; [Hd]
        *_pointers("w1", "b1", "g1"),  # not packed [S * K, Hd]; [Hd]
        *_pointers("own", "common", "gain"),  # G packed [D/G, D/G]; packed [2 Hd, D]; [D]
        *_pointers("gru", "gru_bias"),  # G packed [D/G, 3 D/G]; [3 D], blocks first
        *_pointers("wo", "go"),  # packed [D, Hd]; [Hd]
        *_pointers("wl", "bl"),  # packed [Hd, S * K]; [S * K]
        # Packed transposes, read by the backward pass alone.
        *_pointers("w0_t", "w1_t", "own_t", "common_t", "gru_t", "wo_t", "wl_t"),
    )


class Activations(ctypes.Structure):
    """What steps compute on the way, one row for each (row, step): [B * T, *]."""

    _fields_ = (
        *_pointers("u0", "u1"),  # [Hd] in front of the norms of x0 and x1
        *_pointers("x"),  # [2 Hd] both
        *_pointers("v", "q"),  # [D] in front of the norm of q, and q
        *_pointers("gru"),  # [3 D]
        *_pointers("o", "p"),  # [Hd] in front of the norm of o, and SiLU(norm(o))
        *_ints("saved"),  # or 0: nothing is, and all pointers are null
    )


class Filtering(ctypes.Structure):
    """What goes into filtering, [B, T, *] but for the first state, and what comes out of it."""

    _fields_ = (
        ("steps", ctypes.c_long),
        *_pointers("deter0", "stoch0"),  # [B, D], [B, S * K]
        *_pointers("action", "token", "keep"),  # [D], [Hd], [] 0 where the state is cleared
        *_pointers("noise", "chosen"),  # [S] uniform, or int64 classes instead
        *_pointers("deter", "stoch", "logits"),  # results: [D], [S * K], [S * K]
    )


class FilteringGradients(ctypes.Structure):
    """The gradients from outside, and what is left for those of the kernels: [B, T, *]."""

    _fields_ = (
        *_pointers("deter", "stoch", "logits"),
        *_pointers("u0", "u1", "v", "gru", "o", "l"),  # as in `Activations`; l: of the logits
        *_pointers("g0", "g1", "gain", "go"),  # [pieces, *] what each piece of the batch adds
    )


# -- acting and imagination ------------------------------------------------------------------------


class Actor(ctypes.Structure):
    """The actor's stack, and the parts of an action, each with a distribution of its own."""

    _fields_ = (
        *_pointers("layers"),  # of `DenseLayer`: [.., F] -> parameters of all parts
        *_ints("count", "parts"),
        *_pointers("sizes", "discrete"),  # [parts] int
        *_floats("least", "most"),  # deviation of normal distributions
    )


class ActionPart(ctypes.Structure):
    """What the world model reads of actions: a stack, or all it can give if there is one class."""

    _fields_ = (
        *_pointers("layers"),  # of `DenseLayer`: [.., A] -> [.., D]
        *_ints("count", "classes"),
        *_pointers("table"),  # [classes + 1, D], at the end that of no action; or null
    )


class Acting(ctypes.Structure):
    """What goes into a step of acting, and what comes out of it."""

    _fields_ = (
        ("action", ActionPart),
        *_pointers("token"),  # one `DenseLayer`: [.., E] -> [.., Hd]
        *_pointers("embed", "deter", "stoch"),  # [N, E], [N, D], [N, S * K]
        *_pointers("last_action"),  # [N, C] float64, before the step
        *_pointers("reset"),  # [N] bool
        *_pointers("noise", "chosen"),  # [N, S] uniform, or int64 classes instead
        *_pointers("action_noise", "chosen_actions"),  # [N, C], or float64 actions instead
        *_pointers("new_deter", "new_stoch", "actions"),  # results: [N, D], [N, S * K], [N, C]
    )


class Head(ctypes.Structure):
    """What reads all imagined states [R, H + 1, F]."""

    _fields_ = (
        *_pointers("layers"),  # of `DenseLayer`
        *_ints("count"),
        *_pointers("y"),  # [R, H + 1, outputs]; null: not wanted
        *_pointers("bins", "mean"),  # [outputs], [R, H + 1] mean over them; null: not wanted
    )


class Imagination(ctypes.Structure):
    """What goes into imagination, and what comes out of it."""

    _fields_ = (
        ("action", ActionPart),
        *_pointers("prior"),  # of `DenseLayer`: [.., D] -> logits
        *_ints("prior_count"),
        ("horizon", ctypes.c_long),
        *_pointers("action_noise", "chosen_actions"),  # [R, H, C], or float64 actions instead
        *_pointers("noise", "chosen"),  # [R, H, S] uniform, or int64 classes instead
        *_pointers("feat", "actions"),  # [R, H + 1, D + S * K], step 0 given; [R, H, C]
        *_pointers("heads"),  # of `Head`, the first is the actor's
        *_ints("head_count"),
    )


# -- losses and the optimiser ----------------------------------------------------------------------


class Categorical(ctypes.Structure):
    """Variables side by side, with a share of the uniform distribution mixed in."""

    _fields_ = (*_ints("variables", "classes"), *_floats("unimix"))


class OptimTensor(ctypes.Structure):
    """A parameter tensor with its state."""

    _fields_ = (
        ("size", ctypes.c_long),
        *_pointers("gradient", "parameter", "rms", "momentum"),  # [size]
        *_floats("update_squares", "parameter_squares"),  # results: sums after the step
    )


class OptimSettings(ctypes.Structure):
    """The numbers of an update."""

    _fields_ = (
        *_floats("clip", "floor"),  # of the gradient's norm, relative to the parameter's
        *_floats("beta_rms", "beta_momentum"),
        *_floats("correct_rms", "correct_momentum"),  # 1 - beta^n
        *_floats("eps", "rate"),
    )


STRUCTURES: tuple[type[ctypes.Structure], ...] = (
    *(DenseLayer, ConvLayer, Core, Activations, Filtering, FilteringGradients),
    *(Actor, ActionPart, Acting, Head, Imagination, Categorical, OptimTensor, OptimSettings),
)

# -- the check -------------------------------------------------------------------------------------

KINDS: dict[Any, str] = {
    ctypes.c_int: "int",
    ctypes.c_long: "long",
    ctypes.c_float: "float",
    ctypes.c_void_p: "pointer",
}


def check(library: ctypes.CDLL, structures: Sequence[type[ctypes.Structure]] = STRUCTURES) -> None:
    """Raise TypeError unless the library, once bound, has the same structures and fields."""
    theirs = _layouts(library)
    ours = {structure.__name__: structure for structure in structures}
    if theirs.keys() != ours.keys():
        unpaired = ", ".join(sorted(theirs.keys() ^ ours.keys()))
        raise TypeError(f"only one of Python and C++ has these structures: {unpaired}")
    for name, structure in ours.items():
        problem = _difference(_layout(structure), theirs[name])
        if problem:
            raise TypeError(f"{name} in Python and in C++ differ: {problem}")


def _layouts(library: ctypes.CDLL) -> dict[str, list[str]]:
    """Of each structure in the library its fields, and at the end its size, in words."""
    layouts = {}
    for line in library.structure_layouts().decode().splitlines():
        title, _, fields = line.partition(": ")
        name, size = title.split()
        layouts[name] = [_in_words(*field.split()) for field in fields.split(", ")]
        layouts[name].append(f"{size} bytes in all")
    return layouts


def _layout(structure: type[ctypes.Structure]) -> list[str]:
    """The same of a structure here."""
    fields = [(str(field[0]), field[1]) for field in structure._fields_]
    words = []
    for name, kind in fields:
        place = getattr(structure, name)
        words.append(_in_words(name, KINDS.get(kind, kind.__name__), place.offset, place.size))
    return [*words, f"{ctypes.sizeof(structure)} bytes in all"]


def _in_words(name: str, kind: str, offset: int | str, size: int | str) -> str:
    return f"{name} is {kind} at {offset}, {size} bytes"


def _difference(ours: list[str], theirs: list[str]) -> str:
    """The first one, or nothing."""
    pairs = zip(ours, theirs, strict=False)  # the sizes at the end differ if one has more fields
    return next((f"{here}; in C++ {there}" for here, there in pairs if here != there), "")
