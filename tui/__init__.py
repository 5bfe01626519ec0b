"""The dashboard: a second process that reads a run's event stream and draws it.

It imports `dreamer_async.events` and `dreamer_async.run_dir` and nothing else of the trainer.
"""
