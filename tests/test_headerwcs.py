"""Tests of the room headerwcs: world coordinates that frames bring are read, repaired, judged."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.wcs import WCS
from numpy.polynomial import polynomial

from datared.frames import read_frame, read_product, write_product
from datared.headerwcs import frame_geometry, implausible, read_wcs
from datared.overscan import trim_frame
from datared.projection import build_wcs, powers
from datared.regions import find_regions

SHAPE = (600, 800)
SCALE, ANGLE = 1.2, np.radians(25.0)


def true_wcs(order=3, size=2.0):
    """TAN or TAN-SIP whose distortion is ``size`` px in the corners, rotated by 25 degrees."""
    step = SCALE / 3600
    turn = np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])
    linear = np.diag([-step, step]) @ turn
    terms = np.zeros((len(powers(order)), 2))
    terms[1:3] = linear.T
    half = 0.5 * np.hypot(*SHAPE)
    if order == 3:
        for k, (p, q) in enumerate(powers(3)):
            if (p, q) in ((3, 0), (1, 2)):
                terms[k] = linear @ [size / half**3, 0]
            if (p, q) in ((2, 1), (0, 3)):
                terms[k] = linear @ [0, size / half**3]
    return build_wcs(terms, order, ra0=150.3, dec0=-33.2, shape=SHAPE)


def header_of(wcs):
    """Header as most programs write it: a CD matrix."""
    header = wcs.to_header(relax=True)
    matrix = wcs.pixel_scale_matrix
    for name in ("PC1_1", "PC1_2", "PC2_1", "PC2_2", "CDELT1", "CDELT2"):
        header.remove(name, ignore_missing=True)
    for i in (0, 1):
        for j in (0, 1):
            header[f"CD{i + 1}_{j + 1}"] = matrix[i, j]
    return header


def grid():
    """Pixels over the frame."""
    x, y = np.meshgrid(np.linspace(0, SHAPE[1] - 1, 9), np.linspace(0, SHAPE[0] - 1, 7))
    return x.ravel(), y.ravel()


def far_off(wcs, truth):
    """Largest distance (px) of what two WCS make of the same pixels."""
    x, y = grid()
    sky, true = wcs.pixel_to_world(x, y).icrs, truth.pixel_to_world(x, y).icrs
    return sky.separation(true).arcsec.max() / SCALE


def test_e24_sip_terms_without_their_name():
    """E24, AS-06: CTYPE says TAN but the terms are there (ASTAP): the distortion counts."""
    truth = true_wcs()
    header = header_of(truth)
    assert header["CTYPE1"] == "RA---TAN-SIP"
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    assert far_off(read_wcs(header, SHAPE), truth) < 1e-6
    # The 2 px of the corners would be lost.
    for name in [name for name in header if name.startswith(("A_", "B_", "AP_", "BP_"))]:
        del header[name]
    assert far_off(read_wcs(header, SHAPE), truth) > 1.5


@pytest.mark.parametrize("terms", ["none", "order 1", "half"])
def test_e24_name_of_sip_without_terms(terms):
    """E24, AS-06: CTYPE says TAN-SIP but there are no terms, or only one axis has them: TAN."""
    truth = true_wcs(order=1)
    header = header_of(truth)
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    if terms == "order 1":
        header["A_ORDER"] = header["B_ORDER"] = 1
        header["A_1_0"] = header["B_0_1"] = 0.0
    elif terms == "half":
        header["A_ORDER"], header["A_2_0"] = 2, 1e-3
    wcs = read_wcs(header, SHAPE)
    assert wcs.sip is None and list(wcs.wcs.ctype) == ["RA---TAN", "DEC--TAN"]
    assert far_off(wcs, truth) < 1e-6


def test_e24_terms_that_are_odd_still_count(capfd):
    """E24, AS-06: orders as text, half of the inverse, another projection: nothing is lost."""
    header = header_of(true_wcs())
    odd = header.copy()
    odd["A_ORDER"], odd["B_ORDER"] = "3", "3"
    for name in [name for name in odd if name.startswith("BP_")]:
        del odd[name]
    assert far_off(read_wcs(odd, SHAPE), true_wcs()) < 1e-6
    # The terms of a projection that is not TAN are those of the header, and nothing is printed.
    for name in ("CTYPE1", "CTYPE2"):
        header[name] = header[name].replace("TAN", "SIN")
    wcs = read_wcs(header, SHAPE)
    assert wcs.wcs.ctype[0] == "RA---SIN-SIP" and wcs.sip.a_order == 3
    assert capfd.readouterr() == ("", "")
    # The polynomials of TPV say it already: without any, it is a plain TAN.
    for name, axis in (("CTYPE1", "RA-"), ("CTYPE2", "DEC")):
        header[name] = f"{axis}--TPV"
    header["PV1_1"] = header["PV2_1"] = 1.0
    wcs = read_wcs(header, SHAPE)
    assert wcs.sip is None and far_off(wcs, true_wcs(order=1)) < 1e-6


@pytest.mark.parametrize(
    ("card", "result"),
    [
        ("CRVAL1  = 10:01:12.0", "read"),
        ("CTYPE1  = RA---TAN", "read"),
        ("CRPIX2  = NaN", "none"),
        ("CD1_1   = 1e-4e", "implausible"),
    ],
)
def test_cards_that_are_not_fits(tmp_path, card, result):
    """AS-06: a card against the standard is repaired, or costs the coordinates, not the frame."""
    header = header_of(true_wcs(order=1))
    fits.writeto(tmp_path / "raw.fits", np.ones(SHAPE, np.uint16), header)
    content = (tmp_path / "raw.fits").read_bytes()
    start = content.index(card[:9].encode())
    content = content[:start] + card.ljust(80).encode() + content[start + 80 :]
    (tmp_path / "raw.fits").write_bytes(content)
    ccd = read_frame(tmp_path / "raw.fits")
    assert ccd.data[0, 0] == 1
    ny, nx = SHAPE
    regions = find_regions(fits.Header({"TRIMSEC": f"[2:{nx},3:{ny}]"}), SHAPE)
    assert trim_frame(ccd, regions=regions).shape == (ny - 2, nx - 1)
    write_product(ccd, tmp_path / "product.fits")
    for wcs in (ccd.wcs, read_product(tmp_path / "product.fits").wcs):
        if result == "none":
            assert wcs is None
        elif result == "read":
            assert far_off(wcs, true_wcs(order=1)) < 1e-3
        else:
            assert "pixels would be" in implausible(wcs, SHAPE)


def test_e24_repaired_when_a_frame_is_read_and_written(tmp_path):
    """E24, AS-07: the repaired coordinates are those of the raw frame and of its product."""
    truth = true_wcs()
    header = header_of(truth)
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    fits.writeto(tmp_path / "raw.fits", np.zeros(SHAPE, np.uint16), header)
    ccd = read_frame(tmp_path / "raw.fits")
    assert far_off(ccd.wcs, truth) < 1e-6
    write_product(ccd, tmp_path / "product.fits")
    product = read_product(tmp_path / "product.fits")
    assert product.wcs.wcs.ctype[0] == "RA---TAN-SIP" and far_off(product.wcs, truth) < 1e-6


def test_sip_roundtrip_of_every_term(tmp_path):
    """AS-07: all terms of the distortion and of its inverse survive writing and reading."""
    truth = true_wcs()
    ccd = CCDData(np.zeros(SHAPE, np.float32), unit="adu", wcs=truth)
    write_product(ccd, tmp_path / "a.fits")
    wcs = read_product(tmp_path / "a.fits").wcs
    assert far_off(wcs, truth) < 1e-8
    for name in ("a", "b", "ap", "bp"):
        # A card holds 14 digits or more.
        np.testing.assert_allclose(getattr(wcs.sip, name), getattr(truth.sip, name), rtol=1e-13)
    x, y = grid()
    sky = truth.all_pix2world(x, y, 0)
    np.testing.assert_allclose(wcs.all_world2pix(*sky, 0, tolerance=1e-8), (x, y), atol=1e-5)
    # The way of other programs: linear first, then the inverse polynomials.
    focal = np.array(wcs.wcs_world2pix(*sky, 0)) - (wcs.wcs.crpix - 1)[:, None]
    for axis, terms, true in ((0, wcs.sip.ap, x), (1, wcs.sip.bp, y)):
        back = focal[axis] + polynomial.polyval2d(*focal, terms) + wcs.wcs.crpix[axis] - 1
        np.testing.assert_allclose(back, true, atol=0.01)
    # Again, as the stack and every further product do.
    write_product(read_product(tmp_path / "a.fits"), tmp_path / "b.fits")
    assert far_off(read_product(tmp_path / "b.fits").wcs, truth) < 1e-8


def test_scamp_terms_are_kept(tmp_path):
    """AS-06: SCAMP writes its polynomials under the name TAN; they are read and written as TPV."""
    header = header_of(true_wcs(order=1))
    half = 0.5 * np.hypot(*SHAPE) * SCALE / 3600
    for axis in (1, 2):
        # Cubic terms that are worth 2 px in the corners, as of a lens.
        header[f"PV{axis}_1"] = 1.0
        header[f"PV{axis}_7"] = header[f"PV{axis}_9"] = 2 * SCALE / 3600 / half**3
    named = header.copy()
    named["CTYPE1"], named["CTYPE2"] = "RA---TPV", "DEC--TPV"
    truth = WCS(named)
    wcs = read_wcs(header, SHAPE)
    assert far_off(wcs, truth) < 1e-9 and 1.5 < far_off(wcs, true_wcs(order=1)) < 5
    write_product(CCDData(np.zeros(SHAPE), unit="adu", wcs=wcs), tmp_path / "a.fits")
    product = read_product(tmp_path / "a.fits")
    assert product.meta["CTYPE1"] == "RA---TPV" and far_off(product.wcs, truth) < 1e-8


@pytest.mark.parametrize(
    "cards",
    [
        {"CDELT1": 99.0, "CDELT2": 99.0, "CROTA2": 70.0},
        {"PC1_1": 1.0, "PC2_2": 1.0, "CDELT1": -0.1, "CDELT2": 0.1},
        {"CRVAL1": "10:01:12.0", "CRVAL2": "-33:12:00.0"},
        {"CRVAL1": "150.3", "CRPIX1": "400.5"},
        {"CRVAL1": "10h01m12s", "CRVAL2": "-33 12 00"},
        {"RADECSYS": "ICRS", "RADESYS": None},
        {"EQUINOX": "", "RADESYS": "ICRS"},
        {"CTYPE1": "RA---TAN ", "LONPOLE": None},
        {"RADESYS": "J2000"},
        {"RADESYS": 2000.0},
        {"WCSAXES": 3, "CTYPE3": "STOKES", "CRVAL3": 1.0, "CRPIX3": 1.0, "CD3_3": 1.0},
    ],
    ids=["crota", "pc", "sexagesimal", "text", "letters", "radecsys", "empty", "blanks",
         "no system", "year", "third axis"],
)  # fmt: skip
def test_other_programs_faults_are_repaired(cards):
    """AS-06, AS-04: contradictions and texts in place of numbers; right ascension in hours."""
    truth = true_wcs(order=1)
    header = header_of(truth)
    for name, value in cards.items():
        if value is None:
            header.remove(name, ignore_missing=True)
        else:
            header[name] = value
    wcs = read_wcs(header, SHAPE)
    # 1e-8 deg, the accuracy of the texts.
    assert far_off(wcs, truth) < 1e-3


def test_old_rotation_cards():
    """AS-06: CDELT and CROTA2 of old programs are a rotation of the frame."""
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.3, "CRVAL2": -33.2}
    cards |= {"CRPIX1": 400.5, "CRPIX2": 300.5, "CDELT1": -SCALE / 3600, "CDELT2": SCALE / 3600}
    wcs = read_wcs(fits.Header(cards | {"CROTA2": np.degrees(ANGLE)}), SHAPE)
    geometry = frame_geometry(wcs, SHAPE)
    assert abs(geometry.rotation) == pytest.approx(25.0, abs=1e-6)
    assert geometry.scale == pytest.approx(SCALE, rel=1e-6)


@pytest.mark.parametrize("ra_dec", [(150.3, -33.2), (0.0, 0.0), (359.99999, 60.0), (77.0, 89.99)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_geometry_of_a_frame(ra_dec, mirrored):
    """AS-08: scale, rotation and parity in the middle, also at RA 0 and beside the pole."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], ra_dec, [400.5, 300.5]
    step = SCALE / 3600
    flip = 1 if mirrored else -1
    wcs.wcs.cd = [
        [flip * step * np.cos(ANGLE), step * np.sin(ANGLE)],
        [-flip * step * np.sin(ANGLE), step * np.cos(ANGLE)],
    ]
    geometry = frame_geometry(wcs, SHAPE)
    assert geometry.middle.separation(SkyCoord(*ra_dec, unit="deg")).arcsec < 1e-3
    assert geometry.scale == pytest.approx(SCALE, rel=1e-6)
    assert geometry.rotation == pytest.approx(25.0, abs=1e-4)
    assert geometry.mirrored is mirrored


