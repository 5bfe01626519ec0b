"""Tests of dreamer_async.machine."""
