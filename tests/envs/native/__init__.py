"""Tests of dreamer_async.envs.native."""
