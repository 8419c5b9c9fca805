"""`TensorShape`: a shape that is told apart from a list of sizes, as in a cell's `state_size`."""

import operator

__all__ = ["TensorShape"]


class TensorShape(tuple):
    """A shape: a tuple of lengths, None where one is not known.

    It is a tuple in all that tuples do, equal to the tuple or list of the same lengths. What it is for: where a list
    of ints is several sizes, as a cell's `state_size`, a TensorShape is one shape.

    Parameters
    ----------
    dims : int, or iterable of (int or None)
        An int is a shape of one axis.

    Raises
    ------
    TypeError
        If `dims` is None (a rank that is not known has no use here), or a length is no int.
    ValueError
        If a length is negative.

    Examples
    --------
    >>> shape = TensorShape([None, 3]) + (4,)
    >>> shape, shape.rank, shape[1:], shape == (None, 3, 4)
    (TensorShape([None, 3, 4]), 3, TensorShape([3, 4]), True)
    >>> shape.as_list(), shape[1:].num_elements()
    ([None, 3, 4], 12)
    """

    __slots__ = ()

    def __new__(cls, dims):
        """Make a shape of lengths."""
        if dims is None:
            raise TypeError("A TensorShape needs its lengths: TensorShape([None, 3]). Received: dims=None")
        try:
            lengths = tuple(dims) if hasattr(dims, "__iter__") else (dims,)
            lengths = tuple(None if n is None else operator.index(n) for n in lengths)
        except TypeError:
            raise TypeError(
                f"A TensorShape is made of ints and None, TensorShape([None, 3]). Received: dims={dims!r}"
            ) from None
        if any(n is not None and n < 0 for n in lengths):
            raise ValueError(f"The lengths of a TensorShape must not be negative. Received: dims={dims!r}")
        return super().__new__(cls, lengths)

    @property
    def rank(self):
        """The number of axes."""
        return len(self)

    ndims = rank

    @property
    def dims(self):
        """The lengths as a list."""
        return list(self)

    def as_list(self):
        """Return the lengths as a list."""
        return list(self)

    def is_fully_defined(self):
        """Say whether every length is known."""
        return None not in self

    def num_elements(self):
        """Return the number of elements; None where a length is not known."""
        count = 1
        for n in self:
            if n is None:
                return None
            count *= n
        return count

    def is_compatible_with(self, other):
        """Say whether a value may have both shapes: the same rank, and the same lengths where both are known."""
        other = TensorShape(other)
        return len(self) == len(other) and all(
            n is None or m is None or n == m for n, m in zip(self, other, strict=True)
        )

    def concatenate(self, other):
        """Return this shape with the axes of another behind it."""
        return TensorShape((*self, *TensorShape(other)))

    def __add__(self, other):
        return self.concatenate(other)

    def __radd__(self, other):
        return TensorShape(other).concatenate(self)

    def __getitem__(self, key):
        found = super().__getitem__(key)
        return TensorShape(found) if isinstance(key, slice) else found

    def __eq__(self, other):
        return tuple.__eq__(self, tuple(other)) if isinstance(other, (list, tuple)) else NotImplemented

    def __ne__(self, other):
        return not self == other

    __hash__ = tuple.__hash__

    def __repr__(self):
        return f"TensorShape({list(self)})"

    def __str__(self):
        return f"({', '.join(map(str, self))}{',' if len(self) == 1 else ''})"
