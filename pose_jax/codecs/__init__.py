"""Keypoints to what a network predicts, and back: a module a representation."""
