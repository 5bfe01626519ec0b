"""Tests of dreamer_async.cli."""
