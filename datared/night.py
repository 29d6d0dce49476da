"""A night: where its frames are, with what they were taken, and how to reduce them.

A night is described by one small text file, ``night.toml``, or by a few options of the command
line. Reading it makes no file and no folder.
"""

import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path

from astropy.coordinates import SkyCoord

from .errors import ConfigError
from .names import known_object
from .options import (
    Amplifier,
    AstrometryOptions,
    Camera,
    DiagramOptions,
    FrameRule,
    LightcurveOptions,
    MagnitudeOptions,
    PhotometryOptions,
    ReductionOptions,
    Site,
)
from .settings import Reader, parse_position
from .stackoptions import StackOptions, stack_problems
from .transitoptions import TransitOptions, transit_problems

__all__ = [
    "Amplifier",
    "AstrometryOptions",
    "Camera",
    "DiagramOptions",
    "FrameRule",
    "LightcurveOptions",
    "MagnitudeOptions",
    "Night",
    "PhotometryOptions",
    "ReductionOptions",
    "Site",
    "StackOptions",
    "TransitOptions",
    "aperture_settings",
    "load_night",
    "make_night",
]


@dataclass(frozen=True)
class Night:
    """One night (or several with the same camera), as `load_night` or `make_night` give it.

    Parameters
    ----------
    name : str
        For titles.
    raw, work : pathlib.Path
        Where the frames are (never written to), and where products go.
    calibration : pathlib.Path or None
        A second folder with raw frames.
    path : pathlib.Path or None
        The night file.
    object : str or None
        Only light frames of this object are used; case and blanks do not count.
    date : str or None
        Only light frames of the night that begins on this date at the site are used (see
        `datared.listing.evening_date`), such as ``2026-02-14``. Calibration frames of any date
        are used, as they are often shared by several nights.
    target, target_coord : str or None, SkyCoord or None
        The star of interest, by name and by position (where one was given, or the name is in the
        package's list of stars, see `datared.names`).
    exclude_filters : tuple of str
        Light frames in these filters are not used.
    headers : dict
        Further header cards for a word of the vocabulary: ``{"filter": ("MYFILT",)}``.
    rules : tuple of FrameRule
        The ``[[frames]]`` tables; a later one wins.
    truth : pathlib.Path or None
        Folder with the truth of a simulated night.
    """

    name: str
    raw: Path
    work: Path
    calibration: Path | None = None
    path: Path | None = None
    camera: Camera = field(default_factory=Camera)
    site: Site | None = None
    object: str | None = None
    date: str | None = None
    target: str | None = None
    target_coord: SkyCoord | None = field(default=None, compare=False)
    exclude_filters: tuple = ()
    headers: dict = field(default_factory=dict)
    rules: tuple = ()
    reduction: ReductionOptions = field(default_factory=ReductionOptions)
    astrometry: AstrometryOptions = field(default_factory=AstrometryOptions)
    photometry: PhotometryOptions = field(default_factory=PhotometryOptions)
    magnitudes: MagnitudeOptions = field(default_factory=MagnitudeOptions)
    diagram: DiagramOptions = field(default_factory=DiagramOptions)
    lightcurve: LightcurveOptions = field(default_factory=LightcurveOptions)
    transit: TransitOptions = field(default_factory=TransitOptions)
    stack: StackOptions = field(default_factory=StackOptions)
    truth: Path | None = None


def load_night(path, *, settings=None):
    """Read a night file.

    Parameters
    ----------
    path : str or pathlib.Path
        The file, or the folder that holds a ``night.toml``. Paths in it are relative to its folder;
        ``~`` is the home folder.
    settings : dict, optional
        What replaces settings of the file, in its words: ``{"reduction": {"use_flat": False}}``.

    Returns
    -------
    Night
        With absolute paths.

    Raises
    ------
    ConfigError
        With all problems of the file at once in ``problems``.
    """
    path = Path(path).expanduser().absolute()
    if path.is_dir():
        path = path / "night.toml"
    if not path.is_file():
        raise ConfigError(
            f"there is no night file {path}: write one, or get a night with `datared fetch`"
        )
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return _build(_merged(own, settings), folder=path.parent, path=path)


