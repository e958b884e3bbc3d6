"""`pose-jax data check`: finds everything that is wrong with a data set, and counts it.

`run` reads annotations and images and reports each kind of damage with its remedy.
"""
