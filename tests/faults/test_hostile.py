"""Files from somebody else: at worst a clear line, and never code of theirs that runs."""

from __future__ import annotations

import ast
import importlib
import json
import math
import os
import pickle
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from experience import Experience, make_spec
from gymnasium.spaces import Dict
from hostile import JSON, exchanged, ill_typed, spoiled
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import make_run, newest

from dreamer_async import cli, envs
from dreamer_async.config import Config, ConfigError, from_dict, resolve, to_dict
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.ring import Record as WriterRecord
from dreamer_async.replay.ring import RingFile, RingMismatch, stored_file_spec
from dreamer_async.run import checkpoint_room, pipeline, saved_spec
from dreamer_async.store import checkpoint, exit_codes
from dreamer_async.store.checkpoint_layout import Counters
from dreamer_async.store.events import Record, RunFinished, Warned, decode_line, encode_line
from dreamer_async.store.json_file import write_json_atomic
from dreamer_async.store.run_dir import RunDir
from tests.envs.gym_spaces import EXAMPLES, described
from tests.replay.test_ring import spec, write_header

pytestmark = pytest.mark.faults
ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path for name in ("dreamer_async", "envs", "tui") for path in (ROOT / name).rglob("*.py")
]

# -- fuzzing the readers -------------------------------------------------------------------------

CONFIG = to_dict(resolve("toy", "catch", size="tiny"))
FUZZ = settings(max_examples=int(os.environ.get("FAULT_EXAMPLES", "100")))


@FUZZ
@given(spoiled(CONFIG))
def test_a_spoiled_config_is_a_config_or_a_line(data: Any) -> None:
    try:
        config = from_dict(data)
    except ConfigError as error:
        assert str(error).isprintable() and len(str(error)) < 500
    else:
        assert ill_typed(Config, config) == []
        assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


EVENT = json.loads(encode_line(RunFinished("stopped", 7, 3, 0, "x"), 1.0, 2.0, 3))


@FUZZ
@given(spoiled(EVENT))
def test_a_spoiled_event_is_skipped_or_well_typed(data: Any) -> None:
    try:
        record = decode_line(json.dumps(data).encode())
    except ValueError:
        return
    assert ill_typed(RunFinished, record.event) == []
    again = encode_line(record.event, record.time, record.mono, record.generation)
    assert decode_line(again) == record


def test_the_unspoiled_event_is_read() -> None:
    record = decode_line(json.dumps(EVENT).encode())
    assert record == Record(RunFinished("stopped", 7, 3, 0, "x"), 1.0, 2.0, 3)


COUNTERS = {
    "env_steps": 100,
    "updates": 7,
    "skipped": 0,
    "ratio_started": True,
    "ratio_debt": 3.5,
    "replay_steps": 100,
    "torch": "2.13",
    "threads": 1,
    "native": "kernels-x86-64-v4-0123456789abcdef",
}


@FUZZ
@given(spoiled(COUNTERS))
def test_spoiled_counters_are_refused_or_sane(data: Any) -> None:
    if not isinstance(data, dict):
        return
    try:
        counters = Counters.read(data)
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert ill_typed(Counters, counters) == []
        whole = counters.env_steps, counters.updates, counters.skipped, counters.threads
        assert all(0 <= n <= 1 << 53 for n in whole)
        assert abs(counters.ratio_debt) < float("inf")


@pytest.mark.parametrize(
    ("kind", "read", "fits"), [(Config, from_dict, CONFIG), (Counters, Counters.read, COUNTERS)]
)
def test_every_field_refuses_every_other_type(
    kind: type, read: Callable[[Any], Any], fits: dict[str, Any]
) -> None:
    """True is no number, 1 is no truth; only a whole number may stand for one that need not be."""
    refused = 0
    for data in exchanged(fits):
        try:
            value = read(data)
        except ValueError:
            refused += 1
        else:
            assert ill_typed(kind, value) == []
    assert ill_typed(kind, read(fits)) == [] and refused > 5 * len(fits)


NATIVE = saved_spec.encode(described(Dict(EXAMPLES), Dict(EXAMPLES)))


@FUZZ
@given(spoiled(NATIVE) | JSON)
def test_a_spoiled_spec_is_refused_or_can_be_used(data: Any) -> None:
    """The spec in a manifest; nothing large is made, and nothing else is raised."""
    env = resolve("toy", "catch", size="tiny").env
    try:
        spec = saved_spec.decode({saved_spec.KEY: data}, env)
        if spec is None:
            return
        translator = envs.translator(spec, envs.View())
    except saved_spec.WRONG:
        return
    assert translator.writer.spec == spec.action


