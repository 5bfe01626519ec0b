"""What of `agent/` is written once more here, and whether it still is what is written there.

An edit of such a function in `agent/` alone changes nothing that a backend of this package
computes. So `copies.json` keeps what each of them looked like when all backends were last compared
(`tests/fast`), and a run says which of them has been edited since.

After mirroring an edit, when the tests pass: `python -m dreamer_async.fast.copies`.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import json
import tokenize
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

from dreamer_async.agent import (
    actions,
    actor_critic,
    distributions,
    heads,
    losses,
    nets,
    ops,
    optim,
    rssm,
    states,
    trainer,
)
from dreamer_async.agent.backend import Backend
from dreamer_async.fast.choose import NATIVE, NATIVE_BFLOAT16
from dreamer_async.fast.cuda.backend import CUDA, WITHOUT_NATIVE

MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        *(actions, actor_critic, distributions, heads, losses, nets, ops, optim, rssm, states),
        trainer,
    )
}
RECORD = Path(__file__).with_name("copies.json")
FILTERING = (
    *("rssm.RSSM.observe", "rssm.RSSM.observe_step", "rssm.RSSM.sequence_model"),
    *("rssm.RSSM.posterior", "rssm.RSSM.sample", "rssm.RSSM._logits"),
    *("distributions.unimix", "distributions.straight_through"),
    *("nets.to_blocks", "nets.from_blocks", "nets.BlockLinear.forward"),
)
"""Whoever writes out its gradient has these, too."""
IMAGINATION = (
    *("actor_critic.Agent.imagine", "actor_critic.Agent.imagine_step"),
    *("actor_critic.imagine_step", "actor_critic.roll_out"),
    *("rssm.RSSM.imagine_step", "rssm.RSSM.prior"),
)
LAYERS = (
    *("ops.dense", "ops.heads", "ops._linear", "ops.rms_norm", "ops.gain_of"),
    *("ops.encode_images", "ops.decode_images", "ops.convolve", "ops.pool_norm_silu"),
    *("ops.shuffle_norm_silu", "ops.phases", "ops.pixel_shuffle", "ops.block_linear"),
)
"""Layers, and what they are made of."""
LOSSES = ("losses.twohot_loss", "distributions.twohot_cross_entropy")
OPTIMISER = ("optim.LaProp.step", "optim.clip_by_agc")
EVERYWHERE = frozenset((*FILTERING, *IMAGINATION, *LAYERS, *LOSSES, *OPTIMISER))
ON_CPUS = (
    *("actor_critic.Agent.read", "actions.embed_action", "states.RSSMState.feat"),
    *("heads.Actor.forward", "heads.Actor.params", "heads.Actor.sample"),
    *("heads.ActionHead.params", "heads.ActionHead.sample", "heads.TwohotHead.mean"),
    *("distributions.sample_class", "distributions.class_below", "distributions.onehot"),
    *("distributions.bounded_normal", "distributions.sample_normal", "ops.image_loss"),
    *("distributions.mixed_logprobs", "distributions.categorical_kl"),
    *("distributions.categorical_entropy", "losses.kl_losses", "losses.latent_losses"),
    *("distributions.twohot", "distributions.twohot_mean"),
    *("nets.Linear.forward", "nets.RMSNorm.forward"),
    *("optim.laprop", "optim.scale_by_rms", "optim.scale_by_momentum", "optim.agc_excess"),
)
COPIES: Mapping[str, frozenset[str]] = {
    WITHOUT_NATIVE.name: frozenset((*FILTERING, "actor_critic.Agent.imagine")),
    CUDA.name: EVERYWHERE | {"losses.lambda_return", "trainer.Trainer._behave"},
    NATIVE.name: EVERYWHERE.union(ON_CPUS),
    NATIVE_BFLOAT16.name: EVERYWHERE.union(ON_CPUS),
}
"""Name of a backend -> functions of `agent/` that it computes, at least in one place, by code of
its own."""


def edited(backend: Backend) -> str:
    """Which functions of `agent/` a backend computes as they were before an edit; mostly none."""
    copied, known = COPIES.get(backend.name, ()), recorded()
    changed = sorted(each for each in copied if digest_of(each) not in ("", known.get(each)))
    if not changed:
        return ""
    return (
        f"{', '.join(changed)} in agent/ {'was' if len(changed) == 1 else 'were'} edited, and this "
        f"run computes with the copies in fast/ instead ({backend.name}): "
        "-s train.backend=pytorch computes with agent/ alone; docs/backends.md says more"
    )


def recorded() -> dict[str, str]:
    """What each function was when all backends were last compared."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def current() -> dict[str, str]:
    """What each function is now."""
    return {name: digest_of(name) for name in sorted(frozenset().union(*COPIES.values()))}


def digest_of(name: str) -> str:
    """A hash of the code of a function of `agent/`; empty where its source is not at hand."""
    try:
        source = inspect.getsource(_function(name))
    except OSError:
        return ""
    code = "\n".join(_code(dedent(source)))
    return hashlib.sha256(code.encode()).hexdigest()[:12]


def _function(name: str) -> Callable[..., Any]:
    module, *path = name.split(".")
    found: Any = MODULES[module]
    for part in path:
        found = inspect.getattr_static(found, part)
    function: Any = found.fget if isinstance(found, property) else found
    return function


def _code(source: str) -> Iterator[str]:
    """The lines of a function without comments, empty lines and its docstring."""
    [made] = ast.parse(source).body
    assert isinstance(made, ast.FunctionDef), source
    about = made.body[0] if ast.get_docstring(made) is not None else None
    skipped = range(about.lineno, (about.end_lineno or 0) + 1) if about else range(0)
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    kept = (line.rstrip() for row, line in enumerate(lines, 1) if row not in skipped)
    return filter(None, kept)


if __name__ == "__main__":
    RECORD.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {RECORD}")
