"""Frames of standard fields: calibrated, placed on the sky and measured as the night's own frames.

Products of the night stay as they are: standard fields have other stars, and are no epochs.
"""

import logging

import numpy as np
from astropy import units as u
from astropy.table import MaskedColumn, Table, vstack
from astropy.wcs import WCS

from .assembly import read_photometry
from .atmosphere import EFFECTIVE_WAVELENGTHS, site_extinction
from .catalogs import at_epoch, positions, read_catalogue
from .errors import ConfigError, DataredError, SolveError
from .frames import inventory, product_name, read_frame, read_product, select_lights
from .headerwcs import read_wcs
from .instrumental import instrumental_magnitude, magnitude_error, passband, plain_values
from .masters import hot_name
from .patterns import mutual_matches
from .photometry import aperture_photometry
from .projection import from_plane, to_plane
from .reduction import reduce_frame
from .rows import FileRows
from .skyshift import find_translation, solve_shift
from .sources import detect
from .systems import JOHNSON_COUSINS, johnson_cousins
from .times import airmass, altitude

__all__ = ["measure_standards", "standard_frames"]

log = logging.getLogger("datared.standardfields")

#: A standard field may be this far from where the header says, after the night's own offset.
POINTING = 1.5 * u.arcmin
#: Standards within this distance (deg) of a frame are tried.
FIELD = 0.5
#: Stars of two frames of a field are the same within this (px).
SAME = 3.0


def measure_standards(night):
    """Measure the standard stars on the frames of the standard fields.

    The frames are those of ``[magnitudes] standard_object`` (several names with commas between
    them), or of all other objects that are near a standard. Each is calibrated with the masters of
    the night's own frames in that filter. Its place comes from `datared.skyshift.solve_shift`.

    Parameters
    ----------
    night : Night
        A night with photometry and ``[magnitudes] standards``.

    Returns
    -------
    astropy.table.Table
        One row for each standard on each frame: ``file``, ``filter``, ``object``, ``camera``,
        ``star`` (name), ``ra``, ``dec``, ``x``, ``y``, ``exptime``, ``airmass``, ``flux``,
        ``flux_err``, ``flags`` (largest aperture), ``magnitude`` and ``magnitude_err``
        (instrumental, of all the light), ``used``, ``chance`` (of the place), and ``cat_<band>``,
        ``cat_<band>_err`` of the catalogue.

    Raises
    ------
    ConfigError
        If the night names no standards, or has no frame of them.
    DataredError
        If no standard was found on any frame; with the reasons.
    """
    lights = standard_frames(night)
    catalogue, photometry = read_catalogue(night.magnitudes.standards), read_photometry(night)
    setup = _Setup(night, photometry)
    tables, reasons = [], []
    for name in dict.fromkeys(np.asarray(lights["object"]).astype(str)):
        try:
            frames = _look_at(lights[np.asarray(lights["object"]) == name], setup)
            tables.append(_measure_field(frames, setup, catalogue))
        except SolveError as error:
            log.warning("%s: %s", name, error)
            reasons.append(f"{name}: {error}")
    if not tables:
        raise DataredError(f"no standard star was found. {'; '.join(reasons)}")
    return vstack(tables, metadata_conflicts="silent")


def standard_frames(night):
    """Find the light frames of the standard fields of a night.

    Parameters
    ----------
    night : Night
        A night with photometry and ``[magnitudes] standards``.

    Returns
    -------
    astropy.table.Table
        Rows of `datared.listing.inventory`, in the filters of the night.

    Raises
    ------
    ConfigError
        If the night names no standards, or has no frame of them.
    """
    path = night.magnitudes.standards
    if path is None:
        raise ConfigError("the night names no standard stars: give [magnitudes] standards = a file")
    names = set(np.asarray(read_photometry(night).epochs["filter"]).astype(str))
    lights = _fields(night, read_catalogue(path))
    lights = lights[np.isin(np.asarray(lights["filter"]).astype(str), list(names))]
    if not len(lights):
        raise ConfigError(
            f"there is no light frame of a standard field in the filters {', '.join(sorted(names))}"
            ": name it in [magnitudes] standard_object, or in [[frames]]"
        )
    return lights


