"""Every setting of a run, as frozen dataclasses that refuse what cannot work.

Defaults are those of the official code, except for `env.resize`; those of `model.*` are size1m's,
which every size replaces. `config.resolve` builds a `Config`; each component
gets its own part of it, and nobody writes to one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dreamer_async.config.schema import ConfigError, shown


def _need(part: Any, names: str, ok: Any, what: str) -> None:
    """Refuse the first of the named fields whose value fails `ok`."""
    for name in names.split():
        value = getattr(part, name)
        if not ok(value):
            raise ConfigError(f"{part.PREFIX}.{name} must be {what}, got {shown(value)}")


def _positive(value: float) -> bool:
    return value > 0


def _not_negative(value: float) -> bool:
    return value >= 0


def _share(value: float) -> bool:
    return 0 <= value <= 1


def _below_one(value: float) -> bool:
    return 0 <= value < 1


def _is_name(value: str) -> bool:
    return 0 < len(value) <= 200 and value.isprintable()


@dataclass(frozen=True)
class ModelConfig:
    """Shapes of the networks (spec of the official repository, size presets below)."""

    PREFIX: ClassVar[str] = "model"

    deter: int = 512
    """Width of the deterministic state h."""
    hidden: int = 64
    """Width of the hidden layers inside the RSSM."""
    classes: int = 4
    """Classes of each categorical latent variable."""
    depth: int = 4
    """Base number of channels of the CNN."""
    units: int = 64
    """Width of every MLP layer."""
    stoch: int = 32
    """Number of categorical latent variables."""
    blocks: int = 8
    """Blocks of the block-diagonal recurrent layers."""
    block_space: int = 8
    """Blocks of the decoder's first spatial layer."""
    kernel: int = 5
    """Side of the convolution kernels."""
    multipliers: tuple[int, ...] = (2, 3, 4, 4)
    """Channels of the CNN stages, in units of depth."""
    dyn_layers: int = 1
    """Block-diagonal hidden layers in front of the GRU."""
    posterior_layers: int = 1
    """Hidden layers of the posterior."""
    prior_layers: int = 2
    """Hidden layers of the prior."""
    encoder_layers: int = 3
    """MLP layers of the vector encoder."""
    decoder_layers: int = 3
    """MLP layers of the vector decoder."""
    reward_layers: int = 1
    """MLP layers of the reward head."""
    cont_layers: int = 1
    """MLP layers of the continue head."""
    actor_layers: int = 3
    """MLP layers of the actor."""
    critic_layers: int = 3
    """MLP layers of the critic."""
    bins: int = 255
    """Bins of the symexp two-hot heads."""
    unimix: float = 0.01
    """Share of the uniform distribution mixed into the categorical latents."""
    actor_min_std: float = 0.1
    """Smallest standard deviation of a continuous policy."""
    actor_max_std: float = 1.0
    """Largest standard deviation of a continuous policy."""
    actor_outscale: float = 0.01
    """Scale of the actor's initial output weights."""

    def __post_init__(self) -> None:
        _need(self, "deter hidden depth units stoch blocks block_space", _positive, "positive")
        _need(self, "dyn_layers posterior_layers prior_layers", _positive, "positive")
        _need(self, "encoder_layers decoder_layers", _positive, "positive")
        _need(self, "reward_layers cont_layers actor_layers critic_layers", _positive, "positive")
        _need(self, "classes", lambda n: 2 <= n <= 256, "from 2 to 256 (indices are bytes)")
        _need(self, "bins", lambda n: n >= 3 and n % 2, "odd and at least 3")
        _need(self, "kernel", lambda n: n >= 1 and n % 2, "odd")
        _need(
            self, "multipliers", lambda m: m and min(m) > 0, "positive whole numbers, one or more"
        )
        _need(self, "unimix", _below_one, "at least 0 and below 1")
        _need(self, "actor_min_std", _positive, "positive")
        _need(self, "actor_outscale", _not_negative, "at least 0")
        if self.actor_max_std < self.actor_min_std:
            raise ConfigError(
                f"model.actor_max_std must be at least model.actor_min_std = {self.actor_min_std}, "
                f"got {self.actor_max_std}"
            )
        for name in ("blocks", "block_space"):
            blocks = getattr(self, name)
            if self.deter % blocks:
                raise ConfigError(
                    f"model.deter must be a multiple of model.{name} = {blocks}, got {self.deter}"
                )

    def check_images(self) -> None:
        """Raise ConfigError if no images can be decoded; those who decode vectors never ask."""
        deepest = self.depth * self.multipliers[-1]
        if deepest % self.block_space:
            raise ConfigError(
                f"model.depth times the last of model.multipliers is {deepest}; "
                f"it must be a multiple of model.block_space = {self.block_space}"
            )


