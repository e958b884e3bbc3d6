"""Training: config sections, optimizers, the train step and the training loop.

`config` resolves a config, `train` runs it. Nothing here depends on a specific method.
"""
