"""The examples in docstrings, run: they show what the pinned functions give."""

import doctest
from importlib import import_module

import pytest

EXAMPLES = {
    "kernels.ncut.repeated_cuts": "maskcut",
    "kernels.crf.inference": "refine_masks",
    "kernels.kmeans.fit": "kmeans",
    "segmodels.backbones.backbone": "load_backbone",
}


@pytest.mark.parametrize(("module", "function"), EXAMPLES.items())
def test_the_example_of_a_public_function_runs(module, function):
    loaded = import_module(module)
    tests = doctest.DocTestFinder(recurse=False).find(getattr(loaded, function), module=loaded)
    (example,) = (test for test in tests if test.examples)
    failed = doctest.DocTestRunner().run(example).failed
    assert failed == 0
