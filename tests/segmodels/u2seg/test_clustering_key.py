import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmodels.u2seg.clustering_key import ClusteringKey

KEYS = st.builds(
    ClusteringKey,
    num_clusters=st.integers(1, 99_999),
    round=st.none() | st.integers(1, 99),
    seed=st.integers(0, 10_000),
)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("k0800", ClusteringKey(800)),
        ("k0300-r2", ClusteringKey(300, round=2)),
        ("k2911-s1", ClusteringKey(2911, seed=1)),
        ("k0012-r3-s45", ClusteringKey(12, round=3, seed=45)),
        ("k12000", ClusteringKey(12_000)),
    ],
)
def test_examples(text, key):
    assert ClusteringKey.parse(text) == key
    assert str(key) == text


@settings(max_examples=30, deadline=None)
@given(KEYS)
def test_round_trip(key):
    assert ClusteringKey.parse(str(key)) == key


@settings(max_examples=30, deadline=None)
@given(KEYS, KEYS)
def test_one_name_for_one_clustering(first, second):
    assert (str(first) == str(second)) == (first == second)


@settings(max_examples=30, deadline=None)
@given(st.text("k0189-rs ", max_size=12))
def test_any_text_is_read_as_written_or_refused(text):
    try:
        key = ClusteringKey.parse(text)
    except ValueError as error:
        assert "k0800[-r2][-s1]" in str(error)  # noqa: PT017
    else:
        assert str(key) == text


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("k800", "write k0800, not 'k800'"),
        ("k00800", "write k0800"),
        ("k0800-s0", "write k0800"),
        ("k0800-r02", "write k0800-r2"),
        ("k0800-r0", "round must be at least 1, got 0"),
        ("k0000", "num_clusters must be at least 1, got 0"),
        ("k0800-s1-r2", "reads k0800"),
        ("800", "reads k0800"),
        ("", "reads k0800"),
        ("k0800\n", "reads k0800"),
        ("k\u0664\u0664\u0664\u0664", "reads k0800"),
    ],
)
def test_wrong_keys_say_what_is_right(text, cure):
    with pytest.raises(ValueError, match=cure):
        ClusteringKey.parse(text)


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="seed must not be negative"):
        ClusteringKey(3, seed=-1)
