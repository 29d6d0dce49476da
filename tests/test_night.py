"""The night file: all problems at once, paths made absolute, written and read back the same."""

import dataclasses
import pickle

import pytest

from datared.errors import ConfigError
from datared.night import (
    Amplifier,
    AstrometryOptions,
    Camera,
    DiagramOptions,
    FrameRule,
    MagnitudeOptions,
    Night,
    PhotometryOptions,
    ReductionOptions,
    Site,
    StackOptions,
    TransitOptions,
    load_night,
    make_night,
)
from datared.settings import night_toml, parse_position, write_night

FULL = {
    "name": 'A "quoted" näme \\ and more',
    "raw": "raw",
    "work": "out/work",
    "object": "M 101",
    "date": "2026-02-14",
    "target": "HAT-P-32 b",
    "target_coord": "02:04:10.278 +46:41:16.21",
    "exclude_filters": ["U", "B"],
    "camera": {
        "gain": 0.376,
        "read_noise": 3,
        "saturation": 6e4,
        "pixel_scale": 0.8,
        "diameter": 20,
        "trim": "[1:10,1:20]",
        "gain_keyword": "EGAIN",
        "amplifiers": [
            {"image": "[1:5,1:20]", "overscan": "[11:12,1:20]"},
            {"image": "[6:10,1:20]", "overscan": "[13:14,1:20]"},
        ],
    },
    "site": {"name": "Bonn", "latitude": 50.7, "longitude": 7.1, "height": 60},
    "headers": {"filter": ["MYFILT"], "exptime": "MYEXP"},
    "reduction": {
        "use_flat": False,
        "strict": True,
        "scale_dark_with_bias": True,
        "uncertainty": True,
        "method": "mean",
        "cosmic_rays": "laplacian",
        "repair": "gaussian",
        "electrons": True,
        "memory_limit": 256,
        "illumination": True,
    },
    "astrometry": {
        "solver": "solve-field",
        "source": "gaia",
        "search_radius": 45,
        "scale_tolerance": 0.05,
        "sip_order": 3,
        "time_limit": 30,
        "keep_wcs": False,
        "night_distortion": False,
        "max_rms": 0.5,
        "limit_mag": 17.5,
    },
    "photometry": {
        "radii": [3, 5.5],
        "radius_unit": "px",
        "annulus": [8, 12],
        "default_radius": 1,
        "threshold": 4,
        "background": "map",
        "recentre": 1.5,
        "bad_pixels": "nan",
        "scintillation": True,
    },
    "magnitudes": {
        "method": "ransac",
        "colour": "g-i",
        "transformation": "PS1 to SDSS (Tonry 2012)",
        "standard_object": "SA 111",
        "extinction": {"B": 0.25, "V'": 0},
    },
    "diagram": {"bands": ["g", "i", "r"], "fit": True},
    "lightcurve": {"filter": "r", "comparison": [3, 7]},
    "transit": {
        "t0": 2456819.856194,
        "t0_err": 0.0002,
        "period": 2.15,
        "period_err": 1e-7,
        "scaled_axis": [6.05, 0.04],
        "impact": [0.12, 0.04],
        "limb_darkening": [0.33, 0.3],
        "limb_darkening_err": 0.05,
        "radius_ratio": 0.1489,
        "columns": ["time", "airmass"],
        "reference": "a paper",
    },
    "stack": {
        "grid": "optimal",
        "method": "bilinear",
        "clip": 4,
        "weights": "seeing",
        "worst_seeing": 3.5,
        "least_light": 0.5,
        "sky": "plane",
        "colour": ["i", "r", "g"],
    },
    "frames": [{"match": "science/*", "object": "NGC 6819"}, {"match": "f*", "kind": "Flat Field"}],
}

#: Tables of the night file whose settings are all above.
TABLES = {
    "camera": Camera,
    "site": Site,
    "reduction": ReductionOptions,
    "astrometry": AstrometryOptions,
    "photometry": PhotometryOptions,
    "magnitudes": MagnitudeOptions,
    "diagram": DiagramOptions,
    "transit": TransitOptions,
    "stack": StackOptions,
}


@pytest.fixture
def folder(tmp_path):
    """Make a folder with an empty raw folder."""
    (tmp_path / "raw").mkdir()
    return tmp_path


