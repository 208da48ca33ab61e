"""The one stable address of models: ``python -m mlp_ci.serve.gateway --state FOLDER (--fd N | --port N)``.

Splits requests over versions by weight or by user, mirrors, asks again elsewhere when a server is dead, measures, and
hands every answered request to the prediction log. Its configuration is a file, replaced in one step and read again
within 50 ms, or at once on ``POST /admin/reload`` (loopback only, with the token of ``FOLDER/token``); once that call
has returned, every new request goes to the new arms, and what is under way ends where it began.

``front`` reads requests, ``routing`` chooses, ``exchange`` carries one through, ``upstream`` speaks to the servers,
``counting`` counts, ``recording`` hands over to the process of ``recorder``, which writes ``parquet``.
"""
