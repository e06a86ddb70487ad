"""Settings of the stages maskcut_masks and cutler_masks."""

import pytest

from segmodels.backbones.advice import MaskCutAdvice
from segmodels.cutler.maskcut import MaskCutSettings
from segmodels.cutler.maskcut_shards import MaskCutStageSettings
from segmodels.cutler.rounds import CutlerSettings

ADVICE = MaskCutAdvice(image_size=240, tau=0.25, center_keys=True)


def test_what_is_left_out_is_the_advice() -> None:
    expected = MaskCutSettings(image_size=240, tau=0.25, center_keys=True)
    assert MaskCutStageSettings().with_advice(ADVICE) == expected


def test_what_is_given_overrides_the_advice() -> None:
    given = MaskCutStageSettings(tau=0.1, center_keys=False, max_masks=5, use_crf=False)
    assert given.with_advice(ADVICE) == MaskCutSettings(
        image_size=240, tau=0.1, center_keys=False, max_masks=5, use_crf=False
    )


def test_rounds_are_refused_until_they_are_built() -> None:
    assert CutlerSettings().rounds == 0
    with pytest.raises(ValueError, match="rounds must be 0"):
        CutlerSettings(rounds=1)
