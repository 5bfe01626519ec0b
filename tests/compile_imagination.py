"""Compile imagination of size1m for a GPU that is not here, and print what shared memory it takes.

python tests/compile_imagination.py 90 bf16 [FOLDER for the machine code]
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import triton.language as tl
from compile_kernels import NAMES, compiled

from dreamer_async.agent.actor_critic import Agent
from dreamer_async.agent.states import RSSMState
from dreamer_async.config import SIZES, LossConfig, ModelConfig
from dreamer_async.envs.spec import ActionSpec, EnvSpec, ObsSpec
from dreamer_async.fast.cuda import imagination

ROWS, HORIZON = 1024, 15


def main(capability: int, dtype: torch.dtype, folder: str = "") -> None:
    model = ModelConfig(**{key.partition(".")[2]: x for key, x in SIZES["size1m"].items()})
    for kind in ("discrete", "continuous"):

        def launch(
            kernel: Any, arguments: list[Any], constants: dict[str, Any], _: int, kind: str = kind
        ) -> None:
            inputs = (*arguments, *map(tl.constexpr, constants.values()))
            assert list(constants) == kernel.arg_names[-len(constants) :]
            options = {"num_warps": imagination.WARPS, "num_stages": imagination.STAGES}
            done = compiled(capability, kernel, inputs, options)
            print(kind, done.metadata.shared, flush=True)
            if folder:
                Path(folder, f"{kind}.cubin").write_bytes(done.asm["cubin"])

        imagination.launch = launch
        spec = EnvSpec("toy", "case", {"x": ObsSpec((3,), "float32")}, ActionSpec(kind, 6))
        agent = Agent(spec, model, LossConfig())
        agent.dtype = dtype
        stoch = torch.zeros(ROWS, model.stoch, model.classes, dtype=dtype)
        start = RSSMState(torch.zeros(ROWS, model.deter, dtype=dtype), stoch)
        noise = torch.zeros(ROWS, HORIZON, *spec.action.shape)
        imagination.Fused(agent).imagine(start, noise, torch.zeros(ROWS, HORIZON, model.stoch))


if __name__ == "__main__":
    main(int(sys.argv[1]), {name: x for x, name in NAMES.items()}[sys.argv[2]], *sys.argv[3:])
