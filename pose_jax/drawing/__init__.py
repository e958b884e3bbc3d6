"""Pictures: NumPy arrays in, NumPy arrays out.

`people` draws skeletons, maps and votes, `curves` draws metrics against thresholds.
"""
