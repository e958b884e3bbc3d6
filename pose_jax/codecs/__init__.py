"""Keypoints and boxes to what a network predicts, and back.

One module a representation.
"""
