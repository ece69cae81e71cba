"""Backgrounds of our own: seeded textures of many kinds, so that results need not rest on a few photographs.

A texture is a field of numbers in [0, 1], drawn on a square and coloured between two colours. Its name, such as
``"wood 2"``, fixes the picture; :data:`NAMES` lists them all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from xai_utils import check

SIDE = 192  #: of a texture, pixels; scenes are cut out of it
EACH = 4  #: textures of one kind
Noise = np.random.Generator


@cache
def texture(name: str) -> Image.Image:
    """Draw the texture of a name in :data:`NAMES`: an RGB picture of :data:`SIDE` pixels.

    Raises:
        ValueError: an unknown name.
    """
    check.one_of("texture", name, NAMES)
    kind = name.rpartition(" ")[0]
    noise = np.random.default_rng([NAMES.index(name), SIDE])
    field = _KINDS[kind](noise)
    low, high = _colours(noise)
    grain = noise.normal(0, 0.02, (SIDE, SIDE, 1))
    coloured = low + (high - low) * field[..., None] + grain
    return Image.fromarray(np.round(np.clip(coloured, 0, 1) * 255).astype(np.uint8))


def _colours(noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    """Draw two colours whose brightness differs by a fifth to a half."""
    middle, gap = noise.uniform(0.25, 0.75), noise.uniform(0.2, 0.5)
    tint = noise.uniform(-0.15, 0.15, (2, 3))
    return middle - gap / 2 + tint[0], middle + gap / 2 + tint[1]


def _scaled(field: np.ndarray) -> np.ndarray:
    """Spread a field over [0, 1], but for a hundredth at either end, which is cut off."""
    low, high = np.quantile(field, [0.01, 0.99])
    return np.clip((field - low) / (high - low), 0, 1)


def _along(noise: Noise) -> np.ndarray:
    """Return the place of each pixel along a random direction, in sides of the square: ``(SIDE, SIDE)``."""
    angle = noise.uniform(0, np.pi)
    row, column = np.mgrid[: 1 : SIDE * 1j, : 1 : SIDE * 1j]
    return row * np.sin(angle) + column * np.cos(angle)


def _cloud(noise: Noise, slope: float) -> np.ndarray:
    """Draw noise whose amplitude falls as frequency to the power ``-slope``; 0 is white, 2 is smooth."""
    row, column = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)
    frequency = np.maximum(np.hypot(row, column), 1 / SIDE)
    waves = np.fft.rfft2(noise.normal(size=(SIDE, SIDE))) / frequency**slope
    return _scaled(np.fft.irfft2(waves, (SIDE, SIDE)))


def _spectrum(noise: Noise) -> np.ndarray:
    return _cloud(noise, noise.uniform(0.5, 2.0))


def _gradient(noise: Noise) -> np.ndarray:
    """Draw a bent ramp of brightness."""
    return _scaled(_along(noise) + noise.uniform(0.2, 1.0) * _along(noise) ** 2)


def _stripes(noise: Noise) -> np.ndarray:
    return 0.5 + 0.5 * np.clip(3 * np.sin(2 * np.pi * noise.uniform(5, 16) * _along(noise)), -1, 1)


def _checks(noise: Noise) -> np.ndarray:
    size, turned = noise.uniform(6, 16), _along(noise)
    across = np.rot90(turned)
    return ((np.floor(size * turned) + np.floor(size * across)) % 2).astype(float)


def _wood(noise: Noise) -> np.ndarray:
    """Draw year rings: stripes bent by a smooth cloud, with fibres along them."""
    bent = _along(noise) + noise.uniform(0.1, 0.3) * _cloud(noise, 2.0)
    fibres = np.repeat(noise.normal(size=(SIDE, SIDE // 16)), 16, axis=1)
    return _scaled((bent * noise.uniform(6, 14)) % 1 + 0.15 * fibres)


def _marble(noise: Noise) -> np.ndarray:
    """Draw thin dark veins: the zeros of a sine of a cloud."""
    return np.abs(np.sin(np.pi * (noise.uniform(2, 5) * _cloud(noise, 1.6) + _along(noise)))) ** 0.5


def _patches(noise: Noise) -> np.ndarray:
    """Draw a cloud in three plain steps, as camouflage."""
    return np.round(2 * _cloud(noise, noise.uniform(1.4, 1.8))) / 2


def _cells(noise: Noise) -> np.ndarray:
    """Draw the cells around random points, each of one brightness."""
    points, shades = noise.uniform(0, 1, (int(noise.integers(30, 120)), 2)), noise.random(120)
    row, column = np.mgrid[: 1 : SIDE * 1j, : 1 : SIDE * 1j]
    apart = (row[..., None] - points[:, 0]) ** 2 + (column[..., None] - points[:, 1]) ** 2
    return shades[apart.argmin(-1)]


def _bricks(noise: Noise) -> np.ndarray:
    """Draw rows of bricks, every second one shifted by half, each brick with a shade of its own."""
    rows, columns = int(noise.integers(7, 14)), int(noise.integers(3, 7))
    row, column = np.mgrid[: rows : (SIDE + 1) * 1j, : columns : (SIDE + 1) * 1j][:, :-1, :-1]
    shifted = column + 0.5 * (row.astype(int) % 2)
    joint = ((row % 1) < 0.12) | ((shifted % 1) < 0.12 * columns / rows)
    shades = noise.uniform(0.4, 1.0, (rows, columns + 1))[row.astype(int), shifted.astype(int)]
    return np.where(joint, 0.0, shades)


def _dots(noise: Noise) -> np.ndarray:
    """Draw a lattice of round dots, turned."""
    one = noise.uniform(6, 14) * _along(noise)
    other = np.rot90(one)
    apart = np.hypot(one % 1 - 0.5, other % 1 - 0.5)
    return np.clip((noise.uniform(0.25, 0.4) - apart) * 12 + 0.5, 0, 1)


_KINDS: dict[str, Callable[[Noise], np.ndarray]] = {
    "spectrum": _spectrum, "gradient": _gradient, "stripes": _stripes, "checks": _checks, "wood": _wood,
    "marble": _marble, "patches": _patches, "cells": _cells, "bricks": _bricks, "dots": _dots,
}  # fmt: skip
NAMES = tuple(f"{kind} {number}" for kind in _KINDS for number in range(EACH))
