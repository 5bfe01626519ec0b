"""Films of what the world model sees: made while a run trains, and written as files."""