def test_no_coordinates_are_none(caplog):
    """AS-06: headers without celestial coordinates, or with ones that make no sense, have none."""
    header = header_of(true_wcs(order=1))
    assert read_wcs(fits.Header({"OBJECT": "M 1"}), SHAPE) is None
    for change in ({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, {"CTYPE1": "", "CTYPE2": ""}):
        assert read_wcs(fits.Header(dict(header) | change), SHAPE) is None
    for key in ("CRVAL1", "CRVAL2", "CRPIX1"):
        # wcslib would put the frame at RA 0.
        for change in ({key: None}, {key: ""}, {key: "nan"}):
            assert read_wcs(fits.Header(dict(header) | change), SHAPE) is None
        assert f"no number in {key}" in caplog.text
    for axes in (("HPLN-TAN", "HPLT-TAN"), ("XLON-TAN", "XLAT-TAN")):
        other = dict(header) | {"CTYPE1": axes[0], "CTYPE2": axes[1]}
        assert read_wcs(fits.Header(other), SHAPE) is None
    singular = dict(header) | {f"CD{i}_{j}": 0.0 for i in (1, 2) for j in (1, 2)}
    assert read_wcs(fits.Header(singular), SHAPE) is None
    assert "matrix of zeros" in caplog.text


def test_existing_wcs_is_judged():
    """AS-06: a scale that is not the camera's and pixels that are no squares are said."""
    truth = true_wcs()
    assert implausible(truth, SHAPE) == ""
    assert implausible(truth, SHAPE, scale=1.25) == ""
    assert "its scale of 1.2 arcsec/px is not the expected 0.6" in implausible(
        truth, SHAPE, scale=0.6
    )
    long = header_of(true_wcs(order=1))
    long["CD1_1"], long["CD2_1"] = 3 * long["CD1_1"], 3 * long["CD2_1"]
    assert "pixels would be" in implausible(read_wcs(long, SHAPE), SHAPE)
    away = header_of(true_wcs(order=1))
    for name in ("CD1_1", "CD1_2", "CD2_1", "CD2_2"):
        away[name] *= 3000
    away["CRPIX1"] = 1e5
    away["CTYPE1"], away["CTYPE2"] = "RA---SIN", "DEC--SIN"
    assert "outside of the projection" in implausible(read_wcs(away, SHAPE), SHAPE)
