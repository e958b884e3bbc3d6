"""`pose-jax report`: a run as one HTML file, for people who were not there.

`run` writes the page; `files` and `look` read a run and predict with its model; each other
file is one section or two. `html` has the elements, tables and charts.
"""
