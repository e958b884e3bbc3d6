"""What a run directory holds, and who may touch it.

`directory` has its lock, config and model, `states` the checkpoints, `log` the metrics.
"""
