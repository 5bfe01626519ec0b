"""Tests of the agent's mathematics, and comparisons with the official code."""
