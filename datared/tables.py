"""Tables of measured numbers."""

from astropy.table import Table

__all__ = ["number_table"]


def number_table(rows, columns):
    """Make a table of rows; its floats are shown with four digits.

    Parameters
    ----------
    rows : list of tuple
        Values, one for each column; there may be no row.
    columns : dict of str to type
        Names of the columns and their types.

    Returns
    -------
    astropy.table.Table
        The table. Only what is shown is rounded.

    Examples
    --------
    >>> table = number_table([("V", 1.234567)], {"filter": str, "gain": float})
    >>> print(table["gain"][0], *table["gain"].pformat(show_name=False))
    1.234567 1.235
    """
    table = Table(rows=rows, names=[*columns], dtype=[*columns.values()])
    for column in table.itercols():
        column.info.format = ".4g" if column.dtype.kind == "f" else None
    return table
