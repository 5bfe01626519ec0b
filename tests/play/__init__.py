"""Tests of dreamer_async.play."""
