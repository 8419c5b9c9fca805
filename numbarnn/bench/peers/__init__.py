"""What runs in the processes of the peers; see `worker`.

Its modules are run by whatever interpreter has the peer, so they import nothing of numbarnn, and each other only by
their bare names.
"""
