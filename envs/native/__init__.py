"""The environment's own spaces: what it takes of an agent's actions, and spaces as JSON."""