@dataclass(frozen=True)
class LossConfig:
    """Weights and constants of the losses (paper, equations 4 to 12)."""

    PREFIX: ClassVar[str] = "loss"

    reconstruction: float = 1.0
    """Weight of each reconstruction loss."""
    reward: float = 1.0
    """Weight of the reward loss."""
    cont: float = 1.0
    """Weight of the continue loss."""
    dyn: float = 1.0
    """Weight of the dynamics KL."""
    rep: float = 0.1
    """Weight of the representation KL."""
    actor: float = 1.0
    """Weight of the policy loss."""
    critic: float = 1.0
    """Weight of the imagined value loss."""
    replay_critic: float = 0.3
    """Weight of the value loss on replayed sequences."""
    free_nats: float = 1.0
    """KL below which there is no gradient, in nats per time step."""
    horizon: float = 333.0
    """Discount horizon in agent steps: gamma = 1 - 1 / horizon."""
    discount_in_cont: bool = True
    """Fold the discount into the continue target (the official default)."""
    return_lambda: float = 0.95
    """Lambda of the lambda returns."""
    entropy: float = 3e-4
    """Weight of the policy entropy."""
    slow_regularizer: float = 1.0
    """Weight of the critic's regression to the slow critic."""
    slow_rate: float = 0.02
    """Share of the critic that enters the slow critic after each update."""
    imagine_length: int = 15
    """Imagined steps per start state."""
    imagine_last: int = 0
    """How many last steps of each sequence start an imagination; 0 means all."""
    return_rate: float = 0.01
    """Rate of the moving percentiles of the returns."""
    return_floor: float = 1.0
    """Smallest return scale S."""
    return_low: float = 5.0
    """Lower percentile of the return range."""
    return_high: float = 95.0
    """Upper percentile of the return range."""

    def __post_init__(self) -> None:
        _need(self, "reconstruction reward cont dyn rep", _not_negative, "at least 0")
        _need(self, "actor critic replay_critic", _not_negative, "at least 0")
        _need(self, "free_nats entropy slow_regularizer", _not_negative, "at least 0")
        _need(self, "horizon", lambda h: h > 1, "more than 1 step")
        _need(self, "return_lambda slow_rate return_rate", _share, "between 0 and 1")
        _need(self, "imagine_length", _positive, "positive")
        _need(self, "imagine_last", lambda n: n == 0 or n >= 2, "0 (all) or at least 2")
        _need(self, "return_floor", _positive, "positive")
        if not 0 <= self.return_low < self.return_high <= 100:
            raise ConfigError(
                "loss.return_low and loss.return_high must be percentiles with low < high, "
                f"got {self.return_low} and {self.return_high}"
            )


@dataclass(frozen=True)
class OptimConfig:
    """The one optimiser: adaptive gradient clipping, then LaProp."""

    PREFIX: ClassVar[str] = "optim"

    lr: float = 4e-5
    """Learning rate."""
    warmup: int = 1000
    """Updates over which the learning rate rises from 0."""
    agc: float = 0.3
    """Largest gradient norm as a share of the parameter norm, per tensor."""
    agc_floor: float = 1e-3
    """Smallest parameter norm that the clipping assumes."""
    beta2: float = 0.999
    """Decay of the second moment."""
    momentum: float = 0.9
    """Decay of the momentum that follows the normalisation."""
    eps: float = 1e-20
    """Added to the root of the second moment."""

    def __post_init__(self) -> None:
        _need(self, "lr agc agc_floor eps", _positive, "positive")
        _need(self, "warmup", _not_negative, "at least 0")
        _need(self, "beta2 momentum", _below_one, "at least 0 and below 1")


