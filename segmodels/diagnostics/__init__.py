"""Measures of a part by itself: how good a backbone is."""
