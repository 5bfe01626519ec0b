"""Scores by the paper's protocol, and the published curves."""
