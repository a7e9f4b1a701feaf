"""What the tabs about points in the plane share."""

from __future__ import annotations

from genlab.schedule import linear_schedule
from genlab.serving.language import both

T = 200
"""Length of the chain of every model of points."""
SCHEDULE = linear_schedule(T)

NAMES = {
    "moons": both("moons", "双月"),
    "rings": both("rings", "同心圆"),
    "spiral": both("spiral", "螺旋"),
    "letters": both("letters", "字母"),
    "gaussians": both("8 Gaussians", "8 个高斯"),
    "blobs": both("3 Gaussians", "3 个高斯"),
    "pinwheel": both("pinwheel", "风车"),
    "checkerboard": both("checkerboard", "棋盘"),
}