def make_night(
    lights,
    *,
    work,
    calibration=None,
    name=None,
    object=None,
    date=None,
    target=None,
    exclude_filters=(),
    camera=None,
    site=None,
    catalogue=None,
    radius=None,
    radii=None,
    radius_unit=None,
    use_bias=True,
    use_dark=True,
    use_flat=True,
    strict=False,
    settings=None,
):
    """Make a night without a file, as the command line does.

    Parameters
    ----------
    lights : str or pathlib.Path
        Folder with frames, in any layout; calibration frames may be among them.
    work : str or pathlib.Path
        Where products go.
    calibration : str or pathlib.Path, optional
        Folder with (further) calibration frames.
    name, object, date, target : str, optional
        Title, object and night of the light frames, star of interest.
    exclude_filters : sequence of str
        Filters of light frames to leave out.
    camera, site : Camera, Site, optional
        Camera and place.
    catalogue : str or pathlib.Path, optional
        File with reference stars.
    radius : float, optional
        One aperture radius (px unless ``radius_unit`` says otherwise), with the sky annulus between
        1.6 and 2.4 times of it.
    radii : sequence of float, optional
        Several radii instead.
    radius_unit : str, optional
        ``px``, ``arcsec``, ``fwhm`` or ``night-fwhm``, see `PhotometryOptions`.
    use_bias, use_dark, use_flat, strict : bool
        See `ReductionOptions`.
    settings : dict, optional
        Any other settings, in the words of a night file; they win over the arguments.

    Returns
    -------
    Night
        With absolute paths.

    Raises
    ------
    ConfigError
        With all problems at once.
    """
    photometry = {"radius_unit": radius_unit}
    if radius is not None and radii is not None:
        raise ConfigError("give either radius or radii, not both")
    if radius is not None or radii is not None:
        radii = [radius] if radii is None else radii
        photometry = aperture_settings(radii, radius_unit=radius_unit or "px")
    given = settings
    settings = {
        "name": name,
        "raw": str(lights),
        "work": str(work),
        "calibration": None if calibration is None else str(calibration),
        "object": object,
        "date": date,
        "target": target,
        "exclude_filters": list(exclude_filters),
        "camera": asdict(camera) if camera is not None else {},
        "reduction": {
            "use_bias": use_bias,
            "use_dark": use_dark,
            "use_flat": use_flat,
            "strict": strict,
        },
        "astrometry": {"catalogue": None if catalogue is None else str(catalogue)},
        "photometry": photometry,
    }
    if site is not None:
        settings["site"] = asdict(site)
    return _build(_merged(settings, given), folder=Path.cwd(), path=None)


def aperture_settings(radii, *, radius_unit="px"):
    """Give the settings of ``[photometry]`` for some radii, with the annulus that goes with them.

    Parameters
    ----------
    radii : sequence of float
        Radii of the apertures; the sky is between 1.6 and 2.4 times the largest.
    radius_unit : str
        ``px``, ``arcsec``, ``fwhm`` or ``night-fwhm``.

    Returns
    -------
    dict
        ``radii``, ``radius_unit`` and ``annulus``.
    """
    annulus = [1.6 * max(radii), 2.4 * max(radii)]
    return {"radii": list(radii), "radius_unit": radius_unit, "annulus": annulus}


def _merged(settings, given):
    """Put settings in the place of others, table by table; None leaves what is there."""
    result = _without_none(settings)
    for key, value in _without_none(given or {}).items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = {**result[key], **value} if both else value
    return result


def _without_none(value):
    """Leave out of nested dictionaries what is None, as TOML has no such value."""
    if not isinstance(value, dict):
        return value
    return {key: _without_none(item) for key, item in value.items() if item is not None}