def problems_of(folder, text):
    """Problems that the loader finds in a text."""
    path = folder / "night.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_night(path)
    return caught.value.problems


def test_config_roundtrip(folder):
    """CF-01, 000-12: every setting survives writing and reading; the same text, the same night."""
    path = write_night(FULL, folder / "night.toml")
    night = load_night(path)
    assert night.name == FULL["name"] and night.object == "M 101" and night.path == path
    assert night.date == "2026-02-14"
    assert night.raw == folder / "raw" and night.work == folder / "out" / "work"
    assert night.camera == Camera(
        gain=0.376,
        read_noise=3.0,
        saturation=6e4,
        pixel_scale=0.8,
        diameter=20.0,
        trim="[1:10,1:20]",
        gain_keyword="EGAIN",
        amplifiers=(
            Amplifier(image="[1:5,1:20]", overscan="[11:12,1:20]"),
            Amplifier(image="[6:10,1:20]", overscan="[13:14,1:20]"),
        ),
    )
    assert night.reduction == ReductionOptions(
        use_flat=False,
        strict=True,
        scale_dark_with_bias=True,
        uncertainty=True,
        method="mean",
        cosmic_rays="laplacian",
        repair="gaussian",
        electrons=True,
        memory_limit=256.0,
        illumination=True,
    )
    assert night.astrometry == AstrometryOptions(
        solver="solve-field",
        source="gaia",
        search_radius=45.0,
        scale_tolerance=0.05,
        sip_order=3,
        time_limit=30.0,
        keep_wcs=False,
        night_distortion=False,
        max_rms=0.5,
        limit_mag=17.5,
    )
    assert night.headers == {"filter": ("MYFILT",), "exptime": ("MYEXP",)}
    assert night.rules == (
        FrameRule(match="science/*", object="NGC 6819"),
        FrameRule(match="f*", kind="flat"),
    )
    assert night.photometry == PhotometryOptions(
        radii=(3, 5.5),
        radius_unit="px",
        annulus=(8, 12),
        default_radius=1,
        threshold=4.0,
        background="map",
        recentre=1.5,
        bad_pixels="nan",
        scintillation=True,
    )
    assert night.magnitudes == MagnitudeOptions(
        method="ransac",
        colour="g-i",
        transformation="PS1 to SDSS (Tonry 2012)",
        standard_object="SA 111",
        extinction={"B": 0.25, "V'": 0.0},
    )
    assert night.diagram == DiagramOptions(bands=("g", "i", "r"), fit=True)
    assert night.transit.scaled_axis == (6.05, 0.04) and night.transit.period_err == 1e-7
    assert night.transit.columns == ("time", "airmass") and night.transit.known
    assert night.stack == StackOptions(
        grid="optimal",
        method="bilinear",
        clip=4.0,
        weights="seeing",
        worst_seeing=3.5,
        least_light=0.5,
        sky="plane",
        colour=("i", "r", "g"),
    )
    assert night.lightcurve.comparison == (3, 7) and night.exclude_filters == ("U", "B")
    assert night.site.location.height.value == pytest.approx(60, abs=1e-6)
    assert night.target_coord.ra.deg == pytest.approx(31.042825)
    assert load_night(write_night(FULL, folder / "b.toml")).camera == night.camera
    assert dataclasses.replace(load_night(folder / "b.toml"), path=path) == night
    assert pickle.loads(pickle.dumps(night)) == night


def test_gain_is_read_from_no_card_unless_named():
    """PR-12, CF-01: by default no header card is taken for electrons per ADU."""
    assert Camera() == Camera(
        gain=None, read_noise=None, saturation=None, gain_keyword=None, amplifiers=()
    )


def test_date_without_quotes(folder):
    """CF-01, 003-01: TOML's own dates mean the same as a text."""
    path = folder / "night.toml"
    path.write_text('raw = "raw"\nwork = "w"\ndate = 2026-02-14\n')
    assert load_night(path).date == "2026-02-14"
    assert load_night(write_night({"raw": "raw", "work": "w"}, path)).date is None


