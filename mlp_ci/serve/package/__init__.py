"""Images of versions: what goes into one, how it is written, and what it must answer before anybody gets it.

Nothing is run to make one. Layers are written file by file, with fixed times and in a fixed order, so that the same
version, packages and base give the same image on any machine; see docs/decisions.
"""
