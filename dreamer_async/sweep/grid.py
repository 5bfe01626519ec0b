"""The runs of a sweep: every task with every combination of settings and every seed.

Seeds come last, so that a sweep that is cut off has seen all of the grid with some seeds and not
some of it with all.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
import typing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from dreamer_async.config import ConfigError, find_setting, known_settings, parse_overrides
from dreamer_async.config.schema import nearest, shown
from dreamer_async.store.sweep_dir import LONGEST_NAME, MOST_JOBS, Job

SEED = "train.seed"
FILE_KEYS = ("suite", "task", "size", "seeds", "settings")


@dataclass(frozen=True)
class Grid:
    """What is combined with what."""

    suite: str
    tasks: tuple[str, ...]
    sizes: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Dotted key -> its values, as on a command line."""

    @property
    def fixed(self) -> tuple[str, ...]:
        """Settings that all runs have, as `key=value`."""
        return tuple(f"{key}={each[0]}" for key, each in self.settings.items() if len(each) == 1)

    def jobs(self) -> list[Job]:
        """Every run, with names that are the same whenever the same grid is asked for."""
        varied = {key: each for key, each in self.settings.items() if len(each) > 1}
        count = len(self.seeds) * len(self.tasks) * len(self.sizes)
        for each in varied.values():
            count *= len(each)
        if count > MOST_JOBS:
            raise ConfigError(
                f"a sweep has at most {MOST_JOBS:,} runs, this one asks for {count:,}"
            )
        jobs = [
            _job(task, size, seed, dict(zip(varied, chosen, strict=True)), sized=self.sizes)
            for seed, size, task in product(self.seeds, self.sizes, self.tasks)
            for chosen in product(*varied.values())
        ]
        return list(_apart(jobs))


def _job(task: str, size: str, seed: int, settings: dict[str, str], *, sized: Sequence[str]) -> Job:
    varied = {**({"size": size} if len(sized) > 1 else {}), **settings}
    words = [key.rpartition(".")[2] * (key != "size") + value for key, value in varied.items()]
    parts = [task, *words]
    return Job("-".join(map(_plain, [*parts, f"s{seed}"])), task, size, seed, varied)


def _plain(text: str) -> str:
    """What of a text may stand in the name of a directory."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.") or "x"


def _apart(jobs: Sequence[Job]) -> Iterator[Job]:
    """Shorten long names, and tell those apart that would be the same."""
    seen = Counter(job.name for job in jobs)
    for job in jobs:
        if seen[job.name] == 1 and len(job.name) <= LONGEST_NAME:
            yield job
            continue
        told = json.dumps([job.task, job.size, dict(job.settings)], sort_keys=True)
        digest = hashlib.sha256(told.encode()).hexdigest()[:8]
        head = job.name.removesuffix(f"-s{job.seed}")[: LONGEST_NAME - 24].rstrip("-.")
        name = f"{head}-{digest}-s{job.seed}"
        yield Job(name, job.task, job.size, job.seed, job.settings)


# -- from words ------------------------------------------------------------------------------


def parse_seeds(text: str) -> tuple[int, ...]:
    """`5` is seeds 0 to 4; `3,5` are two seeds, and `7,` is one."""
    parts = [part.strip() for part in text.split(",")]
    numbers = [part for part in parts if part]
    if not numbers or not all(part.isascii() and part.isdecimal() for part in numbers):
        raise ConfigError(
            f"--seeds {shown(text)}: expected how many, such as 5, or which, such as 3,5"
        )
    if len(parts) == 1:
        count = int(parts[0]) if len(parts[0]) < 9 else MOST_JOBS + 1
        if not 0 < count <= MOST_JOBS:
            raise ConfigError(f"--seeds {shown(text)}: expected 1 to {MOST_JOBS}")
        return tuple(range(count))
    return tuple(dict.fromkeys(int(part[:20]) for part in numbers))


def parse_names(text: str, option: str) -> tuple[str, ...]:
    """Names with commas between, each once."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ConfigError(f"{option} {shown(text)}: expected names separated by commas")
    return tuple(dict.fromkeys(names))