@pytest.mark.parametrize("table", ["top", *TABLES])
def test_config_roundtrip_is_complete(table):
    """CF-01: no setting can be added to the package and forgotten in the test above."""
    kind = Night if table == "top" else TABLES[table]
    fields = {field.name for field in dataclasses.fields(kind)}
    ways = {
        "top": {"path", "rules", "calibration", "truth", "lightcurve"},  # Tested on their own.
        "camera": {"overscan"},  # Not with amplifiers.
        "reduction": {"use_bias", "use_dark"},  # As use_flat.
        "astrometry": {"catalogue"},  # The file must be there.
        "magnitudes": {"standards"},
        "diagram": {"isochrones"},
    }
    given = set(FULL) if table == "top" else set(FULL[table])
    assert fields - given - ways.get(table, set()) == set()


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("[camera]\noverscan = '[1:2,3]'", "camera.overscan = '[1:2,3]' must be a FITS section"),
        ("[camera]\ngain_keyword = ''", "camera.gain_keyword = '' must name a header card"),
        ("[camera]\namplifiers = '[1:2,1:2]'", "must be written with two brackets"),
        ("[camera.amplifiers]\nimage = '[1:2,1:2]'", "two brackets: [[camera.amplifiers]]"),
        ("[[camera.amplifiers]]\nimage = '[1:2,1:2]'", "camera.amplifiers.overscan is missing"),
        ("[[camera.amplifiers]]\nimage = 'all'", "camera.amplifiers.image = 'all' must be a FITS"),
        ("[[camera.amplifiers]]\nimag = 'x'", "camera.amplifiers.imag is unknown; did you mean"),
        (
            "[camera]\noverscan = '[3:4,1:2]'\n[[camera.amplifiers]]\nimage = '[1:2,1:2]'\n"
            "overscan = '[3:4,1:2]'",
            "either camera.overscan or [[camera.amplifiers]]",
        ),
        ("[reduction]\nmethod = 'sum'", "reduction.method = 'sum' must be one of median, mean"),
        (
            "[reduction]\ncosmic_rays = 'yes'",
            "reduction.cosmic_rays = 'yes' must be one of '', laplacian, median",
        ),
        ("[reduction]\nrepair = 'fill'", "reduction.repair = 'fill' must be one of mask, gaussian"),
        ("[reduction]\nelectrons = 1", "reduction.electrons = 1 must be true or false"),
        (
            "[reduction]\nmemory_limit = 8",
            "reduction.memory_limit = 8 must be between 64 and 1e+06",
        ),
        (
            "[astrometry]\nsolver = 'solvefield'",
            "astrometry.solver = 'solvefield' must be one of catalogue, solve-field, nova",
        ),
        (
            "[astrometry]\nsource = 'gai'",
            "astrometry.source = 'gai' must be one of refcat2, gaia",
        ),
        (
            "[astrometry]\nsearch_radius = 0",
            "astrometry.search_radius = 0 must be between 0.1 and 10800 (arcmin)",
        ),
        (
            "[astrometry]\ntime_limit = 0",
            "astrometry.time_limit = 0 must be between 1 and 86400 (seconds)",
        ),
        (
            "[astrometry]\nmax_rms = -1",
            "astrometry.max_rms = -1 must be between 0.001 and 100 (px)",
        ),
        ("date = '14.2.2026'", "date = '14.2.2026' must be the date on which the night begins"),
        ("date = 2026-02-14T20:00:00", "must be the date on which the night begins"),
        ("date = 20260214", "date = 20260214 must be a text in quotes"),
        ("[magnitudes]\nmetod = 'median'", "magnitudes.metod is unknown; did you mean method?"),
        (
            "[magnitudes]\nmethod = 'mean'",
            "magnitudes.method = 'mean' must be one of global, median, ransac",
        ),
        ("[magnitudes]\ncolour = 'gi'", 'magnitudes.colour = \'gi\' must be "auto", "none" or'),
        ("[magnitudes]\ncolour = 'g-g'", 'magnitudes.colour = \'g-g\' must be "auto", "none" or'),
        ("[magnitudes]\nextinction = 0.2", "magnitudes.extinction must be a table {B = 0.2"),
        (
            "[magnitudes.extinction]\nB = -0.2",
            "magnitudes.extinction.B = -0.2 must be between 0 and 5 (mag per airmass)",
        ),
        ("[magnitudes.extinction]\nB = '0.2'", "extinction.B = '0.2' must be a number"),
        ("[magnitudes]\nstandards = 'no.csv'", "magnitudes.standards: there is no file"),
        ("[diagram]\nbands = ['g']", "diagram.bands = ['g'] must be a list of two or three"),
        ("[diagram]\nbands = ['g', 'g', 'i']", "diagram.bands = ['g', 'g', 'i'] must be a list of"),
        ("[diagram]\nbands = ['g', 1]", "diagram.bands = ['g', 1] must be a list of two or"),
        ("[diagram]\nfit = 1", "diagram.fit = 1 must be true or false"),
        ("[diagram]\nisochrones = 'no'", "diagram.isochrones: there is no file or folder"),
        ("[reduction]\nmemory_limt = 80", "memory_limt is unknown; did you mean memory_limit?"),
    ],
)
def test_config_refuses(folder, lines, problem):
    """CF-02, E41, 004-07: an unknown name and a value that is not valid say what is valid."""
    problems = problems_of(folder, f'raw = "raw"\nwork = "w"\n{lines}\n')
    assert any(problem in text for text in problems), problems


