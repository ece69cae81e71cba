"""The published numbers against chance."""

import numpy as np

from xai_utils.gender import published


def test_chance_distances_are_those_of_noise():
    np.testing.assert_allclose(published.chance_distances(7, 0), (0.316, 0.291, 0.241), atol=0.01)
    given, noise = published.against_chance(0)
    assert given.shape == noise.shape == (len(published.DISTANCES), 3) and (given[:, 0] > noise[:, 0]).all()
    np.testing.assert_allclose(noise[0], published.chance_distances(7, 0))


def test_distances_are_zero_of_equal_sizes_whatever_the_signs_and_scale():
    one = np.array([3.0, -4.0, 0.0])
    np.testing.assert_allclose(published.distances(one, -2 * one), 0, atol=1e-9)
    np.testing.assert_allclose(published.distances(one, np.array([0, 0, 1.0])), [1, (2 / 3) ** 0.5, 2.4 / 3])


def test_signs_turn_he_above_she():
    turn = published.signs()
    assert set(turn) == {-1, 1} and (turn * published.HE > turn * published.SHE).all()
