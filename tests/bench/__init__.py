"""Tests of dreamer_async.bench."""
