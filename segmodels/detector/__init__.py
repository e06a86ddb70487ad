"""The panoptic model on MMDetection: training and prediction."""
