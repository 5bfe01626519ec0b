"""What the words of long commands mean: which runs they ask for."""
