"""What `train_step` and its like get as `data`: one value for inputs, targets and sample weights, and back."""

__all__ = ["pack_x_y_sample_weight", "unpack_x_y_sample_weight"]


def pack_x_y_sample_weight(x, y=None, sample_weight=None):
    """Put inputs, targets and sample weights into one value.

    Parameters
    ----------
    x : nest of array
    y, sample_weight : nest of array, optional

    Returns
    -------
    tuple or nest
        ``(x, y, sample_weight)`` without the Nones at its end; `x` itself if it is alone and no list or tuple.

    Examples
    --------
    >>> pack_x_y_sample_weight("x"), pack_x_y_sample_weight("x", "y"), pack_x_y_sample_weight(["a", "b"])
    ('x', ('x', 'y'), (['a', 'b'],))
    """
    if sample_weight is not None:
        return x, y, sample_weight
    if y is not None:
        return x, y
    return (x,) if isinstance(x, (list, tuple)) else x


def unpack_x_y_sample_weight(data):
    """Take apart what `pack_x_y_sample_weight` made.

    Parameters
    ----------
    data : nest of array
        What `train_step`, `test_step` and `predict_step` are given.

    Returns
    -------
    x, y, sample_weight
        None for what is not there.

    Raises
    ------
    ValueError
        If `data` is a list or tuple of more than three.
    """
    if isinstance(data, list):
        data = tuple(data)
    if not isinstance(data, tuple):
        return data, None, None
    if not 1 <= len(data) <= 3:
        raise ValueError(
            "Data is expected to be in format `x`, `(x,)`, `(x, y)`, or `(x, y, sample_weight)`. "
            f"Received: a tuple of {len(data)}"
        )
    return (*data, None, None)[:3]
