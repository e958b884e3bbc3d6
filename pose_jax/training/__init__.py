"""From a config to trained weights: sections, optimizers, the train step and its loop.

`config` resolves a config, `train` runs it; nothing here knows a method by its name.
"""
