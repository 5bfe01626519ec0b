"""Tests of dreamer_async.config."""
