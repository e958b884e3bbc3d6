"""Synthetic people with exact labels, so that nothing has to be downloaded.

`scenes` composes and writes data sets, `bodies` poses people, `raster` draws them.
"""