def test_config_import_creates_nothing(folder):
    """Reading a night makes no file and no folder."""
    write_night(FULL, folder / "night.toml")
    before = sorted(folder.rglob("*"))
    load_night(folder)
    assert sorted(folder.rglob("*")) == before


def test_all_problems_at_once(folder):
    """One error names every problem, with the nearest valid names."""
    problems = problems_of(
        folder,
        'raw = "rew"\nwrok = "w"\ntarget = 3\n[camera]\ngian = 1\nread_noise = "3"\ntrim = "a"\n'
        "[site]\nlatitude = 100\n[headers]\nfliter = 'X'\n[[frames]]\nkind = 'Flat Fild'\n"
        '[photometry]\nradii = [3, 2]\nradius_unit = "m"\n[reduction]\nstrict = 1\n',
    )
    text = "\n".join(problems)
    for part in (
        "wrok is unknown; did you mean work?",
        "camera.gian is unknown; did you mean gain?",
        "camera.read_noise = '3' must be a number",
        "camera.trim = 'a' must be a FITS section",
        "site.latitude = 100 must be between -90 and 90",
        "site.longitude is missing",
        "headers.fliter is unknown; did you mean filter",
        "frames.kind = 'Flat Fild' must be one of bias",
        "frames.match is missing",
        "photometry.radii = [3, 2] must grow",
        "photometry.radius_unit = 'm' must be one of px, arcsec, fwhm",
        "reduction.strict = 1 must be true or false",
        "target = 3 must be a text",
        "work is missing",
        f"raw folder {folder / 'rew'} does not exist",
    ):
        assert part in text


def test_missing_file_and_bad_toml(folder):
    """No file, and a file that is not TOML, say what to do and where the fault is."""
    with pytest.raises(ConfigError, match="there is no night file"):
        load_night(folder)
    assert "line 2" in problems_of(folder, "raw = 'raw'\nwork = \n")[0]


@pytest.mark.parametrize("work", ["raw", "raw/work", "."])
def test_work_and_raw_stay_apart(folder, work):
    """Products never go into the raw folder, nor raw frames into the work folder."""
    problems = problems_of(folder, f'raw = "raw"\nwork = "{work}"\n')
    assert len(problems) == 1 and "must not contain each other" in problems[0]


def test_link_to_raw_is_seen_through(folder):
    """A work folder that is the raw folder by another name is refused."""
    try:
        (folder / "link").symlink_to(folder / "raw")
    except OSError:
        pytest.skip("this system makes no links")
    assert "must not contain" in problems_of(folder, 'raw = "raw"\nwork = "link/x"\n')[0]


def test_settings_win_over_the_file(folder):
    """CF-01, 003-03: what a run gives beside its file replaces it table by table, checked alike."""
    path = write_night(FULL, folder / "night.toml")
    given = {"object": "M 1", "camera": {"gain": 2.0, "trim": None}, "date": None}
    night = load_night(path, settings=given)
    assert (night.object, night.camera.gain, night.date) == ("M 1", 2.0, "2026-02-14")
    assert night.camera.trim == FULL["camera"]["trim"] and night.camera.read_noise == 3.0
    assert dataclasses.replace(load_night(path), object="M 1", camera=night.camera) == night
    with pytest.raises(ConfigError, match="gian is unknown"):
        load_night(path, settings={"camera": {"gian": 2.0}})
    made = make_night(folder / "raw", work=folder / "w", object="x", settings={"object": "y"})
    assert made.object == "y"
    with pytest.raises(ConfigError, match="either radius or radii"):
        make_night(folder / "raw", work=folder / "w", radius=3, radii=[4])


