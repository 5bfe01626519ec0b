"""What CPUs compute with: C++ functions of float32, built once for the machine's processor.

Where the processor multiplies bfloat16, dense layers can do so, several times as fast.
"""

from __future__ import annotations

from dreamer_async.agent import ops
from dreamer_async.agent.backend import Backend
from dreamer_async.config import ModelConfig
from dreamer_async.fast.native.acting import acting
from dreamer_async.fast.native.core import fits
from dreamer_async.fast.native.dense import dense, heads
from dreamer_async.fast.native.filtering import filtering
from dreamer_async.fast.native.images import KERNELS, decode_images, encode_images, image_loss
from dreamer_async.fast.native.imagination import imagination
from dreamer_async.fast.native.library import in_bfloat16
from dreamer_async.fast.native.losses import latent_losses
from dreamer_async.fast.native.optim import NativeLaProp
from dreamer_async.fast.native.twohot import twohot_loss, twohot_mean

OPS = ops.PYTORCH._replace(
    dense=dense,
    heads=heads,
    encode_images=encode_images,
    decode_images=decode_images,
    image_loss=image_loss,
    latent_losses=latent_losses,
    twohot_mean=twohot_mean,
    twohot_loss=twohot_loss,
)


def native(otherwise: Backend) -> Backend:
    """The native functions, and for loops that they do not know another backend's."""
    return Backend(
        "native",
        OPS,
        lambda dyn: filtering(dyn, otherwise.filtering(dyn)),
        lambda agent: imagination(agent, otherwise.imagination(agent)),
        lambda dyn, actor: acting(dyn, actor, otherwise.acting(dyn, actor)),
        NativeLaProp,
        gaps,
    )


def native_in_bfloat16(otherwise: Backend) -> Backend:
    """The native functions with dense layers that multiply bfloat16."""
    exact = native(otherwise)
    return exact._replace(
        name="native in bfloat16",
        ops=OPS._replace(dense=in_bfloat16(dense), heads=in_bfloat16(heads)),
        filtering=lambda dyn: in_bfloat16(exact.filtering(dyn)),
        imagination=lambda agent: in_bfloat16(exact.imagination(agent)),
        acting=lambda dyn, actor: in_bfloat16(exact.acting(dyn, actor)),
    )


def gaps(model: ModelConfig) -> str:
    """What of a model the native functions do not know, and so PyTorch computes."""
    found = []
    if not fits(model):
        found.append(
            "filtering, imagining and acting, since they know one layer in front of the GRU and "
            f"one in the posterior (model.dyn_layers={model.dyn_layers}, "
            f"model.posterior_layers={model.posterior_layers})"
        )
    if model.kernel not in KERNELS:
        sizes = " and ".join(map(str, KERNELS))
        found.append(
            f"convolutions, since they know kernels of {sizes} (model.kernel={model.kernel})"
        )
    return f"native functions leave to PyTorch {'; and '.join(found)}" if found else ""
