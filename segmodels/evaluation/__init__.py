"""Scores: metrics, names for clusters, protocols."""
