"""The parts of the sample: textures, outlines, the renderer, exemplars."""

import numpy as np
import pytest

from segmodels.datasets.sample import mesh as solids
from segmodels.datasets.sample.catalogue import THINGS, exemplars
from segmodels.datasets.sample.layouts import SETTINGS, backdrop
from segmodels.datasets.sample.outlines import cut_out, load_outlines
from segmodels.datasets.sample.photographs import MissingPhotographError, photograph
from segmodels.datasets.sample.render import Material, render
from segmodels.datasets.sample.sprite import Pose, place_cut_out
from segmodels.datasets.sample.textures import (
    CROPS,
    Texture,
    fractal_noise,
    ramp,
    smoothed_levels,
    texture,
)

TOWARDS_EYE = (0.0, 0.0, 1.0)


def pose(**changes) -> Pose:
    plain = {
        "area": 3000.0,
        "mirrored": False,
        "lean": 0.0,
        "turn": 0.0,
        "pitch": 0.0,
        "light": TOWARDS_EYE,
    }
    return Pose(**(plain | changes))


def test_a_missing_photograph_is_named():
    with pytest.raises(MissingPhotographError, match=r"no_such\.png; install scikit-image"):
        photograph("no_such.png")


@pytest.mark.parametrize("name", CROPS)
def test_train_and_val_read_different_parts_of_a_photograph(name):
    source, train, val = CROPS[name]
    height, width = photograph(source).shape[:2]
    for left, top, right, bottom in (train, val):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    apart_across = train[2] <= val[0] or val[2] <= train[0]
    apart_down = train[3] <= val[1] or val[3] <= train[1]
    assert apart_across or apart_down
    assert texture(name, "train").levels[0].shape[2] == 3


