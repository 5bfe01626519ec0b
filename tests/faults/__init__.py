"""Tests that kill, starve and mislead real runs."""