def test_home_and_parent_paths(folder, monkeypatch):
    """``~`` and ``..`` are resolved."""
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    (folder / "sub").mkdir()
    path = folder / "sub" / "night.toml"
    path.write_text('raw = "~/raw"\nwork = "../work"\n')
    night = load_night(path)
    assert night.raw == folder / "raw" and night.work == folder / "work"


def test_radii_in_pixels_need_an_annulus(folder):
    """The default annulus is in FWHM; it must not be taken for pixels in silence."""
    problems = problems_of(folder, 'raw="raw"\nwork="w"\n[photometry]\nradius_unit = "px"\n')
    assert len(problems) == 2 and "annulus" in problems[1]


def test_astrometry_options_have_defaults():
    """AS-01, 004-07: without a word in the night file the built-in solver works, offline."""
    options = AstrometryOptions()
    assert (options.solver, options.catalogue, options.source) == ("catalogue", None, "refcat2")
    assert options.keep_wcs and options.night_distortion and options.max_rms is None


def test_transit_table_is_checked(folder):
    """LC-09, CF-01: what is missing, out of range or unknown in [transit] is told at once."""
    start = 'raw = "raw"\nwork = "w"\n[transit]\n'
    problems = problems_of(folder, start + 't0 = 7107.7\nimpact = [0.1]\ncolumns = ["air"]\n')
    text = "\n".join(problems)
    for name in ("period", "scaled_axis", "limb_darkening"):
        assert f"transit.{name} is missing" in text
    assert "transit.t0 = 7107.7 must be between 2400000 and 2600000 (a full Julian date" in text
    assert "transit.impact = [0.1] must be two numbers: value and error" in text
    assert "transit.columns: ['air'] is unknown; valid: time, time2, airmass" in text
    whole = {"t0": 2456819.8, "period": 2.15, "scaled_axis": [6.0, 0], "impact": [0.1, True]}
    whole |= {"limb_darkening": [0.3, 0.3], "limb_darkening_err": 0}
    text = "\n".join(problems_of(folder, night_toml({"raw": "raw", "work": "w", "transit": whole})))
    # Without an error there is no prior.
    assert text.count("transit.") == 3
    for name in ("scaled_axis = [6.0, 0]", "impact = [0.1, True]", "limb_darkening_err = 0.0"):
        assert f"transit.{name}" in text
    assert "did you mean t0" in problems_of(folder, start + "t00 = 1.0\n")[0]
    plain = load_night(write_night({"raw": "raw", "work": "w"}, folder / "night.toml"))
    assert not plain.transit.known and plain.transit == TransitOptions()


def test_stack_table_is_checked(folder):
    """ST-01, ST-03, CF-01: what is unknown or out of range in [stack] is told at once."""
    start = 'raw = "raw"\nwork = "w"\n[stack]\n'
    wrong = 'grid = "north"\nmethod = "drizzle"\nweights = "none"\nsky = "flat"\n'
    wrong += "clip = -1\nworst_seeing = 0\nleast_light = 60\ncolour = ['r']\n"
    problems = problems_of(folder, start + wrong)
    assert len(problems) == 8
    text = "\n".join(problems)
    assert "stack.grid = 'north' must be one of reference, optimal" in text
    assert "stack.method = 'drizzle' must be one of lanczos3, bilinear" in text
    assert "stack.least_light = 60.0 must be between 0 and 1 (a fraction" in text
    assert "stack.colour = ['r'] must be a list of three or two filters" in text
    for colour in ('["r", "r"]', '["r", 1]', '["r", ["g"]]', '["z", "i", "r", "g"]', '["r", ""]'):
        assert "stack.colour" in problems_of(folder, start + f"colour = {colour}\n")[0]
    assert "did you mean method" in problems_of(folder, start + 'methd = "bilinear"\n')[0]
    plain = load_night(write_night({"raw": "raw", "work": "w"}, folder / "night.toml"))
    assert plain.stack == StackOptions() and plain.stack.worst_seeing is None


