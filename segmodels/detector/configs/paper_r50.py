# The published setting (U2Seg sec. 4, its released files): ResNet-50 at 800 px, 90k steps.
# Start from DINO's ResNet-50 with `init_checkpoint`.
_base_ = ['_base_/panoptic_cascade.py']

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-5),
    clip_grad=dict(max_norm=1.0))

# The released file drops at 210k and 250k of 270k steps by 0.02; here as shares of the run.
schedule = dict(warmup=1000, drops=[210 / 270, 250 / 270], drop_factor=0.02)

defaults = dict(
    iterations=90000,
    batch_size=16,
    short_sides=[240, 320, 480, 640, 672, 704, 736, 768, 800, 1024],
    long_side=1333,
    workers=4,
    mixed_precision=True)

prediction = dict(
    short_side=800,
    long_side=1333,
    score_threshold=0.05,
    nms_threshold=0.5,
    max_detections=100,
    instance_confidence=0.5,
    overlap=0.5,
    stuff_min_area=4096,
    stuff_area_short_side=None)
