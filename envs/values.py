"""Values of one Python environment: taken as what they clearly are, or refused with their place.

Nothing is cast or reshaped silently. What is clear: numpy scalars, arrays without axes or with one
element where one number is meant, booleans of any kind, whole numbers written as reals, and axes
of length 1 that came or went. Whatever changes a value or its order is a BrokenRule, which says
which key and element it was and what its space says.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs.observed.reader import Letters, ObsReader, path_name

Array = NDArray[Any]

_NUMBERS = "biuf"
"""Kinds of numpy types that are real numbers, booleans among them."""
_SQUARE = float(np.finfo(np.float32).max) ** 2
"""A sum of squares up to this has no term whose root does not fit float32."""


class BrokenRule(ValueError):
    """An environment does not behave like one of gymnasium; the message says it all."""


def observation(reader: ObsReader, obs: Any) -> Array:
    """Read one key of one observation: [*spec.shape]; BrokenRule where it is not of its space."""
    return reader.convert(_checked(reader, obs, ())[None])[0]


def read_one(readers: Sequence[ObsReader], obs: Any) -> dict[str, Array]:
    """Read an observation as an environment gives it: {key: [*spec.shape]}.

    BrokenRule, a ValueError, names the key, the element and what its space says.
    """
    return {reader.name: observation(reader, obs) for reader in readers}


def read_batch(readers: Sequence[ObsReader], obs: Any) -> dict[str, Array]:
    """Read N observations, nested as one is with a leading axis in every leaf (of texts: a
    sequence of N), as gymnasium's vector environments give them: {key: [N, *spec.shape]}.

    BrokenRule as for one, and where leaves differ in N.
    """
    lead = (_rows(_leaf(readers[0], obs)),)
    return {reader.name: reader.convert(_checked(reader, obs, lead)) for reader in readers}


def _rows(leaf: Any) -> int:
    """Length of the leading axis."""
    if isinstance(leaf, tuple | list) or (isinstance(leaf, np.ndarray) and leaf.ndim):
        if not len(leaf):
            raise BrokenRule("a batch of observations is empty")
        return len(leaf)
    raise BrokenRule(f"observations of a batch need a leading axis, which {kind(leaf)} lacks")


def _checked(reader: ObsReader, obs: Any, lead: tuple[int, ...]) -> Array:
    """The valid value of a leaf: [*lead, *shape]."""
    where = " ".join(["observation", *filter(None, [path_name(reader.path)])])
    given = _leaf(reader, obs)
    if reader.letters is not None:
        return _texts(where, given, reader.letters, lead)
    value = _shaped(where, _numeric(where, given), (*lead, *reader.shape))
    if reader.spec.dtype == "int32":
        _check_classes(where, value, reader)
    elif reader.spec.dtype == "float32":
        _check_reals(where, value)
    elif reader.picture is not None and (fault := reader.picture.fault(value)):
        raise BrokenRule(f"{where} {fault}")
    return value


def _texts(where: str, given: Any, letters: Letters, lead: tuple[int, ...]) -> Array:
    """Texts of an alphabet: objects [*lead].

    That one is shorter than its space says is nothing that could be mistaken: it ends earlier.
    """
    if lead and (isinstance(given, str) or np.shape(given) != lead):
        raise BrokenRule(f"{where} must be {lead[0]} texts, not {kind(given)}")
    texts = list(given) if lead else [given]
    for row, text in enumerate(texts):
        _check_text(where + _index((row,) * len(lead)), text, letters)
    values = np.empty(len(texts), object)
    values[:] = [str(text) for text in texts]
    return values.reshape(lead)


def _check_text(where: str, text: Any, letters: Letters) -> None:
    if isinstance(text, np.ndarray) and text.shape == ():
        text = text.item()
    if not isinstance(text, str):
        raise BrokenRule(f"{where} must be a text, not {kind(text)}")
    if len(text) > letters.longest:
        length, longest = len(text), letters.longest
        raise BrokenRule(f"{where} has {length} characters, but its space says {longest} at most")
    for place, letter in enumerate(text):
        if letter not in letters.classes:
            raise BrokenRule(
                f"{where}[{place}] is {letter!r}, which is no character of its space's alphabet"
            )


def number(what: str, value: Any) -> float:
    """Take what is one number that fits float32, such as a reward."""
    if isinstance(value, float | int):
        real = value
    else:
        array = np.asarray(value)
        real = array.item() if array.size == 1 else None
    if isinstance(real, str) or not isinstance(real, numbers.Number):
        raise BrokenRule(f"{what} must be a number, not {kind(value)}")
    try:
        array = np.array(float(real))  # pyright: ignore[reportArgumentType]  Decimal is one, too
    except OverflowError:
        raise BrokenRule(f"{what} is {_short(real)}, which does not fit float32") from None
    except (TypeError, ValueError):
        raise BrokenRule(f"{what} must be a number, not {kind(value)}") from None
    _check_reals(what, array)
    return float(array)


def flag(what: str, value: Any) -> bool:
    """Take what is True or False; what stands for nothing could hide that an episode is over."""
    if value is True or value is False:
        return value
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in _NUMBERS or array.item() not in (0, 1):
        raise BrokenRule(f"{what} must be True or False, not {kind(value)}")
    return bool(array.item())


def kind(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, Mapping):
        return f"a dictionary with {sorted(map(str, value))}"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {list(value.shape)}"
    return f"{_short(value)} ({type(value).__name__})"


def _short(value: Any) -> str:
    try:
        return f"{value!r:.40}"
    except ValueError:  # a whole number of thousands of digits, or something that holds one
        whole = isinstance(value, int)
        return f"a number of {value.bit_length()} bits" if whole else f"a {type(value).__name__}"


def _leaf(reader: ObsReader, obs: Any) -> Any:
    """Follow the keys of a reader through nested dictionaries, and its positions through tuples."""
    if obs is None:
        raise BrokenRule("the observation is None")
    value = obs
    for key in reader.path:
        found = (
            key in value
            if isinstance(value, Mapping)
            else isinstance(key, int) and _is_row(value) and key < len(value)
        )
        if not found:
            raise BrokenRule(
                f"the observation has no {path_name(reader.path)!r}, which its space names; "
                f"it is {kind(obs)}"
            )
        value = value[key]
    return value


def _is_row(value: Any) -> bool:
    """Whether this is what a Tuple space takes for a tuple."""
    return isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _numeric(where: str, value: Any) -> Array:
    """An array of real numbers; of nothing else."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # rows of different lengths, what numpy cannot read
        array = np.array(None)
    if array.dtype.kind not in _NUMBERS:
        raise BrokenRule(f"{where} must be numbers, not {kind(value)}")
    return array