def _build(settings, *, folder, path):
    """Night of the parsed settings, with every problem collected before anything is raised."""
    reader = Reader(folder)
    top = reader.table(
        settings, Night, "", skip=("path", "rules"), extra=("frames", "target_coord")
    )
    sections = {
        "camera": Camera,
        "site": Site,
        "reduction": ReductionOptions,
        "astrometry": AstrometryOptions,
        "photometry": PhotometryOptions,
        "magnitudes": MagnitudeOptions,
        "diagram": DiagramOptions,
        "lightcurve": LightcurveOptions,
        "transit": TransitOptions,
        "stack": StackOptions,
    }
    for key, kind in sections.items():
        if key in settings:
            required = ("latitude", "longitude") if key == "site" else ()
            values = reader.table(settings[key], kind, key, required=required)
            if key == "magnitudes":
                values["extinction"] = reader.extinction(settings[key])
            top[key] = kind(**values)
    if "transit" in top:
        reader.problems += transit_problems(top["transit"])
    if "stack" in top:
        reader.problems += stack_problems(top["stack"])
    stars = top["lightcurve"].comparison if "lightcurve" in top else ()
    if not all(type(star) is int and star >= 0 for star in stars):
        reader.problems.append(
            f"lightcurve.comparison = {list(stars)!r} must be numbers of the star list: 0, 1, 2 ..."
        )
    rules = reader.tables(settings.get("frames", []), FrameRule, "frames", required=("match",))
    top["rules"] = tuple(FrameRule(**rule) for rule in rules if "match" in rule)
    top["headers"] = reader.synonyms(settings.get("headers", {}))
    top["target_coord"] = _target(settings, reader)
    reader.photometry(settings.get("photometry"), top)
    if "camera" in top and top["camera"].overscan and top["camera"].amplifiers:
        reader.problems.append("give either camera.overscan or [[camera.amplifiers]], not both")
    _check_folders(top, reader, settings)
    where = f"{path}: " if path else ""
    if reader.problems:
        raise ConfigError(*(where + problem for problem in reader.problems))
    default = path.parent.name if path else top["raw"].name
    return Night(**{"name": default, **top, "path": path})


def _target(settings, reader):
    """Position of the target, from ``target_coord`` or from a target that is a position."""
    text = settings.get("target_coord")
    if text is not None:
        position = parse_position(text) if isinstance(text, str) else None
        if position is None:
            reader.problems.append(
                f"target_coord = {text!r} is no position; write for example "
                '"02:04:10.278 +46:41:16.21" (hours, degrees) or "31.0428 46.6878" (degrees)'
            )
        return position
    target = settings.get("target")
    position = parse_position(target) if isinstance(target, str) else None
    known = known_object(target) if isinstance(target, str) and position is None else None
    # A cluster is a field, not a star to measure. Loading a night never asks the network.
    return position if known is None or known.kind == "cluster" else known.position


def _check_folders(top, reader, settings):
    """Refuse missing raw folders, and a work folder that is mixed with them."""
    for key in ("raw", "work"):
        if key not in settings:
            reader.problems.append(
                f'{key} is missing: add the line {key} = "folder" '
                + ("with the raw frames" if key == "raw" else "for the products")
            )
    work = top.get("work")
    for key in ("raw", "calibration"):
        folder = top.get(key)
        if folder is None:
            continue
        if not folder.is_dir():
            reader.problems.append(
                f"{key} folder {folder} does not exist: correct {key}, or put the frames there"
            )
        if work is not None and (
            work.resolve().is_relative_to(folder.resolve())
            or folder.resolve().is_relative_to(work.resolve())
        ):
            reader.problems.append(
                f"work folder {work} and {key} folder {folder} must not contain each other: "
                "raw frames and products stay apart; choose a folder beside it"
            )
    for table, key in (("astrometry", "catalogue"), ("magnitudes", "standards")):
        path = getattr(top.get(table), key, None)
        if path is not None and not path.is_file():
            reader.problems.append(f"{table}.{key}: there is no file {path}")
    path = getattr(top.get("diagram"), "isochrones", None)
    if path is not None and not path.exists():
        reader.problems.append(f"diagram.isochrones: there is no file or folder {path}")
