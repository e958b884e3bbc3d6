"""`pose-jax report`: a run as one HTML file, for people who were not there.

`run` gathers its sections, `html` has the elements, tables and charts.
"""
