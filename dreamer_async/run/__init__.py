"""One run: collector, learner and what watches and saves them."""
