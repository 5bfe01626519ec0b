"""Checkpoints: atomic, verified, never pickled."""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from dreamer_async.store import checkpoint
from dreamer_async.store import checkpoint_layout as layout
from dreamer_async.store.checkpoint import CheckpointError
from dreamer_async.store.checkpoint_layout import keyed, under


def state(value: float) -> dict[str, torch.Tensor]:
    return {"a": torch.full((3, 2), value), "count": torch.tensor(7)}


def save(directory: Path, step: int, value: float = 1.0, keep: int = 3) -> Path:
    return checkpoint.save(directory, step, state(value), {"env_steps": step}, keep)


def test_round_trip(tmp_path: Path) -> None:
    path = save(tmp_path, 5, 2.0)
    found, skipped = checkpoint.newest(tmp_path)
    assert found is not None and not skipped
    assert found.path == path and found.manifest["env_steps"] == 5
    assert torch.equal(found.tensors["a"], state(2.0)["a"])
    assert found.tensors["count"].item() == 7


def test_newest_by_step_and_oldest_are_pruned(tmp_path: Path) -> None:
    for step in (1, 2, 10, 20):
        save(tmp_path, step, float(step), keep=2)
    assert [p.name for p in checkpoint.candidates(tmp_path)] == [
        "step-000000000020",
        "step-000000000010",
    ]


def scored(directory: Path, step: int, score: float | None) -> Path:
    return checkpoint.save(directory, step, state(1.0), {"env_steps": step, "score": score}, 2)


def test_the_best_one_stays_besides_the_newest(tmp_path: Path) -> None:
    for step, score in ((1, None), (2, -5.0), (3, 7.5), (4, 7.0), (5, None), (6, -1.0)):
        scored(tmp_path, step, score)
    steps = [int(path.name[5:]) for path in checkpoint.candidates(tmp_path)]
    assert steps == [6, 5, 3]
    found, skipped = checkpoint.best(tmp_path)
    assert found is not None and found.manifest["env_steps"] == 3 and not skipped
    scored(tmp_path, 7, 8.0)
    assert [int(path.name[5:]) for path in checkpoint.candidates(tmp_path)] == [7, 6]


@pytest.mark.parametrize("score", ["NaN", "1e999", "[7]", '"high"', "1" + "0" * 400])
def test_a_score_that_is_none_is_not_the_best(tmp_path: Path, score: str) -> None:
    good, strange = scored(tmp_path, 1, 1.0), scored(tmp_path, 2, 2.0)
    manifest = strange / checkpoint.MANIFEST
    manifest.write_text(manifest.read_text().replace('"score": 2.0', f'"score": {score}'))
    found, _ = checkpoint.best(tmp_path)
    assert found is not None and found.path == good


def test_the_newest_is_the_best_where_nobody_has_a_score(tmp_path: Path) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    found, _ = checkpoint.best(tmp_path)
    assert found is not None and found.path == newest


def test_a_damaged_best_falls_back_by_name(tmp_path: Path) -> None:
    scored(tmp_path, 1, 1.0)
    damaged = scored(tmp_path, 2, 2.0)
    (damaged / checkpoint.STATE).write_bytes(b"")
    found, skipped = checkpoint.best(tmp_path)
    assert found is not None and found.manifest["env_steps"] == 1
    assert len(skipped) == 1 and damaged.name in skipped[0]


def test_a_second_save_of_the_same_step_keeps_the_first_until_pruned(tmp_path: Path) -> None:
    first, second = save(tmp_path, 5, 1.0), save(tmp_path, 5, 2.0)
    assert first.exists() and second.exists()
    found, _ = checkpoint.newest(tmp_path)
    assert found is not None and found.tensors["a"][0, 0] == 2.0


def test_a_thousand_saves_of_one_step_are_kept_in_order(tmp_path: Path) -> None:
    """A paused run can be asked for a checkpoint again and again."""
    save(tmp_path, 4)
    (tmp_path / "step-000000000005.998").mkdir()
    (tmp_path / "step-000000000005-mine").mkdir()
    for value in range(6):
        save(tmp_path, 5, float(value), keep=2)
        found, _ = checkpoint.newest(tmp_path)
        assert found is not None and found.tensors["a"][0, 0] == value
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"step-000000000005{end}" for end in (".1003", ".1004", "-mine")}


def test_non_finite_state_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(CheckpointError, match="a is not finite"):
        save(tmp_path, 2, float("nan"))
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000000001"]


