"""Between Python and C++: no structure, field, function or parameter differs unnoticed."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from dreamer_async.fast.native import build, signatures, structs
from dreamer_async.fast.native.library import pointer
from dreamer_async.fast.native.load import load
from dreamer_async.fast.native.signatures import FUNCTIONS, Memory, Signature


@pytest.fixture
def library() -> ctypes.CDLL:
    found = load()
    assert found.library is not None, found.problem
    return found.library


# -- structures -----------------------------------------------------------------------------------


def changed(structure: type[ctypes.Structure], fields: list[tuple[str, Any]]) -> Any:
    """The structures, of which one has other fields."""
    other = type(structure.__name__, (ctypes.Structure,), {"_fields_": fields})
    return [other if known is structure else known for known in structs.STRUCTURES]


def fields_of(structure: type[ctypes.Structure]) -> list[tuple[str, Any]]:
    return [(str(field[0]), field[1]) for field in structure._fields_]


def test_the_structures_of_the_library_are_ours(library: ctypes.CDLL) -> None:
    structs.check(library)
    assert len(library.structure_layouts().splitlines()) == len(structs.STRUCTURES) == 14


@pytest.mark.parametrize("structure", structs.STRUCTURES)
def test_swapped_fields_are_refused(
    library: ctypes.CDLL, structure: type[ctypes.Structure]
) -> None:
    """Any two neighbours, also of one kind, where size and offsets stay what they are."""
    fields = fields_of(structure)
    for i in range(len(fields) - 1):
        swapped = [*fields[:i], fields[i + 1], fields[i], *fields[i + 2 :]]
        said = f"{structure.__name__} in Python and in C\\+\\+ differ: {fields[i + 1][0]} is"
        with pytest.raises(TypeError, match=said):
            structs.check(library, changed(structure, swapped))


@pytest.mark.parametrize("structure", structs.STRUCTURES)
def test_fields_of_another_kind_are_refused(
    library: ctypes.CDLL, structure: type[ctypes.Structure]
) -> None:
    """Also where the size is the same, as of int and float."""
    fields = fields_of(structure)
    for i, (name, kind) in enumerate(fields):
        for other in {ctypes.c_int, ctypes.c_float, ctypes.c_long, ctypes.c_void_p} - {kind}:
            given = [*fields[:i], (name, other), *fields[i + 1 :]]
            with pytest.raises(TypeError, match=rf"{structure.__name__} .*differ: {name} is"):
                structs.check(library, changed(structure, given))


@pytest.mark.parametrize("structure", structs.STRUCTURES)
def test_missing_and_surplus_fields_are_refused(
    library: ctypes.CDLL, structure: type[ctypes.Structure]
) -> None:
    fields = fields_of(structure)
    for given in (fields[:-1], [*fields, ("more", ctypes.c_int)]):
        with pytest.raises(TypeError, match=f"{structure.__name__} in Python and in C\\+\\+"):
            structs.check(library, changed(structure, given))


def test_structures_that_only_one_side_has_are_refused(library: ctypes.CDLL) -> None:
    more = type("Stranger", (ctypes.Structure,), {"_fields_": [("x", ctypes.c_int)]})
    for given, name in ((structs.STRUCTURES[1:], "DenseLayer"),
                        ([*structs.STRUCTURES, more], "Stranger")):  # fmt: skip
        with pytest.raises(TypeError, match=f"only one of Python and C.*: {name}$"):
            structs.check(library, given)


def test_a_library_with_other_structures_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is it left aside: whoever changes one side only must notice."""
    load()
    first, second, *rest = fields_of(structs.Core)
    check, given = structs.check, changed(structs.Core, [second, first, *rest])
    monkeypatch.setattr(structs, "check", lambda library: check(library, given))
    load.cache_clear()
    with pytest.raises(TypeError, match="Core in Python and in C"):
        load()


