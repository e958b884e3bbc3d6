"""Pictures: NumPy arrays in, NumPy arrays out.

`people` draws skeletons and boxes, `maps` heatmaps, `votes` and `cascade` what two methods
show of themselves, `sheet` lays pictures out; `curves` draws metrics.
"""
