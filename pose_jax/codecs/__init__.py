"""Codecs: keypoints and boxes to network targets, and network outputs back.

One module per representation.
"""
