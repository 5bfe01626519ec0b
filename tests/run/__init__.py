"""Tests of dreamer_async.run."""
