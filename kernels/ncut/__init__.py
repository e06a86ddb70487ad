"""MaskCut: objects of an image by repeated normalized cuts of its patch graph (CutLER, sec. 3.1)."""

from kernels.ncut.repeated_cuts import MaskCut, maskcut, maskcut_batch

__all__ = ["MaskCut", "maskcut", "maskcut_batch"]
