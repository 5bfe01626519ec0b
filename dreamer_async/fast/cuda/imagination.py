"""All imagined steps of 16 rows in one kernel, for narrow networks.

Rows need nothing of each other, and nothing here has a gradient: the actor learns by REINFORCE
from detached states. So a program takes 16 rows through all steps: it reads the kernels from the
second cache, and what one product leaves to the next passes through memory that only it reads.

Not measured on a real card yet, so a setting (`train.fused_imagination`) chooses it.

Legend: R rows, H horizon, F feat, D deter, S stoch, K classes, Hd hidden, U units, G blocks,
A action, P outputs of the actor.
"""
# pyright: reportMissingImports=false, reportMissingParameterType=false

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

from dreamer_async.agent.actor_critic import Agent
from dreamer_async.agent.ops import NORM_EPS
from dreamer_async.agent.states import RSSMState, Trajectory
from dreamer_async.fast.cuda.rollout import Rollout
from dreamer_async.fast.cuda.tiles import (
    activate,
    activate_rows,
    fetch,
    inverse_rms,
    matmul,
    onehot,
    padded,
    put,
    sample_class,
    softmax,
    squares,
    tanh,
    unimix,
)
from dreamer_async.fast.cuda.unfit import Unfit

ROWS = 16
"""Rows of a program: the fewest that tensor cores multiply."""
CHUNK = 64
"""Rows of a kernel that are multiplied at once."""
WARPS, STAGES = 4, 2
WIDEST = 512
"""Largest deter: beyond it reading all kernels for 16 rows takes longer than launching much."""


def fits(agent: Agent) -> bool:
    """Whether the kernel can compute this agent: one action, and widths that are powers of two."""
    config, kind = agent.model, agent.spec.action.kind
    block = config.deter // config.blocks
    sides = block, config.hidden, config.units, config.stoch * config.classes
    powers = all(side >= ROWS and side & (side - 1) == 0 for side in sides)
    whole = config.classes & (config.classes - 1) == 0
    return kind != "several" and powers and whole and max(config.deter, *sides) <= WIDEST


class Fused(Rollout):
    """An agent's imagination in one kernel."""

    @torch.no_grad()
    def imagine(self, start: RSSMState, action_noise: Tensor, prior_noise: Tensor) -> Trajectory:
        """Roll out H steps from [R, ...] states with noise [R, H, ...].

        Raises Unfit where the GPU refuses the kernel.
        """
        given = action_noise.dtype, prior_noise.dtype
        assert given == (torch.float32, torch.float32), (given, "recorded samples have no kernel")
        rows, horizon = prior_noise.shape[:2]
        first, spec = start.feat, self._agent.spec.action
        feat = first.new_empty(rows, horizon + 1, first.shape[-1])
        feat[:, 0] = first
        kind = torch.int64 if spec.kind == "discrete" else torch.float32
        action = torch.empty(action_noise.shape, dtype=kind, device=first.device)
        arguments = self._arguments(feat, action, action_noise, prior_noise)
        launch(imagine_rows, arguments, self.constants(), rows)
        return Trajectory(feat, action)

    def constants(self) -> dict[str, Any]:
        """What the kernel is compiled for."""
        model, spec, pol = self._agent.model, self._agent.spec.action, self._agent.pol
        low, high = pol.heads[0].std_range
        return {
            "DETER": model.deter, "BLOCKS": model.blocks, "HIDDEN": model.hidden,
            "UNITS": model.units, "STOCH": model.stoch, "CLASSES": model.classes,
            "ACTOR": model.actor_layers, "PRIOR": model.prior_layers,
            "DISCRETE": spec.kind == "discrete", "ACTION": spec.size,
            "PADDED": padded(spec.size), "LOW": low, "HIGH": high,
            "UNIMIX": model.unimix, "EPS": NORM_EPS, "ROWS": ROWS, "CHUNK": CHUNK,
        }  # fmt: skip

    def _arguments(self, feat: Tensor, action: Tensor, *noise: Tensor) -> list[Tensor | int]:
        model, w, (rows, steps) = self._agent.model, self.pack(), feat.shape[:2]
        x = feat.new_empty(rows, 3 * model.hidden)
        hidden = feat.new_empty(2, rows, max(model.hidden, model.units))
        v = torch.empty(rows, model.deter, device=feat.device)
        return [
            feat, action, *(x.contiguous() for x in noise), x, hidden, v,
            *w, self._vectors(), rows, steps - 1,
        ]  # fmt: skip

    def _vectors(self) -> Tensor:
        """All biases and gains behind each other, in the order in which the kernel finds them."""
        dyn, pol = self._agent.dyn, self._agent.pol
        (hidden, norm), prior, actor = dyn.dynhid[0], dyn.prior_stack, pol.mlp.stack
        inputs = [
            (dyn.dynin0, dyn.dynin0norm),
            (dyn.dynin1, dyn.dynin1norm),
            (dyn.dynin2, dyn.dynin2norm),
        ]
        layers = [*inputs, *actor, (hidden, norm), *prior]
        pairs = [part for layer, gain in layers for part in (layer.bias, gain.scale)]
        head = [layer.bias for layer in pol.linears()]
        return torch.cat([*pairs, dyn.dyngru.bias, dyn.priorlogit.bias, *head])