def _fields(night, catalogue):
    """Rows of the light frames of the named object, or of all that are near a standard."""
    table = inventory(night)
    name = night.magnitudes.standard_object
    if name:
        parts = [select_lights(table, night, object=part) for part in name.split(",")]
        return vstack(parts, metadata_conflicts="silent") if len(parts) > 1 else parts[0]
    own = set(np.asarray(select_lights(table, night)["file"]).astype(str))
    others = sorted(set(np.asarray(table["object"][table["kind"] == "light"]).astype(str)))
    parts = [select_lights(table, night, object=part) for part in others if part]
    lights = vstack(parts, metadata_conflicts="silent") if parts else table[:0]
    near = [_near(catalogue, row["ra"], row["dec"]).any() for row in lights]
    keep = ~np.isin(np.asarray(lights["file"]).astype(str), list(own))
    return lights[keep & np.array(near, bool)]


def _near(catalogue, ra, dec):
    """Which stars of a catalogue are within `FIELD` of a place."""
    x, y = to_plane(
        np.asarray(catalogue["ra"], float), np.asarray(catalogue["dec"], float), ra, dec
    )
    with np.errstate(invalid="ignore"):
        return np.hypot(x, y) <= FIELD


class _Setup:
    """What the frames of a night share: masters, apertures, orientation, rough zero points."""

    def __init__(self, night, photometry):
        self.night, self.photometry, self.camera = night, photometry, night.camera
        self.matching = Table.read(night.work / "matching.ecsv", format="ascii.ecsv").filled("")
        self.filters = np.asarray(photometry.epochs["filter"]).astype(str)
        solved = Table.read(night.work / "astrometry.ecsv", format="ascii.ecsv")
        solved = solved[np.asarray(solved["status"]).astype(str) != "failed"]
        rows = FileRows(night.work / "solved" / f"{product_name(str(solved['file'][0]))}.fits")
        self.wcs = read_wcs(rows.header, rows.shape)
        self.offset = _pointing_offset(inventory(night), solved)
        self.rough = {name: self._rough(name) for name in dict.fromkeys(self.filters)}

    def extinction(self, name):
        """Extinction that is good enough to know a star by its brightness."""
        band, site = passband(name), self.night.site
        given = self.night.magnitudes.extinction.get(name)
        if given is not None or band not in EFFECTIVE_WAVELENGTHS:
            return 0.2 if given is None else given
        return site_extinction(band, 0.0 if site is None else site.height)

    def _rough(self, name):
        """Zero point outside of the atmosphere from the night's own catalogue; NaN without."""
        photometry = self.photometry
        known = johnson_cousins(photometry.stars, passband(name), prefix="cat_")
        epochs = np.flatnonzero(self.filters == name)
        flux = photometry.flux[:, epochs, -1]
        with np.errstate(invalid="ignore"):
            good = (photometry.flags[:, epochs, -1] == 0) & (
                flux > 20 * photometry.flux_err[:, epochs, -1]
            )
        seen = instrumental_magnitude(
            np.where(good, flux, np.nan), photometry.epochs["exptime"][epochs]
        )
        air = self.extinction(name) * np.asarray(photometry.epochs["airmass"][epochs], float)
        away = known[:, None] - seen + air
        return float(np.median(away[np.isfinite(away)])) if np.isfinite(away).sum() > 4 else np.nan

    def look(self, row):
        """Calibrate a frame, detect its stars and measure them in the night's apertures."""
        name = str(row["filter"])
        ccd = self._calibrated(row)
        stars = detect(ccd, gain=self.camera.gain, nsigma=float(self.night.photometry.threshold))
        if not len(stars):
            raise SolveError(f"{row['file']}: no star is seen on it")
        first = int(np.flatnonzero(self.filters == name)[0])
        options, photometry = self.night.photometry, self.photometry
        factor = float(photometry.epochs["radii"][first][0]) / photometry.radii[0]
        if photometry.radius_unit == "fwhm":
            factor = float(stars.meta["fwhm"])
        measured = aperture_photometry(
            ccd, stars["x"], stars["y"],
            radii=[factor * radius for radius in photometry.radii],
            annulus=[factor * radius for radius in options.annulus],
            background=options.background, gain=self.camera.gain,
            read_noise=self.camera.read_noise or 0.0, fwhm=stars.meta["fwhm"],
            flat_noise=max(0.0, float(ccd.meta.get("FLATNOIS") or 0.0)),
            bad_pixels=options.bad_pixels,
        )  # fmt: skip
        measured["magnitude"] = instrumental_magnitude(measured["flux"][:, -1], row["exptime"])
        place = np.column_stack([np.asarray(stars[name], float) for name in "xy"])
        camera = str(ccd.meta.get("INSTRUME", "")).strip()
        frame = {"row": row, "filter": name, "camera": camera, "shape": ccd.shape}
        return frame | {"stars": stars, "place": place, "measured": measured}

    def _calibrated(self, row):
        """Calibrate a raw frame with the masters of the night's frames in its filter."""
        same = (self.matching["filter"] == row["filter"]) & (self.matching["kind"] == "light")
        same &= self.matching["setup"] == row["setup"]
        if not same.any():
            raise SolveError(f"{row['file']}: no frame of the night has its filter and set-up")
        match = self.matching[same][0]
        folder, masters = self.night.work / "masters", {}
        for kind in ("bias", "dark", "flat"):
            if str(match[kind]):
                masters[kind] = read_product(folder / f"{match[kind]}.fits")
        if "dark" in masters:
            dark = float(match["exptime"]) / float(match["dark_scale"])
            masters["dark_scale"] = float(row["exptime"]) / dark
        hot = folder / f"{hot_name(row['setup'])}.fits"
        if "dark" not in masters and hot.is_file():
            masters["bad_pixels"] = read_product(hot).flags
        raw = read_frame(row["path"], camera=self.camera)
        return reduce_frame(raw, camera=self.camera, name=str(row["file"]), **masters)

    def guess(self, frame):
        """World coordinates of a frame by its header's pointing and the night's orientation."""
        row, (ny, nx) = frame["row"], frame["shape"]
        if not np.isfinite([row["ra"], row["dec"]]).all():
            raise SolveError(
                f"{row['file']}: the header has no pointing; name its cards in [headers]"
            )
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = [float(v) for v in from_plane(*self.offset, row["ra"], row["dec"])]
        wcs.wcs.crpix = [(nx + 1) / 2, (ny + 1) / 2]
        wcs.wcs.cd = self.wcs.pixel_scale_matrix
        return wcs