def test_every_structure_of_python_is_in_the_list() -> None:
    defined = {
        value
        for value in vars(structs).values()
        if isinstance(value, type) and issubclass(value, ctypes.Structure)
    }
    assert defined == set(structs.STRUCTURES)


# -- functions ------------------------------------------------------------------------------------

KINDS = {"int": ctypes.c_int, "long": ctypes.c_long, "float": ctypes.c_float}
RESULTS = {**KINDS, "void": None, "const char *": ctypes.c_char_p}
BY_NAME = {structure.__name__: structure for structure in structs.STRUCTURES}


def kind_of(declared: str) -> Any:
    """What Python gives for a parameter of C++, `const float *x` without its name."""
    if not declared.endswith("*"):
        return KINDS[declared]
    to = declared.removesuffix("*").removeprefix("const ").strip()
    return ctypes.POINTER(BY_NAME[to]) if to in BY_NAME else Memory


def declared_functions(source: str) -> Iterator[tuple[str, Signature]]:
    """The functions that a source exports, those of its EXPORT_ALL included."""
    macro = re.search(r"#define EXPORT_ALL\(T\)((?:.*\\\n)*.*\n)", source)
    if macro:
        for kind in re.findall(r"^EXPORT_ALL\((\w+)\)", source, re.MULTILINE):
            text = macro[1].replace("\\\n", "\n").replace("##T", kind)
            yield from declared_functions(re.sub(r"\bT\b", kind, text))
        source = source.replace(macro[0], "")
    for result, name, inside in re.findall(r'extern "C" ([\w *]*?)(\w+)\(([^)]*)\)', source):
        parameters = {}
        for parameter in filter(None, inside.split(",")):
            kind, parameter_name = re.fullmatch(r"\s*(.*?)(\w+)\s*", parameter, re.DOTALL).groups()  # type: ignore[union-attr]
            parameters[parameter_name] = kind_of(" ".join(kind.split()))
        yield name, Signature(parameters, RESULTS[result.strip()])


def all_declared() -> dict[str, Signature]:
    sources = [path.read_text() for path in sorted(build.FOLDER.rglob("*.cpp"))]
    return {name: found for source in sources for name, found in declared_functions(source)}


def differences(ours: dict[str, Signature], theirs: dict[str, Signature]) -> set[str]:
    """Functions that differ in parameters, their names, order or kinds, or in what they return."""
    unpaired = ours.keys() ^ theirs.keys()
    as_list = lambda signature: (list(signature.parameters.items()), signature.result)  # noqa: E731
    return unpaired | {
        name for name in ours.keys() & theirs.keys() if as_list(ours[name]) != as_list(theirs[name])
    }


def test_python_knows_every_function_as_it_is_declared() -> None:
    declared = all_declared()
    assert len(declared) == 32
    assert differences(FUNCTIONS, declared) == set()


def test_the_library_exports_these_functions_and_no_others(library: ctypes.CDLL) -> None:
    command = ["nm", "--dynamic", "--defined-only", "--format=just-symbols", library._name]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert {name for name in found if not name.startswith("_")} == FUNCTIONS.keys()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("long rows, const float *x, long ldx", "int rows, const float *x, long ldx"),
        ("long rows, const float *x, long ldx", "const float *x, long rows, long ldx"),
        ("const float *dy, float *dx", "float *dx, const float *dy"),
        ("long size, long pieces", "long pieces, long size"),
        ("float *sums, long size", "float *sums"),
        ("long rows, const float *x, long ldx", "long rows, float *x, int more, long ldx"),
        ("DenseLayer *layers", "ConvLayer *layers"),
        ('extern "C" int panel_width', 'extern "C" long panel_width'),
        ('extern "C" int panel_width', 'extern "C" int width_of_panel'),
    ],
)
def test_a_function_that_changes_in_cpp_alone_is_found(before: str, after: str) -> None:
    source = (build.FOLDER / "dense.cpp").read_text()
    as_it_is, as_changed = (
        dict(declared_functions(re.sub(r"\s+", " ", text).replace(given, to)))
        for text, given, to in ((source, "", ""), (source, before, after))
    )
    ours = {name: FUNCTIONS[name] for name in as_it_is}
    assert differences(ours, as_it_is) == set()
    assert differences(ours, as_changed)


