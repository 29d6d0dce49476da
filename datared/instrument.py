"""A simulated camera behind a simulated telescope: defects, flat field, distortion, exposure."""

import math
from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS, Sip
from scipy.special import expit

from .pixels import BAD_COLUMN, DEAD, HOT
from .render import sensor_counts

__all__ = [
    "Sensor",
    "expose",
    "frame_wcs",
    "make_sensor",
    "sky_to_pixel",
]

#: Displacement of a star in the corner of the frame by the distortion, in pixels.
CORNER_DISTORTION = 3.0


@dataclass(frozen=True, eq=False)
class Sensor:
    """What the camera does to light, pixel by pixel.

    Attributes
    ----------
    gain : float
        Electrons per count (e-/ADU).
    read_noise : float
        Electrons.
    full_scale : int
        Largest count; brighter pixels are cut off there.
    bias : numpy.ndarray of float, shape (ny, nx)
        Counts of an exposure without light and time.
    dark_rate : numpy.ndarray of float, shape (ny, nx)
        Dark current, hot pixels and amplifier glow in electrons per second.
    response : dict of str to numpy.ndarray of float, shape (ny, nx)
        For each filter, the share of light that a pixel turns into electrons; median 1, so that
        a frame divided by a flat of median 1 keeps the scale of the zero point.
    defects : numpy.ndarray of uint16, shape (ny, nx)
        Bits of `datared.pixels`: HOT, DEAD, BAD_COLUMN.
    full_well : float
        Electrons that a pixel can hold; no limit by default.
    nonlinearity : float
        Share of the signal that is lost at the full well: the loss grows in proportion to the
        electrons in a pixel, so half of this share is lost at half of the full well. It needs a
        finite ``full_well``.
    """

    gain: float
    read_noise: float
    full_scale: int
    bias: np.ndarray
    dark_rate: np.ndarray
    response: dict
    defects: np.ndarray
    full_well: float = math.inf
    nonlinearity: float = 0.0

    @property
    def shape(self):
        """Shape of a frame, ``(ny, nx)``."""
        return self.bias.shape


