# ResNet-18 of full width with the slim heads of `cpu_r18_half`: about twice the time a step.
_base_ = ['cpu_r18_half.py']

model = dict(
    backbone=dict(base_channels=64),
    neck=dict(in_channels=[64, 128, 256, 512]))
