"""What a run keeps on disk: its directory, lock, events and checkpoints."""