def test_texture_reads_pixels_between_pixels_and_mirrored():
    plane = np.array([[0.0, 1.0], [0.5, 0.25]], np.float32)[..., None]
    read = Texture((plane,) * 5).sample(np.array([1.0, 0.5, 2.0]), np.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(read[:, 0], [1.0, 0.5, 0.5])


def test_texture_blurs_where_a_pixel_covers_many_texels():
    board = (np.indices((64, 64)).sum(axis=0) % 2).astype(np.float32)[..., None]
    v, u = np.mgrid[20:40, 20:40].astype(float)
    levels = smoothed_levels(board)
    assert levels.sample(u, v, 1.0).std() == pytest.approx(0.5)
    assert levels.sample(u, v, 8.0).std() < 0.01
    blended = levels.sample(u, v, np.full(u.shape, 2.0**0.5))
    halves = 0.5 * (levels.sample(u, v, 1.0) + levels.sample(u, v, 2.0))
    np.testing.assert_allclose(blended, halves, atol=1e-5)


def test_ramp_meets_its_three_colours():
    colours = [np.array(c) for c in ((0, 0, 0), (1, 0, 0), (1, 1, 0))]
    out = ramp(np.array([0, 0.25, 0.5, 1]), *colours)
    np.testing.assert_allclose(out, [[0, 0, 0], [0.5, 0, 0], [1, 0, 0], [1, 1, 0]])


def test_fractal_noise_is_normed_smooth_and_repeatable():
    one, two = (fractal_noise(np.random.default_rng(4), (60, 80), (30.0, 30.0), 1) for _ in "ab")
    np.testing.assert_array_equal(one, two)
    assert one.mean() == pytest.approx(0, abs=1e-5)
    assert one.std() == pytest.approx(1, abs=1e-4)
    assert np.abs(np.diff(one, axis=1)).max() < 0.35


def test_outlines_lie_in_their_photographs_and_cut_out_something():
    outlines = load_outlines()
    assert sum(name.startswith("coin") for name in outlines) == 24
    for name, outline in outlines.items():
        height, width = photograph(outline.photograph).shape[:2]
        points = np.array([p for polygon in (*outline.add, *outline.cut) for p in polygon])
        assert (points >= -0.5).all()
        assert (points <= [width, height]).all(), name
        _, alpha = cut_out(name)
        assert alpha.max() == 1
        assert alpha[0, 0] == 0


def test_coin_outlines_enclose_what_is_brighter_than_the_cloth():
    """An independent look at the pixels: inside is clearly brighter than the ring around it."""
    for name in load_outlines():
        if name.startswith("coin"):
            rgb, alpha = cut_out(name)
            assert rgb[alpha == 1, 0].mean() - rgb[alpha == 0, 0].mean() > 0.1, name


def test_cut_out_keeps_its_colour_and_hits_its_area():
    rgb = np.full((40, 60, 3), [0.2, 0.5, 0.8], np.float32)
    alpha = np.zeros((40, 60), np.float32)
    alpha[5:35, 10:50] = 1
    for lean in (0.0, 30.0, -75.0):
        sprite = place_cut_out(rgb, alpha, pose(lean=lean, area=2500.0))
        assert sprite.alpha.sum() == pytest.approx(2500, rel=0.03)
        np.testing.assert_allclose(
            sprite.rgb[sprite.alpha > 0.5],
            [[0.2, 0.5, 0.8]] * int((sprite.alpha > 0.5).sum()),
            atol=0.01,
        )


def test_lean_turns_counter_clockwise_and_mirroring_exchanges_the_sides():
    alpha = np.zeros((30, 30), np.float32)
    alpha[:, :15] = 1  # the left half, with the upper left corner marked
    rgb = np.zeros((30, 30, 3), np.float32)
    rgb[:10, :15] = 1
    upright = place_cut_out(rgb, alpha, pose(area=450.0))
    turned = place_cut_out(rgb, alpha, pose(area=450.0, lean=90.0))
    assert upright.alpha.shape[0] > upright.alpha.shape[1]
    assert turned.alpha.shape[0] < turned.alpha.shape[1]
    middle = turned.rgb[turned.rgb.shape[0] // 2]
    assert middle[2, 0] > 0.9  # the top now lies at the left
    assert middle[-3, 0] < 0.1
    rgb[:, :7] = 1
    mirrored = place_cut_out(rgb, alpha, pose(area=450.0, mirrored=True))
    bottom = mirrored.rgb[-4]
    assert bottom[2, 0] < 0.1
    assert bottom[-3, 0] > 0.9


def test_rendered_sphere_is_a_disc_lit_from_the_light():
    angle = np.linspace(-np.pi / 2, np.pi / 2, 60)
    sphere = solids.revolve(np.stack([np.cos(angle), np.sin(angle)], axis=1), 0, segments=120)
    white = Material(lambda uv: np.ones((len(uv), 3)))
    light = (-0.8, 0.0, 0.6)
    sprite = render(sphere, [white], pose(light=light))
    radius = np.sqrt(sprite.alpha.sum() / np.pi)
    assert sprite.alpha.sum() == pytest.approx(3000, rel=0.06)
    assert sprite.alpha.shape[0] == pytest.approx(2 * radius, abs=2)
    assert sprite.alpha.shape[1] == pytest.approx(2 * radius, abs=2)
    row = sprite.rgb[sprite.rgb.shape[0] // 2, :, 0]
    assert row[4] > row[-5] + 0.3


def test_nearer_surfaces_hide_farther_ones():
    corners = np.array([[-1.0, -1, 0], [1, -1, 0], [-1, 1, 0]])
    far = solids.plate(corners, TOWARDS_EYE, 0, (1, 1))
    near = solids.plate(corners * 0.5, TOWARDS_EYE, 1, (1, 1)).moved(np.eye(3), (0, 0, 0.5))
    red, blue = (
        Material(lambda uv, c=c: np.tile(c, (len(uv), 1))) for c in ([0.8, 0, 0], [0, 0, 0.8])
    )
    for order in ((far, near), (near, far)):
        sprite = render(solids.join(*order), [red, blue], pose())
        height, width = sprite.alpha.shape
        assert sprite.rgb[height // 2, width // 2, 2] > 0.5
        assert sprite.rgb[4, 4, 0] > 0.5


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_class_has_several_exemplars_and_each_can_be_drawn(split):
    for category in THINGS:
        members = exemplars(split)[category]
        assert len(members) >= 3
        for exemplar in members:
            assert exemplar.category == category
            sprite = exemplar.draw(pose(turn=20.0, pitch=18.0, lean=3.0, area=1500.0))
            assert sprite.alpha.sum() == pytest.approx(1500, rel=0.12), exemplar.name
            assert sprite.rgb.shape == (*sprite.alpha.shape, 3)
            assert sprite.rgb[sprite.alpha > 0.5].std() > 0.02, exemplar.name


def test_val_exemplars_do_not_look_like_train_exemplars():
    """No val exemplar repeats the pixels of a train exemplar at the same pose, mirrored or not."""

    def thumbnail(exemplar, mirrored):
        sprite = exemplar.draw(pose(turn=25.0, pitch=18.0, area=900.0, mirrored=mirrored))
        flat = np.full((80, 80, 3), 0.5, np.float32)
        height, width = (min(side, 80) for side in sprite.alpha.shape)
        alpha = sprite.alpha[:height, :width, None]
        flat[:height, :width] = alpha * sprite.rgb[:height, :width] + (1 - alpha) * 0.5
        return flat

    for category in THINGS:
        train = [
            thumbnail(one, mirrored)
            for one in exemplars("train")[category]
            for mirrored in (False, True)
        ]
        for one in exemplars("val")[category]:
            picture = thumbnail(one, False)
            assert min(np.abs(picture - other).mean() for other in train) > 0.004, one.name


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: "-".join(s.stuff))
def test_backdrops_show_every_region_and_leave_ground_to_stand_on(setting):
    scenery = backdrop(setting, (240, 288), "train", np.random.default_rng(1))
    assert len(np.unique(scenery.stuff)) == len(setting.stuff)
    assert (
        np.bincount(scenery.stuff.ravel(), minlength=6)[np.unique(scenery.stuff)].min()
        > 0.05 * 240 * 288
    )
    assert scenery.floor.mean() > 0.25
    assert np.isfinite(scenery.rgb).all()
