"""Settings of the stage stuff_model: which of them decide the result."""

from assets.stuff.stuff_model import StuffModelSettings
from segmodels.engine.settings import deciding_settings


def test_device_and_checkpoints_decide_nothing():
    deciding = deciding_settings(StuffModelSettings(device="cuda", checkpoint_every=3))
    assert deciding == deciding_settings(StuffModelSettings())
    assert list(deciding) == ["steps", "batch_size", "num_clusters", "loss", "seed"]
