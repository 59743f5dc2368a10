"""Do two small pictures show the same, mirrored or cropped perhaps? They are laid over each other and
compared place by place.

All work on blocks of pairs. A scale s and a shift t map the place u of the first picture (from its centre)
to s u + t of the second, in pixels, each axis of its own.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import scipy

SIDE = 64  # pixels of the pictures
COARSE = 32  # of those that the first search goes over
SCALES = (0.92, 1.0, 1 / 0.92)  # a crop of up to some 8 % of a side, either way
REACH = 3  # coarse pixels of shift either way
ROUNDS = {COARSE: 6, SIDE: 3}  # of refinement, by the side of the pictures
WINDOW = 9  # pixels of the neighbourhood that is compared
DETAIL = 4.0  # pixels: what is smoother is no evidence, be it light or a plain ground's shading
TEXTURE = 3.0  # grey levels of spread in a neighbourhood below which there is nothing to compare
TEXTURED = 0.05  # least share of such neighbourhoods
BLOCK = 128  # pairs at once
PROMISING = 0.5  # correlation after the first search below which none is refined
ALIKE = 0.86  # least mean of the local correlations
DIFFERENT = 0.7  # most that one in twenty neighbourhoods may differ, in units of the picture's own contrast
COLOURED = 0.35  # most difference in colour, in units of the colour that there is


def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(P,) mean local correlation, from ALIKE to 1, of (P, SIDE, SIDE, 3) pictures that show the same; 0 of
    those that do not.

    Three things must hold after the best alignment: neighbourhoods correlate (each weighs the same, so that
    an outline on a plain ground does not make two pictures one), hardly any differs by more than light and
    contrast, and colours agree.
    """
    found = np.zeros(len(first))
    for start in range(0, len(first), BLOCK):
        some = slice(start, start + BLOCK)
        found[some] = _block(first[some].astype(np.float32), second[some].astype(np.float32))
    return found


