"""Predictions of whole files: read piece by piece, checked as the server checks, predicted apart, written whole."""