def launch(
    kernel: Any, arguments: list[Tensor | int], constants: dict[str, Any], rows: int
) -> None:
    """Run a kernel for all rows; raises Unfit where the GPU refuses it."""
    try:
        grid = (triton.cdiv(rows, ROWS),)
        kernel[grid](*arguments, **constants, num_warps=WARPS, num_stages=STAGES)
    except TritonError as error:
        raise Unfit(str(error).partition("\n")[0]) from error


@triton.jit
def product(x, step, kernel, width, row, inside, DEPTH: tl.constexpr, OUT: tl.constexpr, CHUNK: tl.constexpr):  # fmt: skip # noqa: E501
    """x W of a tile [R, DEPTH] in memory, whose rows are `step` apart: [R, OUT] float32.

    The rows of W [DEPTH, OUT] are `width` apart.
    """
    total = tl.zeros([row.shape[0], OUT], tl.float32)
    column = tl.arange(0, OUT)
    part: tl.constexpr = CHUNK if DEPTH > CHUNK else DEPTH
    for k in range(0, DEPTH, part):
        inner = k + tl.arange(0, part)
        a = fetch(x + row[:, None] * step + inner[None, :], inside)
        b = tl.load(kernel + inner[:, None] * width + column[None, :])
        total = matmul(a, b, total)
    return total


@triton.jit
def vector(base, WIDTH: tl.constexpr):
    """Biases or gains: [1, WIDTH]."""
    return tl.load(base + tl.arange(0, WIDTH))[None, :]


@triton.jit
def layer(y, vectors, WIDTH: tl.constexpr, EPS: tl.constexpr):
    """SiLU(norm(y + bias)), its bias and gain being the next in `vectors`: [R, WIDTH]."""
    return activate_rows(y + vector(vectors, WIDTH), vector(vectors + WIDTH, WIDTH), WIDTH, EPS)


@triton.jit
def tower(hidden, side, step, kernels, vectors, row, inside, LAYERS: tl.constexpr, WIDTH: tl.constexpr, EPS: tl.constexpr, CHUNK: tl.constexpr):  # fmt: skip # noqa: E501
    """All layers but the first, from one half of `hidden` to the other; returns the last half."""
    column = tl.arange(0, WIDTH)[None, :]
    source = hidden
    for i in tl.static_range(1, LAYERS):
        tl.debug_barrier()
        kernel = kernels + (i - 1) * WIDTH * WIDTH
        y = product(source, step, kernel, WIDTH, row, inside, WIDTH, WIDTH, CHUNK)
        y = layer(y, vectors + 2 * WIDTH * i, WIDTH, EPS)
        source = hidden + (i % 2) * side
        put(source + row[:, None] * step + column, y, inside)
    tl.debug_barrier()
    return source


@triton.jit
def output(a, step, kernel, bias, width, row, inside, real, DEPTH: tl.constexpr, PADDED: tl.constexpr, CHUNK: tl.constexpr):  # fmt: skip # noqa: E501
    """One output for each action, of the actor's last layer: [R, PADDED], 0 where not real."""
    total = tl.zeros([row.shape[0], PADDED], tl.float32)
    column = tl.arange(0, PADDED)[None, :]
    part: tl.constexpr = CHUNK if DEPTH > CHUNK else DEPTH
    for k in range(0, DEPTH, part):
        inner = k + tl.arange(0, part)
        of_a = fetch(a + row[:, None] * step + inner[None, :], inside)
        total = matmul(of_a, fetch(kernel + inner[:, None] * width + column, real), total)
    return total + fetch(bias + column, real)


