"""The accelerators of `dreamer_async.agent`, which computes the same without them, slower."""
