"""Reads motion from a path of centres on the torus: class, jumps, freezes, repetition, path and speed.

Knows circles and straight lines on the torus. Knows no pixels, no prompts, no models. Positions are in sides, time is
in frames, y points down, so a positive turn is clockwise on the screen. F frames; absent objects are NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from longgen.shapes.grammar import MOTIONS
from longgen.shapes.judge_frame import Array
from longgen.shapes.render import DIRECTIONS, ORBIT_RANGE, SPEED_RANGE

LAG = 4
"""Frames between the positions whose difference is a heading; short enough to stay below half a side."""
WINDOW = 17
"""Frames about each frame from which its local motion is read."""
MIN_SPEED = SPEED_RANGE[0] / 3
"""Sides per frame below which an object stands still."""
MAX_SPEED = SPEED_RANGE[1] * 2
"""Sides per frame beyond which a heading is a jump, and says nothing about the class of motion."""
MAX_SURGE = 1.6
"""The same, as a multiple of the video's median speed."""
MIN_READABLE = 0.4
"""Share of headings that must be left to name a motion."""
MIN_TURN = SPEED_RANGE[0] / ORBIT_RANGE[1] / 2
"""Radians per frame that part circling from drifting: half the slowest circling."""
MIN_COHERENCE = 0.6
"""How much consecutive headings must agree on one turn (1: exactly; about 0: a random walk)."""
MIN_STRAIGHT = 0.7
"""Net over gross travel of a drift."""
AXIS_COSINE = math.cos(math.radians(30))
"""A drift is named after an axis within 30 degrees."""
MAX_JUMP = 0.025
"""Change of velocity, sides per frame, beyond which the path breaks (the sharpest true circling changes by 0.0125)."""
CIRCLING = MOTIONS.index("circling")


def wrap(difference: Array) -> Array:
    """Shortest difference on the unit torus, in [-1/2, 1/2)."""
    return np.asarray((difference + 0.5) % 1.0 - 0.5)