def test_the_unspoiled_spec_is_used() -> None:
    spec = saved_spec.decode({saved_spec.KEY: NATIVE}, resolve("toy", "catch", size="tiny").env)
    assert spec and envs.translator(spec, envs.View()).observation_space == Dict(EXAMPLES)


@FUZZ
@given(JSON)
def test_any_manifest_is_refused_even_with_the_right_hash(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "step-1"
    path.mkdir(exist_ok=True)
    (path / checkpoint.STATE).write_bytes(b"x")
    if isinstance(data, dict):
        data["format"] = checkpoint.FORMAT
        data[checkpoint.OWN_HASH] = checkpoint._manifest_hash(data)
    (path / checkpoint.MANIFEST).write_text(json.dumps(data))
    with pytest.raises(checkpoint.CheckpointError) as error:
        checkpoint.read(path)
    assert "step-1" in str(error.value)
    assert checkpoint._score(path) <= float("inf")


SPEC = json.loads(spec().encode())


@FUZZ
@given(spoiled(SPEC) | JSON)
def test_a_spoiled_ring_header_is_refused_even_with_the_right_checksum(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "spoiled.ring"
    if not path.exists():
        RingFile.create(path, spec(), WriterRecord()).close()
    identity = data.get("identity") if isinstance(data, dict) else None
    same = json.dumps(data) == json.dumps(SPEC | {"identity": identity})
    write_header(path, json.dumps(data).encode())
    before = path.read_bytes()
    try:
        RingFile.open(path, spec()).close()
    except RingMismatch:
        assert path.read_bytes() == before, "nothing is written before the comparison"
    else:
        assert same
    try:
        found = stored_file_spec(path)
    except RingMismatch:
        return
    assert found.num_envs >= 1 and found.capacity >= 1


@FUZZ
@given(st.data())
def test_a_spoiled_replay_state_is_refused_or_fits(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("replay")
    with Replay.create(folder / "ring", folder / "latents", make_spec(), seed=0) as replay:
        Experience(replay).fill(23)
        before = replay.state()
        state = data.draw(spoiled(before))
        try:
            replay.load_state(state)
        except ValueError:
            assert replay.state() == before, "nothing is changed"
        else:
            cursors = replay._cursors
            for env, start in replay._queue:
                assert 0 <= env < 3 and cursors.oldest(env) <= start <= cursors.head[env] - 5


@pytest.mark.parametrize("head", [-1, 1 << 48, (1 << 63) - 1])
def test_cursors_that_no_run_reaches_are_refused(tmp_path: Path, head: int) -> None:
    paths, spec = (tmp_path / "ring", tmp_path / "latents"), make_spec()
    Replay.create(*paths, spec, seed=0).close()
    for value, fits in ((1 << 40, True), (head + (head == 1 << 48), False)):
        ring = RingFile.open(paths[0], spec.ring_file_spec())
        ring.arrays["cursors"][:] = value
        ring.close()
        if fits:  # steps of years; taking a state over costs no time in proportion
            with Replay.open(*paths, spec, seed=0) as replay:
                replay.load_state(replay.state() | {"heads": [0, 0, 0], "queue": [[0, 1]]})
                assert len(replay._queue) <= 3 * spec.capacity
        else:
            with pytest.raises(RingMismatch, match="damaged"):
                Replay.open(*paths, spec, seed=0)


# -- a run directory from somebody else ----------------------------------------------------------

CANARY = "from pathlib import Path\nPath(__file__).with_name('dead').touch()\n"


class Canary:
    """Dies when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.folder / "dead",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = make_run(tmp_path_factory.mktemp("trained") / "runs", "train.steps=40")
    assert pipeline.main(run, plain=False, resume=False) == 0
    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a module whose import leaves a mark, first on the path.

    Its disk is never so large that nobody asks for room: what the machine has free tells nothing.
    """
    monkeypatch.setattr(checkpoint_room, "PLENTY", math.inf)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "canary.py").write_text(CANARY)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("canary", None)


def name_code(task: str, suite: str = "gym") -> Callable[[RunDir], None]:
    def spoil(run: RunDir) -> None:
        config = json.loads(run.config_path.read_text())
        config["env"] |= {"suite": suite, "task": task}
        write_json_atomic(run.config_path, config)
        path = newest(run).path / checkpoint.MANIFEST
        manifest = json.loads(path.read_text()) | {"config": config}
        manifest[checkpoint.OWN_HASH] = checkpoint._manifest_hash(manifest)
        path.write_text(json.dumps(manifest))

    return spoil


def pickled_state(run: RunDir) -> None:
    (newest(run).path / checkpoint.STATE).write_bytes(pickle.dumps(Canary(Path.cwd())))


def pickled_everything(run: RunDir) -> None:
    for path in [p for p in run.path.rglob("*") if p.is_file()]:
        path.write_bytes(pickle.dumps(Canary(Path.cwd())))


def manifest_without_a_config(run: RunDir) -> None:
    path = newest(run).path / checkpoint.MANIFEST
    manifest = json.loads(path.read_text()) | {"config": {"size": ["tiny"]}, "updates": None}
    manifest[checkpoint.OWN_HASH] = checkpoint._manifest_hash(manifest)
    path.write_text(json.dumps(manifest))


def screaming_events(run: RunDir) -> None:
    with open(run.events_path, "ab") as file:
        for text in ("\x1b[2J\x1b]0;x\x07", "[@click=app.quit]x[/]", "\u202e", "x" * 10_000):
            file.write(encode_line(Warned(text, text), 1e300, -1.0, 10**9))
        file.write(b"[" * 100_000 + b"\n\xff\xfe\n{}\n")


def a_pipe_for_a_config(run: RunDir) -> None:
    run.config_path.unlink()
    os.mkfifo(run.config_path)


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[RunDir], None]:
    """Put something else in the place of a file or directory of the run."""

    def spoil(run: RunDir) -> None:
        path = run.path / name
        path.parent.mkdir(exist_ok=True)
        if path.is_dir():
            path.rename(run.path.parent.parent / "x.png")
        else:
            path.unlink(missing_ok=True)
        make(path)

    spoil.__name__ = f"{name.replace('/', '_')}_is_{make.__name__}"
    return spoil


def link(path: Path) -> None:
    path.symlink_to(path.parents[len(path.parents) - 2] / "nowhere")


def linked_checkpoint(run: RunDir) -> None:
    path, elsewhere = newest(run).path, run.path.parent.parent / "x.png"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def a_name_that_screams(run: RunDir) -> None:
    (run.checkpoints / "step-\x1b[2J").mkdir()
    config = json.loads(run.config_path.read_text())
    write_json_atomic(run.config_path, {"\x1b[2J": 1, **config})


def an_end_that_screams(run: RunDir) -> None:
    with open(run.events_path, "ab") as file:
        file.write(encode_line(RunFinished("\x1b[2J", 7, 3, 0, "\x1b[2J"), 1.0, 2.0, 3))


def numbers_of_many_digits(run: RunDir) -> None:
    line = encode_line(RunFinished("stopped", 12345, 54321, 0), 1.0, 2.0, 3).decode()
    with open(run.events_path, "a") as file:
        file.write(line.replace("12345", "9" * 4200) + line.replace("54321", "9" * 400))


def steps_of_many_digits(run: RunDir) -> None:
    text = run.config_path.read_text()
    run.config_path.write_text(text.replace('"steps": 40', f'"steps": {"9" * 400}'))


def a_deep_manifest(run: RunDir) -> None:
    text = f'{{"format": 1, "x": {"[" * 973}{"]" * 973}}}'
    (newest(run).path / checkpoint.MANIFEST).write_text(text)


def gigabytes_of_holes(run: RunDir) -> None:
    os.truncate(newest(run).path / checkpoint.STATE, 3_000_000_000_000)


def steps_that_cannot_be(name: str, value: float) -> Callable[[RunDir], None]:
    def spoil(run: RunDir) -> None:
        path = run.latents_path if name == "stoch" else run.replay_path
        spec = stored_file_spec(path)
        ring = RingFile.open(path, spec)
        column = ring.arrays[name]
        (column.view("uint8") if column.dtype == bool else column)[0, 1] = value
        ring.close()

    spoil.__name__ = f"{name.replace('/', '_')}_{value}"
    return spoil


RING: list[Callable[[RunDir], None]] = [
    steps_that_cannot_be("field/action", 99),
    steps_that_cannot_be("field/action", -1),
    steps_that_cannot_be("field/reward", float("nan")),
    steps_that_cannot_be("field/is_first", 7),
    steps_that_cannot_be("stoch", 200),
]
HOSTILE: list[Callable[[RunDir], None]] = [
    name_code("canary:Env"),
    name_code("canary:Env-v0"),
    name_code("canary"),
    name_code("canary:Env", suite="toy"),
    name_code("canary:Env", suite="canary"),
    pickled_state,
    pickled_everything,
    manifest_without_a_config,
    screaming_events,
    a_pipe_for_a_config,
    *(replaced("events.jsonl", make) for make in (os.mkfifo, os.mkdir, link)),
    *(replaced("lock", make) for make in (os.mkfifo, os.mkdir, link)),
    *(replaced("replay.ring", make) for make in (os.mkfifo, link)),
    replaced("replay.latents", os.mkfifo),
    replaced("log.txt", os.mkfifo),
    replaced("pictures/film.npz", os.mkfifo),
    replaced("checkpoints", link),
    linked_checkpoint,
    a_name_that_screams,
    an_end_that_screams,
    numbers_of_many_digits,
    steps_of_many_digits,
    a_deep_manifest,
    gigabytes_of_holes,
    *RING,
]
COMMANDS = (
    "runs",
    "runs show RUN",
    "eval RUN --episodes 1 --device cpu",
    "dream RUN --out x.png",
    "resume RUN --plain --steps 44",
    "stop RUN",
)


@pytest.mark.parametrize("spoil", HOSTILE, ids=lambda spoil: spoil.__name__)
def test_a_hostile_run_is_a_line_at_worst_and_runs_no_code(
    trained: RunDir,
    here: Path,
    capfd: pytest.CaptureFixture[str],
    spoil: Callable[[RunDir], None],
) -> None:
    run = RunDir(Path(shutil.copytree(trained.path, here / "runs" / trained.name)))
    spoil(run)
    for line in COMMANDS:
        code = cli.main(line.replace("RUN", run.name).split())
        out, err = capfd.readouterr()
        assert code in (0, 2, 65, 73), (line, code, err)
        assert "Traceback" not in out + err
        assert all(text.isprintable() for text in (out + err).splitlines()), (line, out, err)
        assert code == 0 or err.startswith("error: "), (line, err)
    assert not (here / "dead").exists(), "no code of theirs ran"
    allowed = {"runs", "canary.py", "x.png", "__pycache__"}
    assert {path.name for path in here.iterdir()} <= allowed, "no file outside the run"


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        *((replaced("events.jsonl", make), exit_codes.CANNOT) for make in (os.mkfifo, os.mkdir)),
        *((replaced("lock", make), exit_codes.CANNOT) for make in (os.mkfifo, os.mkdir)),
        (replaced("replay.ring", os.mkfifo), exit_codes.CANNOT),
        (replaced("replay.latents", os.mkfifo), exit_codes.CANNOT),
        (replaced("events.jsonl", link), exit_codes.WRONG_INPUT),
        (replaced("replay.ring", link), exit_codes.WRONG_INPUT),
        (linked_checkpoint, exit_codes.UNUSABLE),
        (a_pipe_for_a_config, exit_codes.WRONG_INPUT),
        (replaced("log.txt", os.mkfifo), 0),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_stands_in_the_place_of_a_file_is_told_apart_by_exit_codes(
    trained: RunDir, here: Path, spoil: Callable[[RunDir], None], code: int
) -> None:
    """A path that cannot be used, a run that is refused, no checkpoint; a log is no matter."""
    run = RunDir(Path(shutil.copytree(trained.path, here / "runs" / trained.name)))
    spoil(run)
    assert cli.main(["resume", run.name, "--plain", "--steps", "44"]) == code


@pytest.mark.parametrize("spoil", RING, ids=lambda spoil: spoil.__name__)
def test_steps_that_cannot_be_are_named_and_nothing_is_changed(
    trained: RunDir, here: Path, capfd: pytest.CaptureFixture[str], spoil: Callable[[RunDir], None]
) -> None:
    run = RunDir(Path(shutil.copytree(trained.path, here / "runs" / trained.name)))
    assert cli.main(["resume", run.name, "--plain", "--steps", "44"]) == 0, "the control"
    spoil(run)
    before = run.replay_path.read_bytes(), run.events_path.read_bytes()
    capfd.readouterr()
    assert cli.main(["resume", run.name, "--plain", "--steps", "48"]) == 65
    _, err = capfd.readouterr()
    assert "the replay is damaged: " in err and "has to be from" in err and err.count("\n") == 1
    assert (run.replay_path.read_bytes(), run.events_path.read_bytes()) == before
    assert cli.main(["resume", run.name, "--plain", "--steps", "48", "--drop-replay"]) == 0


@pytest.mark.parametrize("spoil", [a_deep_manifest, gigabytes_of_holes, None])
def test_an_older_checkpoint_is_taken_aloud(
    trained: RunDir,
    here: Path,
    capfd: pytest.CaptureFixture[str],
    spoil: Callable[[RunDir], None] | None,
) -> None:
    run = RunDir(Path(shutil.copytree(trained.path, here / "runs" / trained.name)))
    assert cli.main(["resume", run.name, "--plain", "--steps", "44"]) == 0
    name = newest(run).path.name
    if spoil is not None:
        spoil(run)
    capfd.readouterr()
    assert cli.main(["eval", run.name, "-n", "1", "--device", "cpu", "--json"]) == 0
    out, err = capfd.readouterr()
    skipped = json.loads(out)["skipped"]
    assert (len(skipped), err.count(f"warning: checkpoint skipped: {name}")) == (
        (0, 0) if spoil is None else (1, 1)
    )
    assert cli.main(["resume", run.name, "--plain", "--steps", "48"]) == 0
    assert (f"skipped {name}" in capfd.readouterr().out) == (spoil is not None)


def test_settings_edited_since_are_said_and_count(
    trained: RunDir, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(Path(shutil.copytree(trained.path, here / "runs" / trained.name)))
    assert cli.main(["resume", run.name, "--plain", "--steps", "44"]) == 0
    assert "config.json" not in capfd.readouterr().out
    config = json.loads(run.config_path.read_text())
    was, config["optim"]["lr"] = config["optim"]["lr"], 0.125
    write_json_atomic(run.config_path, config)
    assert cli.main(["resume", run.name, "--plain", "--steps", "48"]) == 0
    said = f"optim.lr is 0.125 in config.json and was {was} when the checkpoint was saved"
    assert f"warning: {said}: config.json counts" in capfd.readouterr().out
    assert cli.main(["resume", run.name, "--plain", "--steps", "52", "-s", "optim.lr=0.25"]) == 0
    assert "config.json" not in capfd.readouterr().out, "the command itself says otherwise"


def test_one_bad_run_is_one_line_among_the_others(
    trained: RunDir, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for number, spoil in enumerate(HOSTILE):
        run = RunDir(Path(shutil.copytree(trained.path, here / "runs" / f"bad-{number}")))
        spoil(run)
        runs.append(run)
        shutil.rmtree(here / "x.png", ignore_errors=True)  # where a spoiler puts what it replaces
    shutil.copytree(trained.path, here / "runs" / "good")
    assert cli.main(["runs"]) == 0
    out, err = capfd.readouterr()
    assert out.count("good ") == 1
    for run in runs:
        lines = [line for line in (out + err).splitlines() if f"{run.name} " in line or
                 f"{run.name}/" in line or f"{run.name}:" in line]  # fmt: skip
        is_run = run.config_path.is_file()  # where it is a pipe there is none
        assert len(lines) == is_run, (run.name, lines)


def test_the_canaries_can_die(here: Path) -> None:
    importlib.import_module("canary")
    assert (here / "dead").exists()
    (here / "dead").unlink()
    pickle.loads(pickle.dumps(Canary(here)))
    assert (here / "dead").exists()


# -- what no file of ours may do -----------------------------------------------------------------

NEVER_IMPORTED = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
NEVER_IMPORTED |= {"ruamel", "jsonpickle"}
NEVER_CALLED = {"eval", "exec", "__import__", "torch.load"}
MAY_IMPORT_BY_NAME = {"envs/worker.py", "dreamer_async/__init__.py"}
"""What a worker imports is named by our adapters, or on the command line (envs/suites/gym.py); the
package imports modules of its own from a table."""


def dangerous(source: str, file: str = "x.py") -> list[str]:
    """Name what could run code that stands in a file."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                found += [a.name for a in aliases if a.name.split(".")[0] in NEVER_IMPORTED]
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in NEVER_IMPORTED:
                found.append(module)
            case ast.Call(func=function):
                name, words = ast.unparse(function), ast.unparse(node)
                literal = bool(node.args) and isinstance(node.args[0], ast.Constant)
                by_name = name.endswith("import_module") and not literal
                arrays = name.endswith("np.load") and "allow_pickle=False" not in words
                pickles = name.endswith(("connection.recv", "connection.send"))
                allowed = by_name and file in MAY_IMPORT_BY_NAME
                if name in NEVER_CALLED or (by_name and not allowed) or arrays or pickles:
                    found.append(name)
            case _:
                pass
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_of_ours_unpickles_or_imports_by_name(path: Path) -> None:
    assert dangerous(path.read_text(), str(path.relative_to(ROOT))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import yaml",
        "import ruamel.yaml",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "importlib.import_module(name)",
        "self._connection.recv()",
    ],
)
def test_the_gate_sees_what_it_should(source: str) -> None:
    assert len(dangerous(source)) == 1


def test_ruff_looks_for_the_same_and_more() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert [rule for rule in lint["ignore"] if rule.startswith("S")] == ["S101", "S603"]