def _look_at(lights, setup):
    """Measured frames of a field; one that cannot be used is left out with the reason."""
    frames, reasons = [], []
    for row in lights:
        try:
            frames.append(setup.look(row))
        except (DataredError, OSError) as error:
            log.warning("%s is left out: %s", row["file"], error)
            reasons.append(str(error))
    if not frames:
        raise SolveError(f"no frame can be used: {'; '.join(dict.fromkeys(reasons))}")
    return frames


def _pointing_offset(table, solved):
    """Where the night's frames point against their headers (deg in the plane), 0 if unknown."""
    header = {str(row["file"]): (row["ra"], row["dec"]) for row in table}
    away = [to_plane(row["ra"], row["dec"], *header[str(row["file"])]) for row in solved]
    away = np.array(away, float).reshape(-1, 2)
    away = away[np.isfinite(away).all(axis=1)]
    return np.median(away, axis=0) if len(away) else np.zeros(2)


def _measure_field(frames, setup, catalogue):
    """Measurements of the standards of one field, on all of its frames."""
    best = max(frames, key=lambda frame: len(frame["stars"]))
    moves = {id(frame): np.zeros(2) if frame is best else find_translation(
        best["stars"], frame["stars"]) for frame in frames}  # fmt: skip
    sources = Table({name: np.asarray(best["stars"][name], float) for name in "xy"})
    place, known = best["place"], []
    for frame in frames:
        band, rough = passband(frame["filter"]), setup.rough[frame["filter"]]
        if band in sources.colnames or not np.isfinite(rough + moves[id(frame)][0]):
            continue
        i, j = mutual_matches(place + moves[id(frame)], frame["place"], SAME)
        sources[band] = np.full(len(sources), np.nan)
        air = setup.extinction(frame["filter"]) * frame["row"]["airmass"]
        sources[band][i] = (
            np.asarray(frame["measured"]["magnitude"])[j] + rough - np.nan_to_num(air)
        )
        known += [band] if band in catalogue.colnames else []
    row = best["row"]
    near = at_epoch(catalogue[_near(catalogue, row["ra"], row["dec"])], float(row["jd_utc_mid"]))
    options = {"radius": POINTING, "shape": best["shape"]}
    try:
        shift = solve_shift(sources, near, setup.guess(best), bands=known, **options)
    except SolveError:
        # A cloud, or the night's catalogue misleads: without zero points, by several standards.
        band = passband(best["filter"])
        if band not in near.colnames:
            raise
        sources[band] = best["measured"]["magnitude"]
        shift = solve_shift(
            sources, near, setup.guess(best), bands=(band,), calibrated=False, **options
        )
    log.info(
        "%s: %d of %d standards found, chance %.1e",
        row["object"], len(shift.pairs), shift.n_inside, shift.chance,
    )  # fmt: skip
    parts = []
    for frame in frames:
        wanted = place[np.asarray(shift.pairs["source"])] + moves[id(frame)]
        i, j = mutual_matches(wanted, frame["place"], SAME)
        if len(i):
            stars = near[np.asarray(shift.pairs["star"])[i]]
            parts.append(_rows(frame, j, stars, setup, shift.chance))
        else:
            log.warning("%s: its standard stars are not on it", frame["row"]["file"])
    return vstack(parts, metadata_conflicts="silent")


