"""Docstrings in which "See `OtherClass`." becomes what is written there: each argument is described in one place."""

import inspect

__all__ = ["sections_of", "with_what_is_seen"]


def sections_of(doc):
    """Cut a numpydoc docstring into its sections.

    Parameters
    ----------
    doc : str

    Returns
    -------
    dict of str to list of str
        The lines of each section by its title, without the title; those before the first one by "".
    """
    lines, sections = inspect.cleandoc(doc).splitlines(), {"": []}
    found = sections[""]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line and following == "-" * len(line):
            found = sections[line] = []
        elif not (line and set(line) == {"-"}):
            found.append(line)
    return {title: _trimmed(lines) for title, lines in sections.items()}


def _trimmed(lines):
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines


def _entries(lines):
    """Cut the lines of a section of parameters into (names, lines), one for each head with what is indented below."""
    entries = []
    for line in lines:
        if line and not line[0].isspace():
            entries.append((line.split(" : ")[0].split(", "), [line]))
        elif entries:
            entries[-1][1].append(line)
    return [(names, _trimmed(lines)) for names, lines in entries]


def with_what_is_seen(doc, classes, call):
    """Write out a class's docstring.

    Parameters
    ----------
    doc : str
        Its parameters may refer to those of other classes by "See `Name`.".
    classes : iterable of class
        Those that are referred to.
    call : function
        Whose parameters, results and errors are those of a call of an instance.

    Returns
    -------
    str
    """
    sections = sections_of(doc)
    known = {cls.__name__: _entries(sections_of(cls.__doc__)["Parameters"]) for cls in classes}
    parameters = []
    for names, lines in _entries(_joined(sections["Parameters"])):
        name = lines[-1].strip().removeprefix("See `").removesuffix("`.")
        if len(lines) != 2 or name not in known:
            parameters += lines
            continue
        for shared, (head, *text) in known[name]:
            wanted = [one for one in shared if one in names]
            if wanted:
                kind = head.partition(" : ")[2]
                parameters += [", ".join(wanted) + (kind and f" : {kind}"), *text]
    called = sections_of(call.__doc__)
    sections["Parameters"] = parameters
    sections["Call arguments"] = called["Parameters"]
    sections["Call returns"] = called["Returns"]
    raised = [sections_of(cls.__doc__).get("Raises", []) for cls in classes]
    sections["Raises"] = [*(line for lines in raised for line in lines), *called["Raises"]]
    if "Examples" in sections:
        sections["Examples"] = sections.pop("Examples")  # last
    parts = ["\n".join(sections.pop(""))]
    parts += ["\n".join([title, "-" * len(title), *lines]) for title, lines in sections.items()]
    return "\n\n".join(parts) + "\n"


def _joined(lines):
    """Put heads that a backslash, or the source's line length, has broken on one line."""
    joined = []
    for line in lines:
        if joined and joined[-1].endswith(","):
            joined[-1] += " " + line
        else:
            joined.append(line)
    return joined
