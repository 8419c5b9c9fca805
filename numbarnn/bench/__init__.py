"""``python -m numbarnn bench``: numbarnn beside other libraries on this machine, interleaved in one run.

=============== =======================================================================================
`command`       the command line
`cases`         what is measured: sizes, groups of them, and how they are named
`timing`        turns, minima and medians, ratios
`report`        what is printed, and the Markdown table of stored results
`machine`       what a result has to say about where it came from
`processes`     peers, each in a process of its own, asked for times
`peers`         what runs in those processes; it imports nothing of numbarnn
`ours`          numbarnn's side of what is measured beside peers
`roofline`      what the arithmetic and the memory of this machine give
`measures`      what can be measured, one module for each subject
=============== =======================================================================================

Nothing in numbarnn imports it but the command.
"""
