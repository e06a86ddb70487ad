"""Files: COCO, panoptic, masks, Arrow, images."""