def _shaped(where: str, value: Array, shape: tuple[int, ...]) -> Array:
    """A value in the shape of its space: equal but for axes of length 1, which order nothing."""
    if value.shape == shape:
        return value
    if [n for n in value.shape if n != 1] != [n for n in shape if n != 1]:
        raise BrokenRule(f"{where} has shape {list(value.shape)}, but its space says {list(shape)}")
    return value.reshape(shape)


def _check_classes(where: str, value: Array, reader: ObsReader) -> None:
    """Raise BrokenRule unless every number is one of the classes of its place."""
    first, last = reader.first, reader.last
    good = (value >= first) & (value <= last)
    if value.dtype.kind == "f":
        good &= value == np.floor(value)
    if not good.all():
        place = _place(~good)
        low, high = (np.broadcast_to(each, value.shape)[place] for each in (first, last))
        raise BrokenRule(
            f"{where}{_index(place)} is {value[place]}, which is no class of {low} to {high}"
        )


def _check_reals(where: str, value: Array) -> None:
    """Raise BrokenRule unless every number is finite and stays so as a float32."""
    if value.dtype.kind != "f":
        return  # the largest whole number of numpy is far below the largest float32
    flat = value.reshape(-1)
    if value.dtype.itemsize >= 4 and float(np.vdot(flat, flat)) <= _SQUARE:
        return
    with np.errstate(over="ignore"):
        fits = np.isfinite(value.astype(np.float32))
    if not fits.all():
        place = _place(~fits)
        bad = value[place]
        why = "does not fit float32" if np.isfinite(bad) else "is not finite"
        raise BrokenRule(f"{where}{_index(place)} is {bad:g}, which {why}")


def _place(bad: Array) -> tuple[int, ...]:
    """Index of the first True."""
    return tuple(int(i) for i in np.argwhere(bad)[0])


def _index(place: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, place))}]" if place else ""
