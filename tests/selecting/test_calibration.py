import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.selecting.calibration import Spectrum, mean_kept, solve

IMAGES = st.lists(
    st.builds(Spectrum, st.floats(1, 400), st.sampled_from([1, 5]), st.integers(500, 600)), min_size=40, max_size=120
)


def test_by_hand():
    """Ranks of 10, 20 and 30 keep 32, 64 and 96 where 20 keeps 64."""
    images = [Spectrum(rank, 1, 576) for rank in (10.0, 20.0, 30.0)]
    found = solve(images, 64)
    assert found == pytest.approx(20, rel=0.01)
    assert [image.kept(found, 64) for image in images] == [32, 64, 96]


def test_one_image_keeps_just_what_is_wanted():
    assert Spectrum(37.0, 5, 2880).kept(solve([Spectrum(37.0, 5, 2880)], 32), 32) == 160


def test_bounds_bend_the_mean_and_the_reference_straightens_it():
    """Most images show next to nothing: a plain mean of ranks would keep too much of them."""
    images = [Spectrum(1.0, 1, 576)] * 90 + [Spectrum(300.0, 1, 576)] * 10
    plain = sum(image.erank for image in images) / len(images)
    assert mean_kept(images, plain, 64) < 0.65 * 64
    assert mean_kept(images, solve(images, 64), 64) == pytest.approx(64, rel=0.02)


@given(IMAGES, st.integers(16, 96))
def test_what_was_calibrated_with_keeps_what_is_wanted(images, wanted):
    """As near as whole numbers of tokens come: one reference more would move an image by one token, or all alike."""
    images = [Spectrum(image.erank, image.tiles, image.tokens * image.tiles) for image in images]
    found = mean_kept(images, solve(images, wanted), wanted)
    ranks = len({image.erank for image in images})
    assert abs(found - wanted) <= (0.02 * wanted if ranks > len(images) / 2 else 0.5)


@given(IMAGES)
def test_a_larger_reference_keeps_less(images):
    means = [mean_kept(images, reference, 32) for reference in (1.0, 10.0, 50.0, 100.0, 1000.0)]
    assert means == sorted(means, reverse=True)


def test_what_cannot_be_solved_is_refused():
    with pytest.raises(ValueError, match="no images"):
        solve([], 64)
    with pytest.raises(ValueError, match="144 tokens per tile are wanted, and the images have 144"):
        solve([Spectrum(3.0, 1, 144)], 144)
