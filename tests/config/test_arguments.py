"""Arguments of functions that a program calls, checked by what these declare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from dreamer_async.config import ConfigError
from dreamer_async.config.arguments import argument, checked


class Spectator(Protocol):
    """Whoever has a method."""

    def watch(self) -> None: ...


@checked
def take(run: str | Path = "last", /, count: int = 1, *, best: bool = False) -> list[Any]:
    """Take what is given."""
    return [run, count, best]


GOOD: list[tuple[Any, Any, Any]] = [
    (int, 3, 3),
    (int, np.int16(3), 3),
    (int, 1e6, 1_000_000),
    (int, "10k", 10_000),
    (float, 2, 2),
    (float, np.float32(0.5), 0.5),
    (float, "1e-4", 1e-4),
    (float, float("inf"), float("inf")),
    (bool, np.bool_(True), True),
    (bool, "false", False),
    (str | None, None, None),
    (str, "", ""),
    (str | Path, Path("a"), Path("a")),
    (Sequence[str], ("a", "b"), ("a", "b")),
    (Mapping[str, Any] | None, {"a": 1}, {"a": 1}),
    (Callable[..., Any], len, len),
    (Spectator | None, 7, 7),
    (Any, 7, 7),
]
WRONG: list[tuple[Any, Any, str]] = [
    (int, None, "expected a whole number, got None"),
    (int, True, "expected a whole number, got True"),
    (int, 2.5, "got 2.5"),
    (int, "many", "got 'many'"),
    (int, float("inf"), "got inf"),
    (float | None, float("nan"), "expected a number or None, got nan"),
    (float, np.bool_(True), "expected a number"),
    (bool, 1, "expected true or false, got 1"),
    (bool, "maybe", "got 'maybe'"),
    (str, b"x", "expected text, got b'x'"),
    (str | Path, None, "expected a name or a path, got None"),
    (str | Path, "", "got ''"),
    (str | Path | None, "a\0b", "expected a name or a path or None"),
    (Sequence[str], "wandb", "expected a list of texts, got 'wandb'"),
    (Sequence[str], [1], "expected a list of texts"),
    (Mapping[str, Any], [("a", 1)], "expected a dict"),
    (Callable[[str], object], "say", "expected a function"),
    (np.ndarray, [1.0], "expected a numpy ndarray"),
]


@pytest.mark.parametrize(("kind", "given", "taken"), GOOD)
def test_what_fits_is_taken_as_its_kind(kind: Any, given: Any, taken: Any) -> None:
    found = argument(kind, given, "name")
    assert found == taken and isinstance(found, type(taken) if kind is int else object)


@pytest.mark.parametrize(("kind", "given", "message"), WRONG)
def test_what_does_not_fit_is_said(kind: Any, given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=r"^name: expected") as raised:
        argument(kind, given, "name")
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_function_gets_what_it_declares() -> None:
    called: Any = take
    assert called() == ["last", 1, False]
    assert called(Path("a"), "2k", best=np.bool_(True)) == [Path("a"), 2000, True]
    for words, options, name in (
        ([None], {}, "run"),
        (["a", []], {}, "count"),
        ([], {"best": None}, "best"),
    ):
        with pytest.raises(ConfigError, match=f"^{name}: "):
            called(*words, **options)


def test_python_says_itself_what_is_missing_or_unknown() -> None:
    unknown: Any = {"cuont": 1}
    with pytest.raises(TypeError, match=r"take\(\) got an unexpected keyword argument 'cuont'"):
        take(**unknown)