def test_a_function_that_changes_in_all_types_of_maps_is_found() -> None:
    source = (build.FOLDER / "images" / "feature_maps.cpp").read_text()
    as_it_is = dict(declared_functions(source))
    assert len(as_it_is) == 8
    ours = {name: FUNCTIONS[name] for name in as_it_is}
    changed_source = source.replace(
        "const T *dlarge, T *dsmall,  ", "T *dsmall, const T *dlarge,  "
    )
    assert changed_source != source
    found = differences(ours, dict(declared_functions(changed_source)))
    assert found == {"shuffle_backward_float", "shuffle_backward_bf16"}


def test_a_signature_that_is_wrong_in_python_is_found() -> None:
    right = FUNCTIONS["imagine_forward"]
    for parameters in (
        {**right.parameters, "rows": ctypes.c_int},
        {**right.parameters, "core": ctypes.POINTER(structs.Actor)},
        dict(reversed(right.parameters.items())),
    ):
        wrong = {**FUNCTIONS, "imagine_forward": Signature(parameters, right.result)}
        assert differences(wrong, all_declared()) == {"imagine_forward"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), TypeError),
        ((1, 2), TypeError),
        ((1, 2, 3, 4, 5, 6, 7), TypeError),
        ((1.0, 2, 3, 4, 5, 6), ctypes.ArgumentError),
        (("M", "bins", "rows", "logits", "mean", "threads"), None),
        (("M", "bins", "rows", "logits", "mean", "threads", "threads"), TypeError),
        (("M", "bins", "rows", "logits", "mean"), TypeError),
        (("bins", "M", "rows", "logits", "mean", "threads"), ctypes.ArgumentError),
        (("M", "rows", "rows", "logits", "mean", "threads"), ctypes.ArgumentError),
        (("M", "bins", "logits", "rows", "mean", "threads"), ctypes.ArgumentError),
    ],
)
def test_calls_with_other_arguments_fail_before_they_begin(
    library: ctypes.CDLL, arguments: tuple[Any, ...], error: type[Exception] | None
) -> None:
    bins, logits, mean = torch.tensor([-1.0, 0.0, 1.0]), torch.zeros(2, 3), torch.ones(2)
    named = {"M": 3, "rows": 2, "threads": 1, "bins": pointer(bins), "logits": pointer(logits),
             "mean": pointer(mean)}  # fmt: skip
    given = [named.get(x, x) for x in arguments]
    if error is None:
        library.twohot_mean(*given)
        assert mean.eq(0).all()
    else:
        with pytest.raises(error):
            library.twohot_mean(*given)
        assert mean.eq(1).all()


def test_another_structure_is_no_argument(library: ctypes.CDLL) -> None:
    tensors, settings = (structs.OptimTensor * 1)(), structs.OptimSettings()
    library.optimiser_step(tensors, 0, ctypes.byref(settings), 1)
    for other in (ctypes.byref(structs.Categorical()), (structs.Core * 2)(), pointer(None), 1):
        with pytest.raises(ctypes.ArgumentError):
            library.optimiser_step(tensors, 0, other, 1)
        with pytest.raises(ctypes.ArgumentError):
            library.optimiser_step(other, 0, ctypes.byref(settings), 1)


def test_a_function_that_the_library_lacks_is_named(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FUNCTIONS, "no_such_function", Signature({}))
    with pytest.raises(AttributeError, match="no_such_function"):
        signatures.bind(library)


def test_tensors_reach_functions_by_their_addresses_alone() -> None:
    with pytest.raises(TypeError, match="is no address"):
        Memory.from_param(torch.zeros(1))
    assert Memory.from_param(pointer(None)).value is None
