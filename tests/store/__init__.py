"""Tests of dreamer_async.store."""
