"""`pose-jax data check`: validates a data set and counts its problems.

`run` reads annotations and images and reports each kind of problem with its remedy.
"""