@pytest.mark.parametrize("damage", ["flip", "cut", "manifest", "no-state", "junk-manifest"])
def test_a_damaged_newest_is_skipped_by_name(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    target = newest / checkpoint.STATE
    data = bytearray(target.read_bytes())
    match damage:
        case "flip":
            data[-1] ^= 1
            target.write_bytes(data)
        case "cut":
            target.write_bytes(data[:-1])
        case "manifest":
            (newest / checkpoint.MANIFEST).unlink()
        case "no-state":
            target.unlink()
        case "junk-manifest":
            (newest / checkpoint.MANIFEST).write_text("[" * 100_000)
    found, skipped = checkpoint.newest(tmp_path)
    assert found is not None and found.manifest["env_steps"] == 1
    assert len(skipped) == 1 and newest.name in skipped[0]
    assert newest.exists(), "nothing is deleted"


def test_every_truncation_is_detected(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    data = (path / checkpoint.STATE).read_bytes()
    for length in range(len(data)):
        (path / checkpoint.STATE).write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            checkpoint.read(path)
    (path / checkpoint.STATE).write_bytes(data)
    checkpoint.read(path)


def test_every_flipped_bit_is_detected(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    tried = 0
    for file in (path / checkpoint.STATE, path / checkpoint.MANIFEST):
        data = file.read_bytes()
        for at in range(8 * len(data)):
            flipped = bytearray(data)
            flipped[at // 8] ^= 1 << at % 8
            file.write_bytes(flipped)
            if file.name == checkpoint.MANIFEST and same_json(bytes(flipped), data):
                continue  # another blank, or a digit beyond what a float holds
            with pytest.raises(CheckpointError):
                checkpoint.read(path)
            tried += 1
        file.write_bytes(data)
    checkpoint.read(path)
    assert tried > 3000


def same_json(a: bytes, b: bytes) -> bool:
    try:
        return json.loads(a) == json.loads(b)
    except ValueError:
        return False


def reseal(path: Path) -> None:
    """Make both hashes right for whatever the files hold, as somebody else could."""
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    manifest["sha256"] = hashlib.sha256((path / checkpoint.STATE).read_bytes()).hexdigest()
    manifest[checkpoint.OWN_HASH] = checkpoint._manifest_hash(manifest)
    (path / checkpoint.MANIFEST).write_text(json.dumps(manifest))


def test_a_poisoned_checkpoint_with_valid_hashes_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    save_file(state(float("inf")), path / checkpoint.STATE)
    reseal(path)
    with pytest.raises(CheckpointError, match="not finite"):
        checkpoint.read(path)


def test_a_manifest_without_a_hash_of_its_own_says_so(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    del manifest[checkpoint.OWN_HASH]
    (path / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="has no manifest_sha256"):
        checkpoint.read(path)


def test_only_regular_files_of_a_sane_size_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, 1)
    manifest = path / checkpoint.MANIFEST
    monkeypatch.setattr(checkpoint, "MAX_MANIFEST", manifest.stat().st_size - 1)
    with pytest.raises(CheckpointError, match="larger than"):
        checkpoint.read(path)
    monkeypatch.undo()
    checkpoint.read(path)
    manifest.rename(tmp_path / "elsewhere")
    manifest.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="unreadable"):
        checkpoint.read(path)
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(CheckpointError, match="not a regular file"):
        checkpoint.read(path)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Canary:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "dead",)

    path = save(tmp_path, 1)
    for data in (pickle.dumps(Canary()), len(pickle.dumps(Canary())).to_bytes(8, "little")):
        (path / checkpoint.STATE).write_bytes(data + pickle.dumps(Canary()))
        reseal(path)
        with pytest.raises(CheckpointError):
            checkpoint.read(path)
    assert not (tmp_path / "dead").exists()
    pickle.loads(pickle.dumps(Canary()))
    assert (tmp_path / "dead").exists(), "the canary must be able to die"


def test_litter_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".tmp-1").mkdir()
    (tmp_path / ".del-2").mkdir()
    kept = save(tmp_path, 1)
    assert checkpoint.sweep(tmp_path) == 2
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.faults
@pytest.mark.parametrize("call", ["_fsync", "save_file", "rename"])
def test_a_disk_error_keeps_the_old_and_leaves_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    save(tmp_path, 1)

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    target = checkpoint.os if call == "rename" else checkpoint
    monkeypatch.setattr(target, call, fail)
    with pytest.raises(OSError, match="Input/output"):
        save(tmp_path, 2)
    monkeypatch.undo()
    names = [p.name for p in tmp_path.iterdir()]
    assert names == ["step-000000000001"]
    assert checkpoint.newest(tmp_path)[0] is not None


def test_one_owners_tensors_are_selected_by_prefix() -> None:
    tensors = {"env/a": torch.tensor(1), "env/b/c": torch.tensor(2), "my/env/a": torch.tensor(3)}
    own = {"a": torch.tensor(1), "b/c": torch.tensor(2)}
    assert under(tensors, "env/") == own
    assert keyed("env/", own) == {name: tensors[name] for name in ("env/a", "env/b/c")}


def spelled(source: str) -> list[str]:
    """Strings that begin like names of tensors; `policy/` is left out, as metrics begin so, too."""
    prefixes = layout.TRAINER, layout.LEARNER_GENERATOR, layout.EPISODES, layout.ENV
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    texts = [node.value for node in nodes if isinstance(node.value, str)]
    return [text for text in texts if text.startswith(prefixes)]


def test_names_of_tensors_are_spelled_in_one_module() -> None:
    package = Path(checkpoint.__file__).parent
    spelling = {path.stem for path in package.rglob("*.py") if spelled(path.read_text())}
    assert spelling == {"checkpoint_layout"}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("I/O error: No space left on device (os error 28)", errno.ENOSPC),
        ("I/O error: Disk quota exceeded (os error 122)", errno.EDQUOT),
        ("something new", errno.EIO),
    ],
)
def test_what_the_library_says_of_a_disk_keeps_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise SafetensorError(text)

    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(OSError, match="cannot write step-") as caught:
        checkpoint.save(tmp_path, 1, {}, {}, keep=2)
    assert caught.value.errno == number and text in str(caught.value)