KINDS = "key=hidden, vector, image, image:hwc, image:chw, category or category:COUNT"
IMAGES = "pad, resize, resize:SIDE or resize:HEIGHTxWIDTH in multiples of 16"
_KIND = re.compile(r"hidden|vector|image(:(hwc|chw))?|category(:[1-9][0-9]{0,6})?")
_IMAGE = re.compile(r"pad|resize(:([0-9]{2,4})(x([0-9]{2,4}))?)?")


def _are_kinds(value: Mapping[str, str]) -> bool:
    return all(_KIND.fullmatch(kind) for kind in value.values())


def _fits_images(value: str) -> bool:
    """Tell whether sides are multiples of 16, which those of the networks' images must be."""
    found = _IMAGE.fullmatch(value)
    sides = [int(side) for side in found.group(2, 4) if side] if found else [0]
    return all(side > 0 and side % 16 == 0 for side in sides)


@dataclass(frozen=True)
class EnvConfig:
    """Which environment runs, and how many of it."""

    PREFIX: ClassVar[str] = "env"

    suite: str = "atari"
    """Suite of environments."""
    task: str = "pong"
    """Task inside the suite."""
    num_envs: int = 16
    """Environments that step in parallel."""
    batch_size: int = 0
    """Environments per policy call; 0 means half of them (all of them with sync)."""
    threads: int = 0
    """Stepping threads of an envpool; 0 lets it choose. Where Mesa draws in software it is one."""
    resize: str = "area"
    """How Atari's images are scaled: area (envpool), or exact (Pillow, as the official code)."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of what builds the environment."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Observation keys that are read as something else than their space says: key=hidden, vector,
    image (image:hwc, image:chw) or category (category:COUNT)."""
    image: str = "pad"
    """What is done to images whose sides 16 does not divide: pad, resize, resize:SIDE or
    resize:HEIGHTxWIDTH."""
    repeat: int = 1
    """Environment steps per agent step (the action repeat)."""

    def __post_init__(self) -> None:
        _need(self, "suite task", _is_name, "a name of printable characters")
        _need(self, "num_envs", lambda n: 1 <= n <= 4096, "from 1 to 4096")
        _need(self, "threads", lambda n: 0 <= n <= 1024, "from 0 to 1024")
        _need(self, "resize", ("area", "exact").__contains__, "area or exact")
        _need(self, "kinds", _are_kinds, KINDS)
        _need(self, "repeat", lambda n: 1 <= n <= 1000, "from 1 to 1000")
        _need(self, "image", _fits_images, IMAGES)
        if not 0 <= self.batch_size <= self.num_envs:
            raise ConfigError(
                f"env.batch_size must be from 0 to env.num_envs = {self.num_envs}, "
                f"got {self.batch_size}"
            )


@dataclass(frozen=True)
class ReplayConfig:
    """The replay ring."""

    PREFIX: ClassVar[str] = "replay"

    capacity: int = 0
    """Steps kept over all environments; 0 means as many as make sense here."""
    capacity_gb: float = 0.0
    """The same as a size in GB; 0 means no such bound."""
    directory: str = ""
    """Where the ring lives; empty means inside the run directory."""
    online: bool = True
    """Serve each fresh window once before sampling uniformly."""
    source: str = ""
    """Run, or folder of recorded episodes, that an empty replay is filled from when a run learns
    from what was recorded; empty means none."""
    source_actions: str = "after"
    """Of a folder of episodes: action t was chosen after observation t, as the official code has
    it (after), or led to observation t (before)."""

    def __post_init__(self) -> None:
        _need(self, "capacity capacity_gb", _not_negative, "at least 0")
        _need(self, "directory source", str.isprintable, "a path of printable characters")
        _need(self, "source_actions", ("after", "before").__contains__, "after or before")


INIT_PARTS = ("all", "world_model")
PRECISIONS = ("auto", "float32", "bfloat16", "bfloat16-dense", "mixed")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")


