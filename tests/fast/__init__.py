"""Tests of what computes the agent on CPUs and GPUs."""