@triton.jit
def before_norm(
    v, h, step, x, own, common, of_action, index, bias, row, inside,
    DETER: tl.constexpr, BLOCK: tl.constexpr, HIDDEN: tl.constexpr, SHARED: tl.constexpr,
    DISCRETE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """What dynhid makes of h, of x and of a class, into v; returns the sums of squares [R, 1]."""
    total = tl.zeros([row.shape[0], 1], tl.float32)
    column = tl.arange(0, BLOCK)[None, :]
    part: tl.constexpr = HIDDEN if HIDDEN < CHUNK else CHUNK
    for at in range(0, DETER, BLOCK):
        y = product(h + at, step, own + at * BLOCK, BLOCK, row, inside, BLOCK, BLOCK, CHUNK)
        y += product(x, 3 * HIDDEN, common + at, DETER, row, inside, SHARED, BLOCK, part)
        if DISCRETE:
            y += tl.load(of_action + index * DETER + at + column).to(tl.float32)
        y += vector(bias + at, BLOCK)
        total += squares(y)
        put(v + row[:, None] * DETER + at + column, y, inside)
    return total


@triton.jit
def gated(after, v, h, step, inverse, gru, gain, bias, row, inside, DETER: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip # noqa: E501
    """The GRU's answer to h and SiLU(norm(v)), block by block, into `after`."""
    column = tl.arange(0, BLOCK)
    for at in range(0, DETER, BLOCK):
        y = fetch(v + row[:, None] * DETER + at + column[None, :], inside)
        q = activate(y, inverse, vector(gain + at, BLOCK)).to(gru.dtype.element_ty)
        kernel = gru + 3 * (at * BLOCK + column[:, None] * BLOCK) + column[None, :]
        biases = bias + 3 * at
        zeros = tl.zeros([row.shape[0], BLOCK], tl.float32)
        reset = matmul(q, tl.load(kernel), zeros) + vector(biases, BLOCK)
        cand = matmul(q, tl.load(kernel + BLOCK), zeros) + vector(biases + BLOCK, BLOCK)
        update = matmul(q, tl.load(kernel + 2 * BLOCK), zeros) + vector(biases + 2 * BLOCK, BLOCK)
        cand = tanh(tl.sigmoid(reset) * cand)
        update = tl.sigmoid(update - 1.0)
        place = row[:, None] * step + at + column[None, :]
        old = fetch(h + place, inside).to(tl.float32)
        put(after + place, update * cand + (1.0 - update) * old, inside)


@triton.jit
def imagine_rows(
    feat, actions, action_noise, prior_noise, x, hidden, v,
    of_h, of_z, actor, head, of_action, own, common, gru, prior, to_logits, vectors, rows, horizon,
    DETER: tl.constexpr, BLOCKS: tl.constexpr, HIDDEN: tl.constexpr, UNITS: tl.constexpr,
    STOCH: tl.constexpr, CLASSES: tl.constexpr, ACTOR: tl.constexpr, PRIOR: tl.constexpr,
    DISCRETE: tl.constexpr, ACTION: tl.constexpr, PADDED: tl.constexpr,
    LOW: tl.constexpr, HIGH: tl.constexpr, UNIMIX: tl.constexpr, EPS: tl.constexpr,
    ROWS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """From feat[:, 0] to feat [R, H+1, F] and actions; the equations of `Agent.imagine_step`.

    x [R, 3 Hd], hidden [2, R, max(Hd, U)] and v [R, D] are memory for what is on its way.
    """
    LATENT: tl.constexpr = STOCH * CLASSES
    BLOCK: tl.constexpr = DETER // BLOCKS
    SHARED: tl.constexpr = (2 if DISCRETE else 3) * HIDDEN
    OF_H: tl.constexpr = 2 * HIDDEN + UNITS
    OF_Z: tl.constexpr = HIDDEN + UNITS
    OUTPUTS: tl.constexpr = ACTION if DISCRETE else 2 * ACTION
    SIDE: tl.constexpr = HIDDEN if HIDDEN > UNITS else UNITS
    LOWER: tl.constexpr = feat.dtype.element_ty
    # Where the biases and gains of which layer begin.
    at_actor = vectors + 6 * HIDDEN
    at_hidden = at_actor + 2 * UNITS * ACTOR
    at_prior = at_hidden + 2 * DETER
    at_gru = at_prior + 2 * HIDDEN * PRIOR
    at_logits = at_gru + 3 * DETER
    at_head = at_logits + LATENT

    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (row < rows)[:, None]
    side = rows * SIDE
    step = (horizon + 1) * (DETER + LATENT)
    of_hidden = tl.arange(0, HIDDEN)[None, :]
    of_units = tl.arange(0, UNITS)[None, :]
    of_latent = tl.arange(0, LATENT)[None, :]
    for t in range(horizon):
        h = feat + t * (DETER + LATENT)
        z = h + DETER
        after = z + LATENT
        # What the model and the actor read of h and z.
        y = product(h, step, of_h, OF_H, row, inside, DETER, HIDDEN, CHUNK)
        put(x + row[:, None] * 3 * HIDDEN + of_hidden, layer(y, vectors, HIDDEN, EPS), inside)
        y = product(z, step, of_z, OF_Z, row, inside, LATENT, HIDDEN, CHUNK)
        y = layer(y, vectors + 2 * HIDDEN, HIDDEN, EPS)
        put(x + row[:, None] * 3 * HIDDEN + HIDDEN + of_hidden, y, inside)
        y = product(h, step, of_h + HIDDEN, OF_H, row, inside, DETER, UNITS, CHUNK)
        y += product(z, step, of_z + HIDDEN, OF_Z, row, inside, LATENT, UNITS, CHUNK)
        put(hidden + row[:, None] * SIDE + of_units, layer(y, at_actor, UNITS, EPS), inside)
        a = tower(hidden, side, SIDE, actor, at_actor, row, inside, ACTOR, UNITS, EPS, CHUNK)

        # a ~ pi(a | h, z)
        column = tl.arange(0, PADDED)
        real = (column < ACTION)[None, :]
        mean = output(a, SIDE, head, at_head, OUTPUTS, row, inside, real, UNITS, PADDED, CHUNK)
        place = row * horizon + t
        index = tl.zeros([ROWS, 1], tl.int32)
        if DISCRETE:
            probs = softmax(tl.reshape(mean, [ROWS, 1, PADDED]), ACTION)
            noise = tl.load(action_noise + place, mask=row < rows, other=0.0)
            index = sample_class(probs, noise[:, None], ACTION)
            tl.store(actions + place[:, None], index.to(tl.int64), mask=inside)
        else:
            std = output(
                a, SIDE, head + ACTION, at_head + ACTION, OUTPUTS, row, inside, real,
                UNITS, PADDED, CHUNK,
            )  # fmt: skip
            noise = fetch(action_noise + place[:, None] * ACTION + column[None, :], inside & real)
            action = tanh(mean) + ((HIGH - LOW) * tl.sigmoid(std + 2.0) + LOW) * noise
            action = tl.where(real, action, 0.0)
            tl.store(
                actions + place[:, None] * ACTION + column[None, :], action, mask=inside & real
            )
            action = action.to(LOWER).to(tl.float32)
            action = action / tl.maximum(tl.abs(action), 1.0)
            zeros = tl.zeros([ROWS, HIDDEN], tl.float32)
            kernel = of_action + column[:, None] * HIDDEN + of_hidden
            y = matmul(action.to(LOWER), fetch(kernel, tl.trans(real)), zeros)
            y = layer(y, vectors + 4 * HIDDEN, HIDDEN, EPS)
            put(x + row[:, None] * 3 * HIDDEN + 2 * HIDDEN + of_hidden, y, inside)
            tl.debug_barrier()

        # h' = f(h, z, a)
        total = before_norm(
            v, h, step, x, own, common, of_action, index, at_hidden, row, inside,
            DETER, BLOCK, HIDDEN, SHARED, DISCRETE, CHUNK,
        )  # fmt: skip
        tl.debug_barrier()
        inverse = inverse_rms(total, DETER, EPS)
        gated(after, v, h, step, inverse, gru, at_hidden + DETER, at_gru, row, inside, DETER, BLOCK)
        tl.debug_barrier()

        # z' ~ prior(h')
        kernel = of_h + HIDDEN + UNITS
        y = product(after, step, kernel, OF_H, row, inside, DETER, HIDDEN, CHUNK)
        put(hidden + row[:, None] * SIDE + of_hidden, layer(y, at_prior, HIDDEN, EPS), inside)
        p = tower(hidden, side, SIDE, prior, at_prior, row, inside, PRIOR, HIDDEN, EPS, CHUNK)
        y = product(p, SIDE, to_logits, LATENT, row, inside, HIDDEN, LATENT, CHUNK)
        y = tl.reshape(y + vector(at_logits, LATENT), [ROWS, STOCH, CLASSES])
        variable = tl.arange(0, STOCH)[None, :]
        noise = fetch(prior_noise + (row[:, None] * horizon + t) * STOCH + variable, inside)
        index = sample_class(unimix(softmax(y, CLASSES), UNIMIX, CLASSES), noise, CLASSES)
        y = tl.reshape(onehot(index, CLASSES), [ROWS, LATENT])
        put(after + DETER + row[:, None] * step + of_latent, y, inside)
        tl.debug_barrier()
