"""An NVIDIA GPU that torch cannot use: said in one line, with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dreamer_async.cli import doctor
from dreamer_async.cli.inputs import configure, unused_gpu
from dreamer_async.machine import nvidia
from dreamer_async.machine.device import choose_device

VERSION = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sun May 12 19:39:15 UTC 2024
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)
"""
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build\n"


def machine(
    root: Path, driver: str = "535.183.01", text: str = VERSION, device: bool = True
) -> Path:
    """The files of a machine with an NVIDIA GPU."""
    (root / "proc/driver/nvidia").mkdir(parents=True)
    (root / "proc/driver/nvidia/version").write_text(text.format(driver))
    (root / "dev").mkdir()
    if device:
        for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
            (root / "dev" / name).touch()
    return root


@pytest.fixture
def torch_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch for CUDA 13 that finds no device."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("text", [VERSION, OPEN])
@pytest.mark.usefixtures("torch_of")
def test_a_driver_that_is_too_old_is_named(tmp_path: Path, text: str) -> None:
    said = nvidia.unused(machine(tmp_path, text=text))
    assert said.endswith("its driver 535.183.01 is too old for CUDA 13.0, which needs 580 or newer")
    assert "\n" not in said


@pytest.mark.usefixtures("torch_of")
def test_a_driver_that_is_new_enough_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: then torch's own words count, the first of many."""

    def refuse() -> None:
        raise RuntimeError("CUDA unknown error - this may be due to a reboot. Set it\nand so on")

    monkeypatch.setattr(torch.cuda, "init", refuse)
    said = nvidia.unused(machine(tmp_path, "580.65.06"))
    assert said.endswith("is not used: CUDA unknown error - this may be due to a reboot")


def test_a_torch_without_cuda_is_named(
    tmp_path: Path, torch_of: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert f"torch {torch.__version__} is built without CUDA" in nvidia.unused(machine(tmp_path))


def test_a_device_that_may_not_be_opened_is_named(
    tmp_path: Path, torch_of: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machine(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "nvidia0")
    assert nvidia.unused(root).endswith("no permission to use /dev/nvidia0")


@pytest.mark.usefixtures("torch_of")
def test_a_container_without_the_device_is_told(tmp_path: Path) -> None:
    assert "there is no /dev/nvidia*" in nvidia.unused(machine(tmp_path, device=False))


def test_nothing_is_said_where_all_is_well_or_meant(
    tmp_path: Path, torch_of: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nvidia.unused(tmp_path / "nowhere") == "", "a machine without a GPU"
    root = machine(tmp_path)
    assert nvidia.unused(root), "the control"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert nvidia.unused(root) == "", "hidden on purpose"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert nvidia.unused(root) == "", "used"


def test_who_asks_for_a_gpu_or_takes_what_comes_is_told(
    tmp_path: Path, torch_of: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvidia.unused, "__defaults__", (machine(tmp_path),))
    finding = doctor._torch()
    assert finding.status == "bad" and "535.183.01 is too old" in finding.detail
    with pytest.raises(ValueError, match=r"device cuda: .*535.183.01 is too old.*try --device cpu"):
        choose_device("cuda")
    flags = {"train.compile": "false"}
    assert "535.183.01 is too old" in configure("toy", None, None, flags, None).note
    on_cpu = flags | {"train.device": "cpu"}
    assert configure("toy", None, None, on_cpu, None).note == "", "who wants the CPU knows"
    assert unused_gpu("cpu", "cpu") == unused_gpu("auto", "cuda") == ""


def test_a_gpu_that_refuses_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an exclusive one that another process uses."""

    def refuse(device: torch.device) -> None:
        raise torch.AcceleratorError("CUDA error: all CUDA-capable devices are busy\nand so on")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", refuse)
    finding = doctor._torch()
    assert finding.status == "bad" and finding.detail.endswith("devices are busy")
