"""Tests of dreamer_async.replay."""
