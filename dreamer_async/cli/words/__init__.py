"""What the words of commands mean: which task, which runs they ask for."""
