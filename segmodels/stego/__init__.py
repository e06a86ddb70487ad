"""Stuff segments without labels (STEGO)."""