@pytest.mark.parametrize("star", ['"a"', "1.5", "-1", "true", "nan"])
def test_comparison_stars_are_numbers_of_the_list(folder, star):
    """CF-01, LC-04: a word ends in no trace of the program, and 1.5 is not star 1."""
    text = f'raw = "raw"\nwork = "w"\n[lightcurve]\ncomparison = [3, {star}]\n'
    (problem,) = problems_of(folder, text)
    assert "lightcurve.comparison = [3, " in problem and "numbers of the star list" in problem


def test_files_for_magnitudes_and_diagram_are_found_beside_the_night_file(folder):
    """CF-01: paths are relative to the night file; defaults need no file at all."""
    (folder / "landolt.ecsv").touch()
    (folder / "parsec").mkdir()
    lines = {"raw": "raw", "work": "w", "magnitudes": {"standards": "landolt.ecsv"}}
    lines["diagram"] = {"isochrones": "parsec"}
    night = load_night(write_night(lines, folder / "n.toml"))
    assert night.magnitudes == MagnitudeOptions(standards=folder / "landolt.ecsv")
    assert night.diagram == DiagramOptions(isochrones=folder / "parsec")
    plain = load_night(write_night({"raw": "raw", "work": "w"}, folder / "n.toml"))
    assert (plain.magnitudes.method, plain.magnitudes.colour) == ("global", "auto")
    assert plain.diagram.bands == () and not plain.diagram.fit


def test_make_night(folder):
    """A night from the options of the command line."""
    night = make_night(
        folder / "raw",
        work=folder / "w",
        object="M 1",
        exclude_filters=("U", "B"),
        radius=15,
        use_flat=False,
        camera=Camera(gain=2.0),
    )
    assert night.photometry.radii == (15,) and night.photometry.annulus == (24.0, 36.0)
    assert night.photometry.radius_unit == "px" and not night.reduction.use_flat
    assert night.exclude_filters == ("U", "B") and night.camera.gain == 2.0 and night.path is None
    with pytest.raises(ConfigError, match="does not exist"):
        make_night(folder / "none", work=folder / "w")
    with pytest.raises(TypeError):
        make_night(folder / "raw", work=folder / "w", raduis=3)


def test_position_forms():
    """Hours and degrees are told apart; a name is no position."""
    for text in ("02:04:10.278 +46:41:16.21", "2 4 10.278 46 41 16.21", "31.042825 46.687836"):
        position = parse_position(text)
        assert position.ra.deg == pytest.approx(31.042825, abs=1e-6)
        assert position.dec.deg == pytest.approx(46.687836, abs=1e-6)
    for text in ("HAT-P-32 b", "M 31", "", "31.04", "02:04:10 +99:00:00", "370 20", "-10 20"):
        assert parse_position(text) is None


def test_target_may_be_a_position(folder):
    """The target's own text is a position, where it is one."""
    path = write_night({"raw": "raw", "work": "w", "target": "31.5 -2.25"}, folder / "n.toml")
    assert load_night(path).target_coord.dec.deg == pytest.approx(-2.25)
    assert load_night(write_night({"raw": "raw", "work": "w"}, path)).target_coord is None
    assert "no position" in problems_of(folder, 'raw="raw"\nwork="w"\ntarget_coord="M 31"\n')[0]


def test_toml_refuses_unknown_values():
    """A value that TOML cannot hold is an error, not a text of its repr."""
    with pytest.raises(TypeError, match="no way to write"):
        night_toml({"raw": object()})


def test_target_by_name_is_known_without_network(folder):
    """000-32: a name of the list gives the place; a cluster is a field and no star to measure."""
    lines = {"raw": "raw", "work": "w", "target": "HAT-P-32 b"}
    place = load_night(write_night(lines, folder / "n.toml")).target_coord
    assert place.ra.deg == pytest.approx(31.04285, abs=1e-4)
    for name in ("NGC 6819", "my star"):
        path = write_night(lines | {"target": name}, folder / "n.toml")
        assert load_night(path).target_coord is None
