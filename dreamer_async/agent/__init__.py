"""DreamerV3: the world model, the actor and critic, one training step, and acting.

Equations are numbered as in the first preprint, arXiv 2301.04104v1; where the official code differs
from it, the code is followed (see docs/equations.md). Read in this order:

 1. `distributions`: "Symlog Predictions", eq. 1 and 2; unimix, straight-through; two-hot, eq. 8, 9
 2. `losses`: KL with free nats, eq. 5; "Critic Learning", eq. 7 and 10; "Actor Learning", eq. 11
 3. `normalize`: the scale S of the returns, eq. 12
 4. `ops`, `nets`: linear, block-diagonal and convolution layers, norm and SiLU (appendix)
 5. `states`: the model state (h, z) and what is made of it, filtered and imagined
 6. `coders`: "World Model Learning", eq. 3: encoder and decoder, with the decoder's part of eq. 5
 7. `rssm`: eq. 3: sequence model, posterior, prior (the dynamics predictor); the loop over time
 8. `actions`, `heads`: reward and continue of eq. 3, actor and critic of eq. 6
 9. `world_model`: eq. 3 as a whole, all of eq. 5
10. `actor_critic`: "Actor Critic Learning": imagination, eq. 6, then eq. 7 to 12 put together
11. `batch`, `optim`, `trainer`: one training step, with the sum of all losses, eq. 4
12. `policy`: acting in the environment; `open_loop`: video prediction

Beside the paper stand `ops` and `backend`: who computes the layers, and the loops over them. It is
chosen once and handed in; PyTorch's is here, the accelerators are in `dreamer_async.fast`. Those
have code of their own for some of what is here, and a run computes with them unless it is told
`-s train.backend=pytorch`: an edit here alone may have no effect, which the run then says
(docs/backends.md, "Change the algorithm").

Every file begins with a legend of the letters in its shapes. B is batch, T time, N any rows, L the
replayed steps that start an imagination, R = B * L imagined rows, H horizon; D deter, S stoch, K
classes, F = D + S * K feat, E embed; A action, C columns of several actions, W action as the world
model reads it; M bins, G blocks. With images (`nets`, `ops`, `coders`), H x W are pixels and C
channels.
"""

from dreamer_async.agent.actor_critic import Agent
from dreamer_async.agent.batch import Batch, Noise
from dreamer_async.agent.policy import Policy, PolicyCarry
from dreamer_async.agent.states import RSSMState
from dreamer_async.agent.trainer import Trainer, Update

__all__ = ["Agent", "Batch", "Noise", "Policy", "PolicyCarry", "RSSMState", "Trainer", "Update"]
