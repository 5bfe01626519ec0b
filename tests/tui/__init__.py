"""Tests of dreamer_async.tui."""
