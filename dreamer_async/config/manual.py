"""What every setting means: read from the dataclasses, where each stands with its explanation."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dreamer_async.config import settings
from dreamer_async.config.config import SIZES, SUITES, known_settings
from dreamer_async.config.schema import describe

PAPER: Mapping[str, Any] = MappingProxyType(
    {
        "replay.capacity": 5_000_000,
        "train.batch_size": 16,
        "train.batch_length": 64,
        "optim.lr": 4e-5,
        "optim.agc": 0.3,
        "optim.eps": 1e-20,
        "loss.reconstruction": 1.0,
        "loss.reward": 1.0,
        "loss.cont": 1.0,
        "loss.dyn": 1.0,
        "loss.rep": 0.1,
        "loss.free_nats": 1.0,
        "model.unimix": 0.01,
        "loss.imagine_length": 15,
        "loss.horizon": 333.0,
        "loss.return_lambda": 0.95,
        "loss.critic": 1.0,
        "loss.replay_critic": 0.3,
        "loss.slow_regularizer": 1.0,
        "loss.slow_rate": 0.02,
        "loss.actor": 1.0,
        "loss.entropy": 3e-4,
        "loss.return_low": 5.0,
        "loss.return_high": 95.0,
        "loss.return_floor": 1.0,
        "loss.return_rate": 0.01,
    }
)
"""Values of the paper's table of hyperparameters (Nature 2025), in our units.

A decay there is one minus our rate."""


@dataclass(frozen=True)
class Setting:
    """One setting that `-s` reaches."""

    name: str
    """Dotted key."""
    kind: str
    """Type of its value, in words."""
    default: Any
    """Value where neither suite nor size nor the user says otherwise."""
    about: str
    """What it means, in one paragraph."""


def manual() -> tuple[Setting, ...]:
    """Every setting, in the order of the dataclasses."""
    return tuple(_settings())


def _settings() -> Iterator[Setting]:
    parts = {part.PREFIX: part for part in _parts()}
    about = {prefix: _explanations(part) for prefix, part in parts.items()}
    for name, kind in known_settings().items():
        prefix, _, field = name.partition(".")
        yield Setting(name, describe(kind), getattr(parts[prefix](), field), about[prefix][field])


def _parts() -> tuple[Any, ...]:
    return tuple(part for part in vars(settings).values() if hasattr(part, "PREFIX"))


def _explanations(part: type) -> dict[str, str]:
    """The text below each field of a dataclass."""
    [body] = ast.parse(inspect.getsource(part)).body
    assert isinstance(body, ast.ClassDef), part
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            found[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    return found


def find(word: str) -> list[Setting]:
    """Settings whose name or meaning has the word in it; all of them for an empty one."""
    return [s for s in manual() if word.lower() in f"{s.name} {s.about}".lower()]


def shown(value: Any) -> str:
    """A value as `-s` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(shown, value))
    if isinstance(value, Mapping):
        return ",".join(f"{key}={shown(each)}" for key, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def lines(found: list[Setting]) -> list[str]:
    """Settings for people in a terminal."""
    width = max((len(f"{s.name}={shown(s.default)}") for s in found), default=0)
    return [f"{f'{s.name}={shown(s.default)}':{width}}  {s.about}" for s in found]


def markdown() -> str:
    """The whole of docs/settings.md."""
    sections = [_HEAD]
    for part in _parts():
        rows = [s for s in manual() if s.name.startswith(f"{part.PREFIX}.")]
        sections.append(f"## {part.PREFIX}\n\n{inspect.getdoc(part)}\n\n{_table(rows)}")
    return "\n\n".join([*sections, _sizes(), _suites()]) + "\n"


_HEAD = """\
# Settings

Generated from the dataclasses in `dreamer_async/config/settings.py` by `just docs`.

Every setting of a run, as `-s KEY=VALUE` takes it; a run's `config.json` has the same keys.
`dreamer-async settings WORD` searches this list. Later sources win: these defaults, the suite's
preset, the size preset, flags and `-s`. Defaults are those of the official code, except for
`env.resize`; those of `model.*` are size1m's, which every size replaces. The column
*paper* has the value of the paper's table of hyperparameters where that table has one."""


def _table(rows: list[Setting]) -> str:
    head = "| setting | default | paper | meaning |\n|---|---|---|---|\n"
    return head + "\n".join(
        f"| `{s.name}` | {_cell(shown(s.default))} | {_cell(_paper(s.name))} | {_cell(s.about)} |"
        for s in rows
    )


def _paper(name: str) -> str:
    return shown(PAPER[name]) if name in PAPER else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _sizes() -> str:
    names = sorted({key for size in SIZES.values() for key in size})
    head = f"| size | {' | '.join(f'`{name}`' for name in names)} |\n|{'---|' * (len(names) + 1)}\n"
    plain = {setting.name: setting.default for setting in manual()}
    rows = (
        f"| {size} | {' | '.join(shown({**plain, **values}[name]) for name in names)} |"
        for size, values in SIZES.items()
    )
    return "## Sizes\n\n`--size NAME` sets these.\n\n" + head + "\n".join(rows)


def _suites() -> str:
    rows = (
        f"| {suite} | {', '.join(f'`{key}={shown(value)}`' for key, value in preset.items())} |"
        for suite, preset in SUITES.items()
    )
    head = "## Suites\n\nWhat each suite sets.\n\n| suite | preset |\n|---|---|\n"
    return head + "\n".join(rows)
