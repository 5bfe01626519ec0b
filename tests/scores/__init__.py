"""Tests of dreamer_async.scores."""
