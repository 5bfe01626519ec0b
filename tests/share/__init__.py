"""Tests of dreamer_async.share."""
