"""Visualization: NumPy arrays in, NumPy arrays out.

`people` draws skeletons and boxes, `maps` heatmaps, `votes` and `cascade` the panels of two
methods; `sheet` arranges images in a grid; `curves` plots metrics.
"""
