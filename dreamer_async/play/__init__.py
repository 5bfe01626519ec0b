"""Playing inside a world model, in the terminal."""
