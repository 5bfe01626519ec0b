"""A run as it is read from its directory."""
