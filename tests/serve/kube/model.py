"""A model server for pods of tests: answers as ours do, quickly; ``ODD`` in the arguments makes it misbehave.

Arguments: --host, --port, then those of the manifest, which it does not need. The image's own arguments come first:
the version, its digest, and what it does: `good`, `bad` (every tenth answer is a 500), `crash`, `silent`.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION, DIGEST, MANNER = int(sys.argv[1]), sys.argv[2], sys.argv[3]
GIVEN = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[4:])
COUNTS = {"requests": 0, "errors": 0}
BOOT = str(time.time_ns())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for head and body: two wait for each other for 40 ms

    def do_GET(self) -> None:
        if self.path == "/measured":
            seen = {
                **COUNTS,
                "latency": {"20": COUNTS["requests"]},
                "predictions": {"p50": COUNTS["requests"]},
                "means": {},
            }
            self._say(200, {"boot": BOOT, "versions": {str(VERSION): seen}})
        elif self.path.startswith("/v2/health") and MANNER != "silent":
            self._say(200, {"version": VERSION, "digest": DIGEST})
        else:
            self._say(503 if MANNER == "silent" else 404, {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        COUNTS["requests"] += 1
        failed = MANNER == "bad" and COUNTS["requests"] % 10 == 0
        COUNTS["errors"] += failed
        self._say(500 if failed else 200, {"predictions": [VERSION]})

    def _say(self, code: int, told: object) -> None:
        body = json.dumps(told).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if MANNER == "crash":
    sys.exit(3)
ThreadingHTTPServer((GIVEN["host"], int(GIVEN["port"])), Handler).serve_forever()