def make_sensor(shape, *, filters, seed, gain=0.376, read_noise=3.5, offset=500.0):
    """Make a camera with its own flaws.

    Pixel response scatters by 1 %, vignetting falls to 0.8 in the corners, dust draws rings (some
    on the window, some on each filter), one pixel in 2000 is hot, one in 20 000 dead, one column is
    bad over a part of its length, and the amplifier glows in a corner.

    Parameters
    ----------
    shape : tuple of int
        Shape of a frame, ``(ny, nx)``.
    filters : sequence of str
        Names of the filters.
    seed : int or numpy.random.Generator
        Seed of the flaws.
    gain, read_noise : float
        Electrons per count, and electrons.
    offset : float
        Mean bias level in counts.

    Returns
    -------
    Sensor
        The camera.

    Examples
    --------
    >>> sensor = make_sensor((100, 150), filters=["r"], seed=1)
    >>> sensor.shape, round(float(np.median(sensor.response["r"])), 3)
    ((100, 150), 1.0)
    """
    rng = np.random.default_rng(seed)
    ny, nx = shape
    y, x = np.mgrid[0:ny, 0:nx].astype(float)
    half = math.hypot(nx, ny) / 2
    center_x, center_y = nx / 2 + rng.normal(0, 0.01 * nx), ny / 2 + rng.normal(0, 0.01 * ny)
    vignetting = 1 - 0.2 * ((x - center_x) ** 2 + (y - center_y) ** 2) / half**2
    pixels = vignetting * rng.normal(1.0, 0.01, shape)
    pixels *= _dust(x, y, rng, 3)
    response = {name: pixels * _dust(x, y, rng, 3) for name in filters}

    defects = np.zeros(shape, np.uint16)
    blind = np.ones(shape)
    dead = rng.choice(nx * ny, max(3, nx * ny // 20_000), replace=False)
    blind.flat[dead] = 0.03
    defects.flat[dead] |= DEAD
    column, start = int(nx * rng.uniform(0.75, 0.85)), int(ny * rng.uniform(0.3, 0.5))
    blind[start:, column] = 0.2
    defects[start:, column] |= BAD_COLUMN
    for name in filters:
        response[name] = response[name] * blind / np.median(response[name])

    dark = np.full(shape, 0.1) * rng.normal(1.0, 0.05, shape)
    dark += 3.0 * np.exp(-np.hypot(nx - 1 - x, y) / (0.08 * nx))
    hot = rng.choice(nx * ny, max(5, nx * ny // 2000), replace=False)
    dark.flat[hot] += 10 ** rng.uniform(0.0, 2.5, hot.size)
    defects.flat[hot] |= HOT

    bias = offset + rng.normal(0, 2.0, nx)[None, :] + 3.0 * (y / ny - 0.5)
    bias += offset - bias.mean()
    return Sensor(gain, read_noise, 65535, bias, dark, response, defects)


def expose(sensor, light, *, exptime, rng, filter=None, charge=None):
    """Take one exposure.

    Expected electrons are light x response + dark current x time; photons and read noise are drawn
    around them by `datared.render.sensor_counts`, which also fills the pixels up.

    Parameters
    ----------
    sensor : Sensor
        The camera.
    light : numpy.ndarray of float, shape (ny, nx), or None
        Electrons of the whole exposure that a pixel with response 1 would collect; ``None`` for
        a closed shutter.
    exptime : float
        Seconds.
    rng : numpy.random.Generator
        Source of the noise.
    filter : str, optional
        Filter in the beam; needed with light.
    charge : numpy.ndarray of float, shape (ny, nx), optional
        Electrons that particles leave in the pixels.

    Returns
    -------
    numpy.ndarray of uint16, shape (ny, nx)
        The raw frame.
    """
    electrons = sensor.dark_rate * exptime
    if light is not None:
        electrons += light * sensor.response[filter]
    if charge is not None:
        electrons += charge
    return sensor_counts(
        electrons,
        gain=sensor.gain,
        read_noise=sensor.read_noise,
        offset=sensor.bias,
        seed=rng,
        full_scale=sensor.full_scale,
        full_well=sensor.full_well,
        curvature=sensor.nonlinearity / sensor.full_well,
    )


def frame_wcs(shape, *, ra, dec, scale, rotation):
    r"""Sky coordinates of a frame with cubic radial distortion.

    .. math:: u' = u \, (1 + k r^2), \quad v' = v \, (1 + k r^2), \quad r^2 = u^2 + v^2

    from the middle of the frame, which SIP of order 3 writes exactly (``A_3_0 = A_1_2 = B_0_3 =
    B_2_1 = k``); `k` is such that a corner moves by `CORNER_DISTORTION`.

    Parameters
    ----------
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    ra, dec : float
        Sky position of the middle of the frame in degrees.
    scale : float
        Arcseconds per pixel in the middle.
    rotation : float
        Position angle of the y axis in degrees, from north over east.

    Returns
    -------
    astropy.wcs.WCS
        Projection TAN-SIP.

    Examples
    --------
    >>> wcs = frame_wcs((100, 200), ra=10.0, dec=20.0, scale=1.0, rotation=0.0)
    >>> x, y = sky_to_pixel(wcs, [10.0], [20.0 + 10 / 3600])
    >>> float(round(x[0], 3)), float(round(y[0] - 49.5, 2))
    (99.5, 10.0)
    """
    ny, nx = shape
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(nx + 1) / 2, (ny + 1) / 2]
    cosine, sine = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    wcs.wcs.cd = np.array([[-cosine, sine], [sine, cosine]]) * scale / 3600
    k = CORNER_DISTORTION / (math.hypot(nx, ny) / 2) ** 3
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[3, 0] = a[1, 2] = b[0, 3] = b[2, 1] = k
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.pixel_shape = (nx, ny)
    wcs.wcs.set()
    return wcs


def sky_to_pixel(wcs, ra, dec):
    """Pixel positions of sky coordinates through the distortion of `frame_wcs`.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        From `frame_wcs`.
    ra, dec : array-like of float, shape (n,)
        Degrees.

    Returns
    -------
    tuple of numpy.ndarray of float, shape (n,)
        ``x`` and ``y``, 0-based.
    """
    x, y = wcs.wcs_world2pix(np.asarray(ra, float), np.asarray(dec, float), 0)
    x0, y0 = wcs.wcs.crpix - 1
    k = wcs.sip.a[3, 0]
    ideal = np.hypot(x - x0, y - y0)
    radius = ideal.copy()
    # Newton's method on r (1 + k r^2) = ideal.
    for _ in range(8):
        radius -= (radius + k * radius**3 - ideal) / (1 + 3 * k * radius**2)
    shrink = 1 / (1 + k * radius**2)
    return x0 + (x - x0) * shrink, y0 + (y - y0) * shrink


def _dust(x, y, rng, n):
    """Draw the shadow of grains of dust: rings, for light from a mirror with a hole."""
    shadow = np.ones(x.shape)
    ny, nx = x.shape
    for _ in range(n):
        radius = rng.uniform(0.012, 0.03) * nx
        distance = np.hypot(x - rng.random() * nx, y - rng.random() * ny) / radius
        ring = expit(15 * (1 - distance)) - 0.7 * expit(15 * (0.4 - distance))
        shadow -= rng.uniform(0.02, 0.06) * ring
    return shadow
