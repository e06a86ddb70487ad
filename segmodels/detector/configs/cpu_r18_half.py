# A small network for a processor: ResNet-18 of half width, random start, minutes instead of days.
_base_ = ['_base_/panoptic_cascade.py']

# A list replaces the base's list as a whole, so the stages are written out again.
box_stds = ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [1 / 30, 1 / 30, 1 / 15, 1 / 15])
stage_ious = (0.5, 0.6, 0.7)

model = dict(
    backbone=dict(depth=18, base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        stage_loss_weights=[1.0, 0.5, 0.25],
        bbox_roi_extractor=dict(
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=2), out_channels=64),
        bbox_head=[
            dict(
                type='DropLossBoxHead',
                in_channels=64,
                fc_out_channels=128,
                roi_feat_size=7,
                num_classes=0,
                reg_class_agnostic=True,
                bbox_coder=dict(
                    type='DeltaXYWHBBoxCoder',
                    target_means=[0.0, 0.0, 0.0, 0.0],
                    target_stds=stds),
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='L1Loss', loss_weight=1.0))
            for stds in box_stds
        ],
        mask_roi_extractor=dict(
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=2), out_channels=64),
        mask_head=dict(
            num_convs=2,
            in_channels=64,
            conv_out_channels=64,
            class_agnostic=True,
            # From a random start the mask head is the last to learn.
            norm_cfg=dict(type='GN', num_groups=16),
            loss_mask=dict(loss_weight=2.0))),
    semantic_head=dict(in_channels=64, inner_channels=64),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=250),
        rcnn=[
            dict(
                assigner=dict(
                    type='MaxIoUAssigner',
                    pos_iou_thr=iou,
                    neg_iou_thr=iou,
                    min_pos_iou=iou,
                    match_low_quality=False,
                    ignore_iof_thr=-1),
                sampler=dict(
                    type='PseudoBoxSampler',
                    num=64,
                    pos_fraction=0.25,
                    neg_pos_ub=-1,
                    add_gt_as_proposals=True),
                mask_size=28,
                pos_weight=-1,
                debug=False) for iou in stage_ious
        ]),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=250)))

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=5.0))

schedule = dict(warmup=30, cosine=True)

defaults = dict(
    iterations=300,
    batch_size=4,
    short_sides=[160, 192, 224],
    long_side=320,
    workers=0,
    mixed_precision=False)

prediction = dict(
    short_side=192,
    long_side=320,
    score_threshold=0.05,
    nms_threshold=0.5,
    max_detections=100,
    instance_confidence=0.2,
    overlap=0.5,
    stuff_min_area=4096,
    stuff_area_short_side=800)