def parse_settings(overrides: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read `optim.lr=4e-5,1e-4` and the like: the values of each setting, checked."""
    return {key: split(key, values) for key, values in map(parse_key, overrides)}


def parse_key(text: str) -> tuple[str, str]:
    """The dotted key that `lr=4e-5,1e-4` means, and its values as they stand there; ConfigError."""
    name, sign, values = text.partition("=")
    key = find_setting(name.strip()) if sign else ""
    if key not in known_settings():
        parse_overrides([text])  # says what is wrong
    if key == SEED:
        where = "by --seeds, such as --seeds 3,5, or by seeds = [3, 5] in front of [settings]"
        raise ConfigError(f"seeds of a sweep are given {where}")
    return key, values


def split(key: str, text: str) -> tuple[str, ...]:
    """The values of the setting of a dotted key: with `;` between, or commas if none has one."""
    mark = ";" if ";" in text or has_commas(key) else ","
    values = tuple(dict.fromkeys(part.strip() for part in text.split(mark)))
    for value in values:
        parse_overrides([f"{key}={value}"])
    return values


def has_commas(key: str) -> bool:
    """Whether a value of the setting of a dotted key may have commas: lists and mappings."""
    kind = known_settings()[key]
    return kind is Any or typing.get_origin(kind) in (tuple, Mapping)


# -- from a file -----------------------------------------------------------------------------


def from_file(path: Path) -> dict[str, Any]:
    """Read a sweep from TOML: the same words that a command line has, lists where it has commas.

    `suite`, `task`, `size` and `seeds` as texts, and `settings` as key -> values. ConfigError says
    what is wrong.
    """
    if path.exists() and not path.is_file():  # nobody may ever write to a pipe
        raise ConfigError(f"{path} is not a file")
    try:
        with open(path, "rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    for key in data:
        if key not in FILE_KEYS:
            raise ConfigError(f"{path}: unknown key {shown(key)}{nearest(key, FILE_KEYS)}")
    if not isinstance(data.get("suite"), str):
        raise ConfigError(f'{path}: a sweep needs its suite, such as suite = "atari100k"')
    words = {name: _joined(path, name, data[name]) for name in FILE_KEYS[1:4] if name in data}
    settings = data.get("settings", {})
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: settings is a table, such as [settings]")
    given = list(_settings(path, settings, ""))
    if len(found := dict(given)) < len(given):
        twice = next(key for key in found if sum(key == other for other, _ in given) > 1)
        raise ConfigError(f"{path}: {twice} is given twice: give all its values at once, in a list")
    return {"suite": data["suite"], **words, "settings": found}


def _joined(path: Path, name: str, value: Any) -> str:
    """One value, or a list of them, as the option of a command line has it."""
    parts = value if isinstance(value, list) else [value]
    kinds = (int,) if name == "seeds" else (str,)
    if not parts or any(not isinstance(part, kinds) or isinstance(part, bool) for part in parts):
        what = "a number or a list of them" if name == "seeds" else "a name or a list of them"
        raise ConfigError(f"{path}: {name} is {what}, got {shown(value)}")
    return ",".join(map(str, parts)) + "," * (name == "seeds" and isinstance(value, list))


def _settings(
    path: Path, table: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, value in table.items():
        try:
            key, _ = parse_key(f"{prefix}{name}=")
        except ConfigError as error:
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {error}") from None
            yield from _settings(path, value, f"{prefix}{name}.")
        else:
            yield key, _values(path, key, value)


def _values(path: Path, key: str, value: Any) -> tuple[str, ...]:
    """The values of one setting as they would stand on a command line, checked."""
    several = isinstance(value, list) and not (
        has_commas(key) and not any(isinstance(each, (list, dict)) for each in value)
    )
    values = tuple(_spelled(each) for each in (value if several else [value]))
    if not values:
        raise ConfigError(f"{path}: {key} has no value")
    for each in values:
        parse_overrides([f"{key}={each}"])
    return tuple(dict.fromkeys(values))


def _spelled(value: Any) -> str:
    """A value as it would stand on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(_spelled, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)
