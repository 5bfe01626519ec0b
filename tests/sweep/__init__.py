"""Tests of `dreamer_async.sweep` and of what shows its sweeps."""
