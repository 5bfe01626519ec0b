"""Environments that call us: a program of the user's steps a robot, and a trainer serves it.

    the user's program                         the trainer
    Caller  -- socket: one word a row -->  Server (a VectorEnv)
            <-- one word an answer --
            == shared block: observations, rewards, flags, actions ==

The trainer listens in the control directory of its run, where only its user can come. What the
robot senses and does are gymnasium spaces, which the settings of the run hold as JSON.
"""
