"""The forge: a local server for the part of GitHub that mlp-ci uses, on real bare git repositories.

``records`` and ``store`` hold what is remembered, ``repos`` does git, ``access`` decides who may, the modules named
after a subject (``pushes``, ``pulls``, ``checks``, ``events``, ``runs``) hold the rules; ``api`` and ``git_http`` only
speak HTTP.
"""
