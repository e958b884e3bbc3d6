"""`pose-jax report`: a summary of a run as one HTML file.

`run` writes the page; `files` reads a run and `look` predicts with its model; `html` has
elements, tables and charts; the other modules contain the sections.
"""