def _block(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    a, b = _grey(first), _grey(second)
    close, mirrored, place = _search(a, b)
    found, rows = np.zeros(len(a)), np.flatnonzero(close >= PROMISING)
    if not len(rows):
        return found
    flip = mirrored[rows]
    second = np.where(flip[:, None, None, None], second[rows][:, :, ::-1], second[rows])
    place = place[rows]
    for side, rounds in ROUNDS.items():
        one, other = (_detail(_smaller(p, side), 3.0, 0.7) for p in (a[rows], _grey(second)))
        place[:, 2:] *= side / SIDE
        place = _refine(one, other, place, rounds)
        place[:, 2:] *= SIDE / side
    found[rows] = _compare(first[rows], second, place)
    return found


def _grey(pictures: np.ndarray) -> np.ndarray:
    return np.asarray(pictures @ np.array([0.299, 0.587, 0.114], dtype=np.float32))


def _detail(pictures: np.ndarray, wide: float, fine: float = 0.0) -> np.ndarray:
    """Without what is smoother than `wide` pixels, and without what is finer than `fine`."""
    smooth = scipy.ndimage.gaussian_filter(pictures, (0, fine, fine), mode="nearest") if fine else pictures
    return np.asarray(smooth - scipy.ndimage.gaussian_filter(pictures, (0, wide, wide), mode="nearest"))


def _search(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best of a few scales, all small shifts and both hands: (P,) correlation, (P,) mirrored, (P, 4)
    place.
    """
    count, half, steps = len(a), SIDE // COARSE, np.arange(-REACH, REACH + 1)
    one, other = (_detail(_smaller(p, COARSE), 3.0) for p in (a, b))
    one = scipy.fft.rfft2(_unit(one))
    best, mirrored, place = (
        np.full(count, -1.0),
        np.zeros(count, dtype=bool),
        np.tile([1.0, 1.0, 0.0, 0.0], (count, 1)),
    )
    for sy, sx in product(SCALES, SCALES):
        scaled = _unit(_warp(other, np.tile([sy, sx, 0.0, 0.0], (count, 1))))
        for flip in (False, True):
            spectrum = np.conj(scipy.fft.rfft2(scaled[:, :, ::-1] if flip else scaled))
            close = scipy.fft.irfft2(one * spectrum, s=(COARSE, COARSE))[:, steps][:, :, steps].reshape(
                count, -1
            )
            top = close.argmax(axis=1)
            value = close[np.arange(count), top]
            dy, dx = np.unravel_index(top, (len(steps), len(steps)))
            better = value > best
            best[better], mirrored[better] = value[better], flip
            moved = (np.full(count, sy), np.full(count, sx), -sy * half * steps[dy], -sx * half * steps[dx])
            place[better] = np.stack(moved, axis=1)[better]
    return best, mirrored, place


def _smaller(pictures: np.ndarray, side: int) -> np.ndarray:
    """(P, side, side): means of squares."""
    times = pictures.shape[1] // side
    return np.asarray(pictures.reshape(-1, side, times, side, times).mean((2, 4)))


def _unit(pictures: np.ndarray) -> np.ndarray:
    """Faded out at the edges, of length 1."""
    ramp = np.minimum(1, (np.minimum(np.arange(COARSE), np.arange(COARSE)[::-1]) + 0.5) / 2).astype(
        np.float32
    )
    faded = pictures * np.outer(ramp, ramp)
    return np.asarray(faded / np.maximum(np.linalg.norm(faded, axis=(1, 2), keepdims=True), 1e-3))


def _taps(scale: np.ndarray, shift: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(P, side, side) weights that read a line of pixels at other places, and (P, side) whether these lie
    inside.
    """
    middle, u = (side - 1) / 2, np.arange(side)
    at = middle + scale[:, None] * (u - middle) + shift[:, None]
    inside = (at >= 0) & (at <= side - 1)
    weights = np.maximum(0, 1 - np.abs(np.clip(at, 0, side - 1)[:, :, None] - u))
    return weights.astype(np.float32), inside


def _warp(pictures: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(P, side, side) pictures read at the places (P, 4): scales and shifts down and across."""
    side = pictures.shape[1]
    down, across = (_taps(place[:, k], place[:, k + 2], side)[0] for k in (0, 1))
    return np.asarray(down @ pictures @ across.transpose(0, 2, 1))


def _inside(place: np.ndarray, side: int) -> np.ndarray:
    """(P, side, side): where both pictures have pixels."""
    down, across = (_taps(place[:, k], place[:, k + 2], side)[1] for k in (0, 1))
    return np.asarray(down[:, :, None] & across[:, None, :])


def _refine(one: np.ndarray, other: np.ndarray, place: np.ndarray, rounds: int) -> np.ndarray:
    """The place by Gauss-Newton steps on the difference of details (Lucas and Kanade 1981), the contrast
    fitted along.
    """
    side = one.shape[1]
    u = np.arange(side, dtype=np.float32) - (side - 1) / 2
    most = np.array([0.05, 0.05, side / 32, side / 32])
    for _ in range(rounds):
        seen, inside = _warp(other, place), _inside(place, side)
        gain = np.maximum(
            (one * seen * inside).sum((1, 2)) / np.maximum((seen * seen * inside).sum((1, 2)), 1e-3), 0.05
        )
        down, across = (
            np.gradient(seen, axis=axis + 1)
            * ((gain / place[:, axis])[:, None, None] * inside).astype(np.float32)
            for axis in (0, 1)
        )
        slopes = np.stack([down * u[:, None], across * u, down, across], axis=1).reshape(len(one), 4, -1)
        left = ((one - gain[:, None, None].astype(np.float32) * seen) * inside).reshape(len(one), -1, 1)
        square = slopes @ slopes.transpose(0, 2, 1)
        square += 1e-3 * square * np.eye(4) + 1e-3 * np.eye(4)
        place = place + np.clip(np.linalg.solve(square, slopes @ left)[:, :, 0], -most, most)
        place[:, :2] = place[:, :2].clip(0.8, 1.25)
        place[:, 2:] = place[:, 2:].clip(-side / 8, side / 8)
    return place


def _compare(first: np.ndarray, second: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(P,) mean local correlation where the pictures agree, else 0."""
    inside = _inside(place, SIDE)
    second = np.stack([_warp(second[..., k], place) for k in range(3)], axis=-1)
    a, b = (scipy.ndimage.gaussian_filter(_grey(p), (0, 0.5, 0.5), mode="nearest") for p in (first, second))
    close, textured = _correlation(a, b)
    textured &= inside
    found = np.zeros(len(a))
    for i in range(len(a)):
        here, there = inside[i], textured[i]
        if there.sum() < TEXTURED * SIDE**2:
            continue
        alike = float(close[i][there].mean())
        if alike < ALIKE:
            continue
        x, y = a[i][here], b[i][here]
        gain = float(((x - x.mean()) * (y - y.mean())).mean() / max(float(y.var()), 1e-3))
        rest = (a[i] - x.mean() - gain * (b[i] - y.mean())) * here
        gap = np.sqrt(np.maximum(scipy.ndimage.uniform_filter(rest**2, WINDOW, mode="nearest"), 0))[there]
        apart = float(np.quantile(gap, 0.95)) / max(float(x.std()), 5.0)
        if apart <= DIFFERENT and _colour_gap(first[i][here], second[i][here]) <= COLOURED:
            found[i] = min(alike, 1.0)
    return found


def _correlation(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, SIDE, SIDE) correlation of the details around each place, and whether there are any."""
    a, b = _detail(a, DETAIL), _detail(b, DETAIL)
    mean_a, mean_b = _local(a), _local(b)
    spread_a, spread_b = (
        np.sqrt(np.maximum(_local(p * p) - m * m, 0)) for p, m in ((a, mean_a), (b, mean_b))
    )
    close = (_local(a * b) - mean_a * mean_b) / (np.maximum(spread_a, 1) * np.maximum(spread_b, 1))
    return np.asarray(close), np.asarray(np.maximum(spread_a, spread_b) > TEXTURE)


def _local(pictures: np.ndarray) -> np.ndarray:
    return np.asarray(scipy.ndimage.uniform_filter(pictures, (0, WINDOW, WINDOW), mode="nearest"))


def _colour_gap(first: np.ndarray, second: np.ndarray) -> float:
    """How far red and blue, less green, of (M, 3) pixels differ at the same brightness, beside how much of
    them there is.
    """
    gain = np.clip(first.mean() / max(float(second.mean()), 1.0), 0.5, 2.0)
    one, other = (p[:, ::2] - p[:, 1:2] for p in (first, gain * second))
    return float(np.abs(one - other).mean() / (max(np.abs(one).mean(), np.abs(other).mean()) + 10))
