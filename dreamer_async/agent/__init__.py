"""DreamerV3: the world model, the actor and critic, one training step, and acting."""

from dreamer_async.agent.actor_critic import Agent
from dreamer_async.agent.batch import Batch, Noise
from dreamer_async.agent.policy import Policy, PolicyCarry
from dreamer_async.agent.states import RSSMState
from dreamer_async.agent.trainer import Trainer, Update

__all__ = ["Agent", "Batch", "Noise", "Policy", "PolicyCarry", "RSSMState", "Trainer", "Update"]
