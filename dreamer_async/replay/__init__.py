"""The replay: windows of experience from a ring in one mmapped file."""
