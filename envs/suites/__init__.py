"""The suites, a module each: their tasks and how one is opened."""
