"""A power failure at any moment of the real save leaves the old checkpoint or the new one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from power_loss import Disk, Operation, Sync, after_power_loss, recorded, restore

from dreamer_async.store import checkpoint

pytestmark = pytest.mark.faults
NEW = 40


def save(directory: Path, step: int) -> Path:
    return checkpoint.save(directory, step, {"weights": weights(step)}, {"env_steps": step}, keep=2)


def weights(step: int) -> torch.Tensor:
    return torch.full((100,), float(step))


def recorded_save(directory: Path, earlier: int) -> tuple[Disk, list[Operation]]:
    """What one save did after some earlier ones, the last of which was that of step `earlier`."""
    directory.mkdir()
    for step in range(10, earlier + 1, 10):
        save(directory, step)
    return recorded(directory, lambda: save(directory, NEW))


def found(tree: dict[str, bytes | None], scratch: Path) -> int | None:
    """The step that a resume would begin with."""
    scratch.mkdir()
    restore(tree, scratch)
    newest, _ = checkpoint.newest(scratch)
    shutil.rmtree(scratch)
    if newest is None:
        return None
    step = newest.manifest["env_steps"]
    assert torch.equal(newest.tensors["weights"], weights(step)), "wrong weights"
    return step


class Outcomes:
    """Steps that a resume may find after a power failure."""

    def __init__(self, scratch: Path) -> None:
        self.states: dict[frozenset[tuple[str, bytes | None]], int | None] = {}
        self._scratch = scratch

    def after(self, before: Disk, done: Sequence[Operation]) -> set[int | None]:
        """If the power fails right after these operations."""
        return {self._found(tree) for tree in after_power_loss(before, done)}

    def _found(self, tree: dict[str, bytes | None]) -> int | None:
        key = frozenset(tree.items())
        if key not in self.states:
            self.states[key] = found(tree, self._scratch)
        return self.states[key]


def lost(
    before: Disk, operations: Sequence[Operation], old: int | None, scratch: Path
) -> list[str]:
    """Everything that a power failure at any moment could break."""
    wrong, outcomes = [], Outcomes(scratch)
    for count in range(len(operations) + 1):
        allowed = {NEW} if count == len(operations) else {old, NEW}
        steps = outcomes.after(before, operations[:count]) - allowed
        wrong += [f"{step} after {count} operations" for step in steps]
    assert len(outcomes.states) > 10, f"only {len(outcomes.states)} states of the disk"
    return wrong


@pytest.mark.parametrize("earlier", [0, 30])
def test_the_old_or_the_new_checkpoint_survives_a_power_failure(
    tmp_path: Path, earlier: int
) -> None:
    """And once the save has come back, the new one; pruning included."""
    before, operations = recorded_save(tmp_path / "run", earlier)
    assert sum(isinstance(operation, Sync) for operation in operations) == 4
    assert lost(before, operations, earlier or None, tmp_path / "scratch") == []


@pytest.mark.parametrize("dropped", range(4))
def test_a_save_without_one_of_its_syncs_is_caught(tmp_path: Path, dropped: int) -> None:
    """The control: state file, manifest, its directory, the directory of all."""
    before, operations = recorded_save(tmp_path / "run", 30)
    syncs = [operation for operation in operations if isinstance(operation, Sync)]
    operations.remove(syncs[dropped])
    wrong = lost(before, operations, 30, tmp_path / "scratch")
    assert f"30 after {len(operations)} operations" in wrong


def test_a_rename_before_the_syncs_is_caught_by_the_hashes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them a cut file would be read as if it were whole."""
    before, operations = recorded_save(tmp_path / "run", 30)
    operations = [operation for operation in operations if not isinstance(operation, Sync)]
    assert Outcomes(tmp_path / "verified").after(before, operations) == {30, NEW}
    for verify in ("_verify_manifest", "_verify_state"):
        monkeypatch.setattr(checkpoint, verify, lambda *_: None)
    with pytest.raises(AssertionError, match="wrong weights"):
        Outcomes(tmp_path / "trusted").after(before, operations)
