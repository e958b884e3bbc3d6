"""Run directories: their content and their locking.

`directory` has lock and config, `model` the model, `states` checkpoints, `log` metrics.
"""
