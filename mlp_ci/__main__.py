"""``python -m mlp_ci`` and the console script."""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from mlp_ci.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