@dataclass(frozen=True)
class TrainConfig:
    """Schedule, hardware and safety."""

    PREFIX: ClassVar[str] = "train"

    steps: int = 51_000_000
    """Agent steps after which the run ends."""
    updates: int = 0
    """Updates after which a run ends that learns from what its replay holds, without environments;
    0 means that environments step."""
    init: str = ""
    """Run or checkpoint whose weights a new run begins with; empty means random ones."""
    init_parts: str = "all"
    """What it takes of them: all, or world_model (encoder, dynamics, decoder, reward, continue)."""
    batch_size: int = 16
    """Sequences per update."""
    batch_length: int = 64
    """Trained time steps per sequence, without the context step."""
    train_ratio: float = 32.0
    """Replayed steps per agent step, counted after the prefill."""
    seed: int = 0
    """Seed of networks, sampling and environments."""
    sync: bool = False
    """Collect and learn in lockstep, deterministically."""
    device: str = "auto"
    """cpu, cuda, cuda:N or auto."""
    precision: str = "auto"
    """float32, bfloat16, mixed (bfloat16 in convolutions only), bfloat16-dense (in products of
    dense layers only, on CPUs) or auto: bfloat16 on GPUs, float32 on CPUs, but mixed without native
    functions where the hardware has bfloat16."""
    compile: bool = True
    """Compile the update; GPUs only."""
    backend: str = "auto"
    """auto: native functions on CPUs, kernels for GPUs there; or pytorch: what dreamer_async/agent/
    says and nothing else, for whoever changes it (several times slower)."""
    native: bool = True
    """Compute with native functions, prebuilt or built at the first start; CPUs only."""
    capture: bool = True
    """Record the compiled update as one CUDA graph; GPUs only."""
    fused_filtering: bool = False
    """Filter in Triton kernels: all steps in one and back in another where the model is narrow
    enough, else a few for each step; compiled updates on GPUs only. Not yet measured on one."""
    fused_imagination: bool = False
    """Imagine all steps in one Triton kernel where the model is narrow enough; compiled updates on
    GPUs only. Not yet measured on one."""
    dependent_launch: bool = False
    """Let compiled kernels start while those before them end (PDL of CUDA); compiled updates on
    GPUs of compute capability 9.0 or newer. Not yet measured on one."""
    threads: int = 0
    """CPU threads of the learner; 0 means all cores up to 8, and without native functions 1 for
    networks narrower than size1m."""
    checkpoint_seconds: float = 300.0
    """Seconds between two checkpoints."""
    keep_checkpoints: int = 3
    """How many checkpoints stay on disk (at least 2)."""
    metrics_seconds: float = 1.0
    """Seconds between two metrics events."""
    skip_limit: int = 10
    """Non-finite updates in a row after which the run stops."""
    grace_seconds: float = 60.0
    """Longest wait for a graceful stop before the process is ended; environments are given up after
    one second of it."""

    def __post_init__(self) -> None:
        _need(self, "steps batch_size train_ratio", _positive, "positive")
        _need(self, "updates", _not_negative, "at least 0")
        _need(self, "init", str.isprintable, "a path of printable characters")
        _need(self, "init_parts", INIT_PARTS.__contains__, " or ".join(INIT_PARTS))
        _need(self, "batch_length", lambda n: n >= 2, "at least 2")
        _need(self, "backend", ("auto", "pytorch").__contains__, "auto or pytorch")
        _need(self, "seed", lambda n: 0 <= n < 2**31, "from 0 to 2147483647")
        _need(self, "device", _DEVICE.fullmatch, "auto, cpu, cuda or cuda:N")
        _need(
            self,
            "precision",
            PRECISIONS.__contains__,
            "auto, float32, bfloat16, bfloat16-dense or mixed",
        )
        _need(self, "threads", lambda n: 0 <= n <= 1024, "from 0 to 1024")
        _need(self, "checkpoint_seconds metrics_seconds grace_seconds", _positive, "positive")
        _need(self, "keep_checkpoints", lambda n: n >= 2, "at least 2 (one may be being written)")
        _need(self, "skip_limit", _positive, "positive")

    @property
    def wants_native(self) -> bool:
        """Whether CPUs are to compute with native functions, if these can be had."""
        return self.native and self.backend == "auto"


@dataclass(frozen=True)
class Config:
    """One run."""

    size: str = "size1m"
    """Name of the size preset that `model` started from."""
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        ring = self.replay.capacity
        window = self.env.num_envs * (self.train.batch_length + 1)
        if ring and ring < window:
            raise ConfigError(
                f"replay.capacity must hold one window per environment, at least {window} steps "
                f"with {self.env.num_envs} environments, got {ring}"
            )
