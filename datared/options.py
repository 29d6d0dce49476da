"""What a night file can say: camera, site, and the options of every step."""

from dataclasses import dataclass, field
from pathlib import Path

from astropy.coordinates import EarthLocation

__all__ = [
    "Amplifier",
    "AstrometryOptions",
    "Camera",
    "DiagramOptions",
    "FrameRule",
    "LightcurveOptions",
    "MagnitudeOptions",
    "PhotometryOptions",
    "ReductionOptions",
    "Site",
]


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where the telescope stands.

    Parameters
    ----------
    name : str
        Its name.
    latitude, longitude : float
        Degrees; north and east are positive. They are given by name, never by position.
    height : float
        Metres above sea level.
    """

    name: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    height: float = 0.0

    @property
    def location(self):
        """The site as `astropy.coordinates.EarthLocation`."""
        return EarthLocation.from_geodetic(self.longitude, self.latitude, self.height)


@dataclass(frozen=True)
class Amplifier:
    """One of several amplifiers that read a sensor, each with its own overscan.

    Parameters
    ----------
    image, overscan : str
        FITS sections of the raw frame, such as ``[1:512,1:1024]``: the pixels that see the sky
        through this amplifier, and those that hold its overscan.
    """

    image: str
    overscan: str


@dataclass(frozen=True)
class Camera:
    """What a header does not tell reliably about a camera.

    Parameters
    ----------
    gain : float or None
        Electrons per ADU. (The header card GAIN is a setting or an index in most programs.)
    read_noise : float or None
        Electrons.
    saturation : float or None
        Level in ADU, in the raw frame, from which on a pixel is not to be trusted.
    pixel_scale : float or None
        Arcseconds per pixel.
    diameter : float or None
        Diameter of the telescope's opening in centimetres, for scintillation.
    overscan, trim : str or None
        FITS sections, such as ``[1025:1056,1:1024]``: columns first, counted from 1, ends included.
    gain_keyword : str or None
        Header card that holds electrons per ADU, used where ``gain`` is not given. The card GAIN
        is not read unless it is named here.
    amplifiers : tuple of Amplifier
        The ``[[camera.amplifiers]]`` tables, instead of ``overscan``.
    """

    gain: float | None = None
    read_noise: float | None = None
    saturation: float | None = None
    pixel_scale: float | None = None
    diameter: float | None = None
    overscan: str | None = None
    trim: str | None = None
    gain_keyword: str | None = None
    amplifiers: tuple[Amplifier, ...] = ()


@dataclass(frozen=True)
class ReductionOptions:
    """Which calibrations are applied, and how.

    Parameters
    ----------
    use_bias, use_dark, use_flat : bool
        False leaves the correction out.
    strict : bool
        Stop before anything is written where a frame lacks a correction.
    scale_dark_with_bias : bool
        Where there are no bias frames, allow darks of another exposure time to be scaled together
        with the bias they contain. A part of the bias then stays in the frames.
    uncertainty : bool
        Write an uncertainty plane (needs gain and read noise).
    method : str
        How frames are combined into a master: ``"median"``, or ``"mean"`` with outliers clipped.
    cosmic_rays : str
        How cosmic rays are found in light frames: ``"laplacian"``, ``"median"``, or empty for not.
    repair : str
        What becomes of bad pixels: ``"mask"`` leaves them flagged, ``"gaussian"`` also fills them
        from their neighbours. The flag is kept in both. ``"subtract"`` is for nights without darks
        whose stars drift: what a hot pixel adds is told by the other frames and taken off
        (`datared.hotpixels`).
    electrons : bool
        Write products in electrons instead of ADU (needs the gain).
    memory_limit : float
        Megabytes that combining frames may take.
    illumination : bool
        Correct each flat by the smooth shape of the sky on the lights, see `datared.illumination`:
        for flats of a lamp that does not shine evenly.
    """

    use_bias: bool = True
    use_dark: bool = True
    use_flat: bool = True
    strict: bool = False
    scale_dark_with_bias: bool = False
    uncertainty: bool = False
    method: str = "median"
    cosmic_rays: str = ""
    repair: str = "mask"
    electrons: bool = False
    memory_limit: float = 512.0
    illumination: bool = False


@dataclass(frozen=True)
class AstrometryOptions:
    """How frames are solved.

    Parameters
    ----------
    solver : str
        Who finds where a frame points: ``"catalogue"`` (built in, no network), ``"solve-field"``
        (the program of astrometry.net on this computer) or ``"nova"`` (its service in the
        network, with a key in the environment variable ``ASTROMETRY_NET_API_KEY``).
    catalogue : pathlib.Path or None
        File with reference stars; asked from the network where it is None.
    source : str
        Catalogue to ask for where no file is named, see `datared.catalogs.fetch_catalogue`.
    limit_mag : float or None
        Faintest magnitude to ask for: for rich fields of which the answer would be too long.
    search_radius : float
        How far (arcmin) the true centre may be from the header's.
    scale_tolerance : float
        How far the true pixel scale may be from the given one (a fraction).
    sip_order : int or None
        Order of the distortion; chosen by cross-validation where it is None.
    time_limit : float
        Seconds that a solver outside of the package may take for one frame.
    keep_wcs : bool
        Keep world coordinates that a raw frame brings, where the stars confirm them.
    night_distortion : bool
        Fit one distortion to all frames of a set-up and use it where it predicts better.
    max_rms : float or None
        Frames with a larger rms of the residuals (px) count as failed.
    """

    solver: str = "catalogue"
    catalogue: Path | None = None
    source: str = "refcat2"
    limit_mag: float | None = None
    search_radius: float = 30.0
    scale_tolerance: float = 0.1
    sip_order: int | None = None
    time_limit: float = 120.0
    keep_wcs: bool = True
    night_distortion: bool = True
    max_rms: float | None = None


@dataclass(frozen=True)
class PhotometryOptions:
    """Apertures.

    Parameters
    ----------
    radii : tuple of float
        Radii of the apertures. By default 1, 1.5, 2, 2.5 and 3 times the FWHM of the frame.
    radius_unit : str
        Of radii and annulus: ``px``, ``arcsec``, ``fwhm`` (multiples of the frame's FWHM) or
        ``night-fwhm`` (multiples of the median FWHM, in arcsec, of the frames in the same filter:
        one radius for the night, however the seeing changes).
    annulus : tuple of float
        Inner and outer radius of the sky annulus. By default 4 and 6 times the FWHM.
    default_radius : int or None
        Index of the radius that results are quoted for; chosen by signal-to-noise where None.
    threshold : float
        Detection threshold in units of the sky noise.
    background : str
        Where the sky comes from: ``annulus-median``, ``annulus-mean``, ``map``, ``frame``,
        ``profile`` or ``none``, see `datared.photometry.aperture_photometry`.
    recentre : float or None
        Largest shift (px) by which an aperture may follow the centroid of its star; the apertures
        stay at the positions on the sky where it is None.
    bad_pixels : str
        A bad pixel in an aperture: ``fill`` (the pixel opposite to it through the middle of the
        star stands in; no flux where that is bad, too), or ``nan`` (no flux). The flag is set in
        both.
    scintillation : bool
        Add the scintillation of the air to the errors. It needs ``camera.diameter`` and a site.
    """

    radii: tuple = (1.0, 1.5, 2.0, 2.5, 3.0)
    radius_unit: str = "fwhm"
    annulus: tuple = (4.0, 6.0)
    default_radius: int | None = None
    threshold: float = 5.0
    background: str = "annulus-median"
    recentre: float | None = None
    bad_pixels: str = "fill"
    scintillation: bool = False


@dataclass(frozen=True)
class MagnitudeOptions:
    """How fluxes become magnitudes.

    Parameters
    ----------
    method : str
        How zero points are found: ``"global"`` (all frames of a filter together, see
        `datared.zeropointfit.fit_zero_points`), ``"median"`` or ``"ransac"`` (each frame alone,
        see `datared.zeropoints`).
    colour : str
        Colour of the colour term: two bands of the catalogue, such as ``"g-i"``; ``"auto"`` takes
        the two that are farthest apart among those that the night and the catalogue have;
        ``"none"`` for no colour term.
    transformation : str
        Name of a published transformation (`datared.systems.transformations`) that brings the
        catalogue into the system of the filters; empty for none.
    standards : pathlib.Path or None
        File with standard stars. With it zero points come from the frames of a standard field and
        the extinction of the air, see `datared.standards.standard_solution`.
    standard_object : str or None
        Object of the frames with the standard field, as their headers call it.
    extinction : dict
        Extinction in mag per airmass where it is known: ``{"B": 0.2}`` for filter B. Needed only
        with ``standards``; a catalogue's stars are on the frame itself.
    """

    method: str = "global"
    colour: str = "auto"
    transformation: str = ""
    standards: Path | None = None
    standard_object: str | None = None
    extinction: dict = field(default_factory=dict)


@dataclass(frozen=True)
class DiagramOptions:
    """Colour-magnitude diagram.

    Parameters
    ----------
    bands : tuple of str
        Two filters, for the colour (the first is also the magnitude), or three: those of the
        colour and that of the magnitude. Chosen from the night's where empty.
    isochrones : pathlib.Path or None
        File or folder with model isochrones; those of the package where it is None.
    fit : bool
        Fit age, distance and extinction of the cluster. It takes a minute.
    """

    bands: tuple = ()
    isochrones: Path | None = None
    fit: bool = False


@dataclass(frozen=True)
class LightcurveOptions:
    """Light curve of the target.

    Parameters
    ----------
    filter : str or None
        The filter; needed where the night has several.
    comparison : tuple of int
        Stars to compare with (identifiers of the star list); chosen where it is empty.
    method : str
        ``ensemble`` (all comparison stars solved together) or ``sum`` (their fluxes added).
    """

    filter: str | None = None
    comparison: tuple = ()
    method: str = "ensemble"


@dataclass(frozen=True)
class FrameRule:
    """What the night file says about frames instead of their headers.

    Parameters
    ----------
    match : str
        Pattern of file names relative to ``raw``, such as ``science/*`` or ``*_B_*.fits``.
    kind, filter, object, exptime, temperature
        Values to use instead of the header's; None leaves them.
    exclude : str or None
        Reason why these frames are not used.
    """

    match: str
    kind: str | None = None
    filter: str | None = None
    object: str | None = None
    exptime: float | None = None
    temperature: float | None = None
    exclude: str | None = None
