"""Compile the kernels that filter for a GPU that is not here, and print what they take.

python tests/compile_kernels.py 90 bf16 size1m
filter_forward 47360 214 0      # bytes of shared memory, registers, bytes of stack: what is spilled
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dreamer_async.config import SIZES, ModelConfig
from dreamer_async.fast.cuda import filtering, fused, stepping
from dreamer_async.fast.cuda.step import Latent, Weights

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int32: "i32", torch.int64: "i64"}
ALIGNED = [["tt.divisibility", 16]]
"""PyTorch's memory begins at multiples of 16 bytes."""


def compiled(capability: int, kernel: Any, inputs: tuple[Any, ...], options: dict[str, int]) -> Any:
    """What Triton makes of a launch with these inputs, tensors of any device."""
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}

    def kind(x: Any, place: tuple[int, ...]) -> Any:
        if isinstance(x, tuple):
            return type(x)(*(kind(part, (*place, i)) for i, part in enumerate(x)))
        if isinstance(x, triton.language.constexpr):
            constants[place] = x.value
            return "constexpr"
        if isinstance(x, int):
            return "i32"
        attributes[place] = ALIGNED
        return "*" + NAMES[x.dtype]

    named = zip(kernel.arg_names, inputs, strict=True)
    kinds = {name: kind(x, (i,)) for i, (name, x) in enumerate(named)}
    source = ASTSource(kernel, kinds, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


class Launches:
    """Stands for `_launch` of `filtering` and of `stepping`, and compiles instead."""

    def __init__(self, capability: int) -> None:
        self.capability = capability
        self.done: set[str] = set()

    def of_a_sequence(self, kernel: Any, like: torch.Tensor, *inputs: Any) -> None:
        warps, stages = filtering.WARPS, filtering.STAGES[like.dtype]
        self.compile(kernel.__name__, kernel, inputs, warps, stages)

    def of_a_step(self, kernel: Any, grid: tuple[int, ...], *inputs: Any) -> None:
        ends = [str(x.value) for x in inputs if isinstance(x, triton.language.constexpr)]
        kind = ",".join([kernel.__name__, *ends])
        if kind not in self.done:
            self.done.add(kind)
            warps = stepping.warps_of(kernel.__name__)
            self.compile(kind, kernel, inputs, warps, stepping.STAGES)

    def compile(
        self, kind: str, kernel: Any, inputs: tuple[Any, ...], warps: int, stages: int
    ) -> None:
        options = {"num_warps": warps, "num_stages": stages}
        done = compiled(self.capability, kernel, inputs, options)
        print(kind, done.metadata.shared, *registers(done.asm["cubin"]), flush=True)


def registers(cubin: bytes) -> tuple[str, str]:
    """Registers of a thread and bytes of its stack, as the tool beside Triton's assembler reads."""
    tool = Path(str(triton.__file__)).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout)
    assert found, done.stdout + done.stderr
    return found[1], found[2]


def weights(model: ModelConfig, dtype: torch.dtype) -> Weights:
    hidden, deter, latent = model.hidden, model.deter, model.stoch * model.classes
    blocks, block = model.blocks, deter // model.blocks
    wide, narrow = torch.float32, dtype

    def empty(*shape: int, dtype: torch.dtype = narrow) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype)

    return Weights(
        empty(latent, hidden), empty(deter, 2 * hidden), empty(2, hidden),
        empty(2, hidden, dtype=wide), empty(blocks, block, block), empty(2 * hidden, deter),
        empty(deter, dtype=wide), empty(blocks, block, 3 * block), empty(blocks, 1, 3 * block),
        empty(hidden, dtype=wide), empty(hidden, latent), empty(latent),
    )  # fmt: skip


def main(capability: int, dtype: torch.dtype, size: str, batch: int = 16, steps: int = 2) -> None:
    model = ModelConfig(
        **{key.partition(".")[2]: x for key, x in SIZES[size].items() if key.startswith("model.")}
    )
    launches = Launches(capability)
    filtering._launch, stepping._launch = launches.of_a_sequence, launches.of_a_step
    kernels = filtering if fused.narrow(model, dtype) else stepping
    w, latent = weights(model, dtype), Latent(model.stoch, model.classes, model.unimix)
    numbers = model.stoch * model.classes

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype)

    action, token = empty(steps, batch, model.deter), empty(steps, batch, model.hidden)
    keep, noise = empty(steps, batch, 1), torch.empty(steps, batch, model.stoch)
    state = empty(batch, model.deter), empty(batch, numbers)
    deter, stoch, logits, kept = kernels.forward(w, latent, *state, action, token, keep, noise)
    outside = deter, stoch, logits
    kernels.backward(w, latent, deter, stoch, keep, logits, kept, outside)


if __name__ == "__main__":
    main(int(sys.argv[1]), {name: x for x, name in NAMES.items()}[sys.argv[2]], sys.argv[3])
