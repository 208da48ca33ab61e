"""``python -m mlp_ci`` and the console script."""

import io
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from mlp_ci.cli import run

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a symbol that the terminal cannot show is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
