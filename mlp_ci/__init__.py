"""mlp-ci: an ML platform that is a GitHub organisation."""

__version__ = "0.1.0"