def local_motion(points: Array, window: int = WINDOW) -> Array:
    """Motion class about each frame, [F], -1 where none fits.

    Args:
        points: [F, 2], NaN where absent.
        window: frames per reading, centred, moved inwards at the ends; shorter videos are read as a whole.
    """
    frames = len(points)
    window = min(window, frames)
    if window < 2:
        return np.full(frames, -1)
    lag = min(LAG, max(1, (window - 1) // 3))
    first = np.clip(np.arange(frames) - window // 2, 0, frames - window)
    heading = wrap(points[lag:] - points[:-lag]) / lag  # F - lag
    speed = np.hypot(*heading.T)
    if np.isnan(speed).all():
        return np.full(frames, -1)
    heading[speed > min(MAX_SPEED, MAX_SURGE * np.nanmedian(speed))] = np.nan
    speed = np.hypot(*heading.T)
    a, b = heading[:-lag], heading[lag:]
    cross, dot = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0], (a * b).sum(1)
    gross = np.hypot(cross, dot)

    def total(values: Array, span: int) -> Array:
        """Sum of the non-NaN values whose frames all lie within each frame's window."""
        sums = np.concatenate([[0.0], np.nancumsum(values)])
        last = np.maximum(first + window - span, first)
        return np.asarray(sums[np.minimum(last, len(values))] - sums[np.minimum(first, len(values))])

    count = total(~np.isnan(speed) * 1.0, lag)
    readable = count >= MIN_READABLE * (window - lag)
    net = np.stack([total(heading[:, 0], lag), total(heading[:, 1], lag)], 1)
    turns = np.stack([total(cross, 2 * lag), total(dot, 2 * lag), total(gross, 2 * lag)], 1)
    return np.asarray(np.where(readable, _classes(net, total(speed, lag), count, turns, lag), -1))


def _classes(net: Array, gross: Array, count: Array, turns: Array, lag: int) -> Array:
    """Motion classes from summed headings [N, 2], summed speeds, their count, and (cross, dot, size) of turns."""
    with np.errstate(divide="ignore", invalid="ignore"):
        moving = gross / count > MIN_SPEED
        turn = np.arctan2(turns[:, 0], turns[:, 1]) / lag
        coherent = (turns[:, 2] == 0) | (np.hypot(turns[:, 0], turns[:, 1]) / turns[:, 2] > MIN_COHERENCE)
        length = np.hypot(*net.T)
        straight = length / gross > MIN_STRAIGHT
        cosine = net / length[:, None] @ np.array([DIRECTIONS[m] for m in MOTIONS]).T
    drift = np.where(straight & (cosine.max(1) >= AXIS_COSINE), cosine.argmax(1), -1)
    turning = np.where(turn > 0, CIRCLING, -1)
    named = np.where(np.abs(turn) > MIN_TURN, turning, drift)
    return np.asarray(np.where(moving & coherent, named, -1))


def motion_class(points: Array) -> int:
    """Motion class of the whole path, -1 where none fits."""
    return int(local_motion(points, len(points))[0]) if len(points) else -1


def steps(points: Array) -> tuple[Array, Array]:
    """Velocities [N, 2] between successive frames with an object, and the later frame's number [N].

    A gap of absent frames counts as steady motion, unless it is so long that the object may have gone round.
    """
    seen = np.flatnonzero(~np.isnan(points[:, 0]))
    gap = np.diff(seen)
    velocity = wrap(np.diff(points[seen], axis=0)) / gap[:, None]
    usable = gap * SPEED_RANGE[1] < 0.4
    return velocity[usable], seen[1:][usable]


def jumps(points: Array) -> Array:
    """Frames at which the velocity changes by more than `MAX_JUMP`."""
    velocity, frame = steps(points)
    return np.asarray(frame[1:][np.hypot(*np.diff(velocity, axis=0).T) > MAX_JUMP])


def longest_freeze(points: Array) -> int:
    """Longest run of steps without motion."""
    velocity, _ = steps(points)
    best = run = 0
    for still in np.hypot(*velocity.T) < MIN_SPEED:
        run = run + 1 if still else 0
        best = max(best, run)
    return best


@dataclass(frozen=True)
class Path:
    """A fitted path: see `render.Identity` for the meaning of its fields."""

    speed: float
    x: float
    y: float
    orbit: float
    phase: float


def fit(points: Array, motion: int, lag: int | None = None) -> Path | None:
    """The path through the points for a motion class, at frame 0 of `points`; None with under 3 points.

    Speed is the median over pairs of points `lag` apart, by default half of them: exact for a steady motion.
    """
    seen = np.flatnonzero(~np.isnan(points[:, 0]))
    if motion < 0 or len(seen) < 3:
        return None
    lag = min(lag or len(seen), len(seen) // 2)
    return _fit_circle(points, seen, lag) if motion == CIRCLING else _fit_line(points, seen, motion, lag)


def _rate(values: Array, times: Array, lag: int) -> float:
    """Median slope over pairs of samples `lag` apart."""
    return float(np.median((values[lag:] - values[:-lag]) / (times[lag:] - times[:-lag])))


def _fit_line(points: Array, seen: Array, motion: int, lag: int) -> Path:
    """Median step along the axis, and the median of where the steps lead back to: a few jumps do not matter."""
    along = 0 if DIRECTIONS[MOTIONS[motion]][0] else 1
    sign = DIRECTIONS[MOTIONS[motion]][along]
    unwrapped = points[seen[0]] + np.concatenate([[[0.0, 0.0]], np.cumsum(wrap(np.diff(points[seen], axis=0)), 0)])
    speed = _rate(unwrapped[:, along], seen, lag)
    start = np.median(unwrapped - speed * seen[:, None] * np.eye(2)[along], axis=0) % 1.0
    return Path(speed=speed * sign, x=float(start[0]), y=float(start[1]), orbit=0.0, phase=0.0)


def _fit_circle(points: Array, seen: Array, lag: int) -> Path:
    """Algebraic least squares (Kasa) on the points unwrapped about the middle, then the median turn per frame."""
    p = 0.5 + wrap(points[seen] - 0.5)
    system = np.concatenate([2 * p, np.ones((len(p), 1))], 1)
    (x, y, c), *_ = np.linalg.lstsq(system, (p**2).sum(1), rcond=None)
    orbit = math.sqrt(max(c + x * x + y * y, 1e-12))
    angle = np.unwrap(np.arctan2(p[:, 1] - y, p[:, 0] - x))
    rate = _rate(angle, seen, lag)
    phase = float(np.median(angle - rate * seen)) % (2 * math.pi)
    return Path(speed=rate * orbit, x=float(x), y=float(y), orbit=orbit, phase=phase)


def repetition(points: Array, motion: int) -> float:
    """Largest share of frames, over all lags, that return to an earlier place although the motion should not, 0-1.

    What the motion should do is read from short lags, which a loop leaves alone. At a lag where steady motion would
    itself return (within 0.012 sides) nothing can be said, and nothing is counted.
    """
    path = fit(points, motion, lag=2 * LAG)
    if path is None:
        return 0.0
    worst = 0.0
    for lag in range(2, len(points) * 2 // 3):
        if motion == CIRCLING:
            expected = 2 * path.orbit * abs(math.sin(lag * path.speed / path.orbit / 2))
        else:
            expected = abs(float(wrap(np.array(lag * path.speed))))
        if expected > 0.012:
            moved = np.hypot(*wrap(points[lag:] - points[:-lag]).T)
            worst = max(worst, float(np.mean(moved < 0.004)))
    return worst
