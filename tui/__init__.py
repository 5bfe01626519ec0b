"""The dashboard: a second process that reads a run's event stream and draws it.

Of the trainer it imports what reads a run's directory, and nothing else.
"""
