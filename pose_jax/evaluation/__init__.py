"""From weights and a Table to metrics, tables and pictures; and `pose-jax eval`.

`evaluate` predicts and writes, `measure` names and computes metrics, `compare` two runs.
"""