def _rows(frame, rows, stars, setup, chance):
    """Table of the standards of one frame."""
    row, found = frame["row"], frame["measured"][rows]
    n = len(rows)
    table = Table({name: [str(row[name])] * n for name in ("file", "filter", "object")})
    table["camera"] = [frame["camera"]] * n
    names = stars["id"] if "id" in stars.colnames else np.arange(n)
    table["star"] = np.asarray(names).astype(str)
    for name in ("ra", "dec"):
        table[name] = np.asarray(stars[name], float)
    table["x"], table["y"] = found["x"], found["y"]
    table["exptime"] = float(row["exptime"])
    site = setup.night.site
    table["airmass"] = float(row["airmass"])
    if site is not None:
        jd = np.full(n, float(row["jd_utc_mid"]))
        table["airmass"] = airmass(altitude(jd, positions(stars), location=site.location))
    for name in ("flux", "flux_err", "flags"):
        table[name] = found[name][:, -1]
    table["magnitude"] = found["magnitude"]
    table["magnitude_err"] = magnitude_error(table["flux"], table["flux_err"])
    table["used"] = (table["flags"] == 0) & np.isfinite(table["magnitude"])
    table["chance"] = chance
    for band in [name for name in stars.colnames if f"{name}_err" in stars.colnames]:
        for name in (band, f"{band}_err"):
            values = plain_values(stars[name])
            table[f"cat_{name}"] = MaskedColumn(values, mask=~np.isfinite(values), unit=u.mag)
            system = stars[band].meta.get("system", "")
            if system == "Landolt Vega":
                system = JOHNSON_COUSINS[band]
            table[f"cat_{name}"].meta["system"] = system
    return table
