"""Several processes that learn as one run: rank 0 leads, the others follow.

`team` is what parts of a run ask of other ranks, `lead` rank 0's answer, `follower` all that any
other rank does, `shared_ratio` the one limiter of both, `arithmetic` what they compute with.
"""
