"""What a Python program uses: starting runs, following them, and a loop of its own around a run.

The names are given out by `dreamer_async` itself. Nothing here prints, handles signals or imports
torch: a trainer is always a process of its own.
"""
