"""Data sets: where images and ground truth come from."""
