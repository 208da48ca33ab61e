"""``python -m mlp_ci`` and the console script."""

import io
import sys

from mlp_ci import __version__


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:] == ["--version"]:  # every step of a job asks it first; all the rest takes a third of a second
        print(f"mlp-ci {__version__}")
        return
    from mlp_ci.cli import run

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a symbol that the terminal cannot show is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
