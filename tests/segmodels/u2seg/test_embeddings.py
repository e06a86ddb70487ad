import numpy as np
import pytest
import torch
from PIL import Image

from segmodels.backbones.advice import MaskCutAdvice
from segmodels.backbones.backbone import Backbone
from segmodels.backbones.pixels import IMAGENET_MEAN, normalised_pixels, resize_square
from segmodels.backbones.vit import VisionTransformer, ViTShape
from segmodels.u2seg.embeddings import (
    EmbeddingSettings,
    center_crop,
    crop_instance,
    embed_instances,
    pool_mask,
)

FILL = np.round(np.array(IMAGENET_MEAN) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def backbone():
    """A tiny random transformer: 32 wide, 2 blocks, patches of 8, images of 32."""
    torch.manual_seed(0)
    model = VisionTransformer(
        ViTShape(patch_size=8, dim=32, depth=2, num_heads=2, grid=4, hidden_dim=64)
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return Backbone("tiny", model, MaskCutAdvice(32, 0.2))


@pytest.fixture
def scene():
    """A noisy image 40 x 60 and three instances in it."""
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    masks = np.zeros((3, 40, 60), bool)
    masks[0, 10:20, 20:40] = True
    masks[1, 0:5, 0:5] = True
    masks[2, 30:40, 10:60] = np.random.default_rng(1).random((10, 50)) < 0.7
    return image, masks


def test_the_crop_is_the_box_with_its_margin(scene):
    image, masks = scene
    kept = EmbeddingSettings(crop="box", margin=0.1)
    # The longer side is 20, so the border is 2 pixels on every side.
    np.testing.assert_array_equal(crop_instance(image, masks[0], kept), image[8:22, 18:42])
    # At the corner the image ends the border.
    wide = EmbeddingSettings(crop="box", margin=1)
    np.testing.assert_array_equal(crop_instance(image, masks[1], wide), image[:10, :10])


@pytest.mark.parametrize(("fill", "colour"), [("imagenet_mean", FILL), ("black", np.zeros(3))])
def test_a_masked_box_keeps_the_instance_alone(scene, fill, colour):
    image, masks = scene
    before = image.copy()
    crop = crop_instance(image, masks[0], EmbeddingSettings(margin=0.1, fill=fill))
    np.testing.assert_array_equal(crop[2:-2, 2:-2], image[10:20, 20:40])
    border = np.ones(crop.shape[:2], bool)
    border[2:-2, 2:-2] = False
    assert (crop[border] == colour).all()
    np.testing.assert_array_equal(image, before)


def test_the_filled_background_is_nearly_zero_for_the_network():
    assert np.abs(normalised_pixels(np.tile(FILL, (4, 4, 1)))).max() < 0.01


@pytest.mark.parametrize("shape", [(20, 20), (20, 50), (33, 11)])
def test_the_square_in_the_middle(shape):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    crop = np.stack([rows * 4, columns * 4, 0 * rows], axis=-1).astype(np.uint8)
    shorter = min(shape)
    square = center_crop(crop, 16)
    assert square.shape == (16, 16, 3)
    # Resized first and cut afterwards, as the method says it.
    scaled = [round(16 * side / shorter) for side in shape]
    resized = np.asarray(
        Image.fromarray(crop).resize((scaled[1], scaled[0]), Image.Resampling.BILINEAR)
    )
    top, left = (scaled[0] - 16) // 2, (scaled[1] - 16) // 2
    expected = resized[top : top + 16, left : left + 16]
    assert np.abs(square.astype(int) - expected).max() <= 4  # half a pixel of the ramp


def test_pooled_masks_are_area_shares():
    mask = np.zeros((4, 6), bool)
    mask[0, :3] = True
    mask[1, 0] = True
    np.testing.assert_allclose(pool_mask(mask, (2, 3)), [[0.75, 0.25, 0], [0, 0, 0]], atol=1e-6)
    # A grid that does not divide the image still keeps the whole area.
    mask = np.random.default_rng(0).random((37, 53)) < 0.3
    pooled = pool_mask(mask, (5, 7))
    assert pooled.mean() == pytest.approx(mask.mean(), rel=1e-5)
    fine = mask.repeat(5, axis=0).repeat(7, axis=1).reshape(5, 37, 7, 53).mean(axis=(1, 3))
    np.testing.assert_allclose(pooled, fine, atol=1e-5)


def test_cls_is_that_of_the_crop(scene, backbone):
    image, masks = scene
    settings = EmbeddingSettings(batch_size=2)
    vectors = embed_instances(image, masks, backbone, settings)
    assert vectors.shape == (3, 32)
    assert vectors.dtype == np.float32
    for mask, vector in zip(masks, vectors, strict=True):
        pixels = normalised_pixels(center_crop(crop_instance(image, mask, settings), 32))
        expected = backbone.extract(torch.from_numpy(pixels[None])).cls[0].numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_background_matters_only_in_an_open_box(scene, backbone):
    image, masks = scene
    other = np.where(masks[0][..., None], image, 255 - image)
    alone = [embed_instances(i, masks[:1], backbone, EmbeddingSettings()) for i in (image, other)]
    np.testing.assert_array_equal(*alone)
    open_ = EmbeddingSettings(crop="box")
    boxed = [embed_instances(i, masks[:1], backbone, open_) for i in (image, other)]
    assert np.abs(boxed[0] - boxed[1]).max() > 1e-3


def test_masked_keys_are_means_over_patches(scene, backbone):
    image, _ = scene
    settings = EmbeddingSettings(feature="masked_keys")
    masks = np.zeros((3, 40, 60), bool)
    masks[0] = True  # the mean of all keys
    masks[1, :10, 15:30] = True  # exactly the second patch of the first row
    masks[2, :10, 7:8] = True  # a sliver inside the first patch
    pixels = normalised_pixels(resize_square(image, 32))
    keys = backbone.extract(torch.from_numpy(pixels[None])).keys[0].numpy()
    vectors = embed_instances(image, masks, backbone, settings)
    np.testing.assert_allclose(vectors[0], keys.mean(axis=(0, 1)), atol=1e-5)
    np.testing.assert_allclose(vectors[1], keys[0, 1], atol=1e-5)
    np.testing.assert_allclose(vectors[2], keys[0, 0], atol=1e-5)


def test_crop_size_can_be_chosen(scene, backbone):
    image, masks = scene
    default = embed_instances(image, masks, backbone, EmbeddingSettings())
    same = embed_instances(image, masks, backbone, EmbeddingSettings(crop_size=32))
    larger = embed_instances(image, masks, backbone, EmbeddingSettings(crop_size=64))
    np.testing.assert_array_equal(default, same)
    assert larger.shape == (3, 32)
    assert np.abs(larger - default).max() > 1e-3


@pytest.mark.parametrize("feature", ["cls", "masked_keys"])
def test_no_instances(scene, backbone, feature):
    image, masks = scene
    vectors = embed_instances(image, masks[:0], backbone, EmbeddingSettings(feature=feature))
    assert vectors.shape == (0, 32)


def test_one_pixel_instance(scene, backbone):
    image, masks = scene
    masks = np.zeros_like(masks[:1])
    masks[0, 39, 59] = True
    for feature in ("cls", "masked_keys"):
        vectors = embed_instances(image, masks, backbone, EmbeddingSettings(feature=feature))
        assert np.isfinite(vectors).all()


def test_wrong_input_is_refused(scene, backbone):
    image, masks = scene
    with pytest.raises(ValueError, match="mask 1 is empty"):
        embed_instances(
            image, masks & [[[True]], [[False]], [[True]]], backbone, EmbeddingSettings()
        )
    with pytest.raises(ValueError, match=r"masks must be \(m, 40, 60\) bool"):
        embed_instances(image, masks[:, :10], backbone, EmbeddingSettings())
    with pytest.raises(ValueError, match=r"masks must be \(m, 40, 60\) bool"):
        embed_instances(image, masks.astype(np.uint8), backbone, EmbeddingSettings())
    with pytest.raises(ValueError, match="multiple of the patch size 8, got 36"):
        embed_instances(image, masks, backbone, EmbeddingSettings(crop_size=36))
    with pytest.raises(ValueError, match="margin must not be negative"):
        EmbeddingSettings(margin=-0.1)
    with pytest.raises(ValueError, match="crop_size must not be negative"):
        EmbeddingSettings(crop_size=-1)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        EmbeddingSettings(batch_size=0)
