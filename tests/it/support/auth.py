"""An authorization service: tokens of PyJWT let in. It prints its port; /seen tells what it was asked."""

import http.server
import json
import sys
import time

import jwt

SECRET = sys.argv[1]
seen = []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, fields=(), body=b""):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        if self.path == "/seen":
            return self.answer(200, body=json.dumps(seen).encode())
        fields = [[name.lower(), value] for name, value in self.headers.items()]
        seen.append({"method": self.command, "path": self.path, "port": self.client_address[1], "fields": fields})
        uri = self.headers["X-Forwarded-Uri"]
        if uri.startswith("/slow"):
            # Until who asked has gone.
            self.rfile.read(1)
        if uri.startswith("/broken"):
            self.wfile.write(b"this is not HTTP\r\n\r\n")
            return self.wfile.close()
        if uri.startswith("/error"):
            return self.answer(503, [("X-Internal", "secret"), ("Content-Type", "text/plain")], b"out of order")
        if uri.startswith("/large"):
            return self.answer(200, body=b"x" * (2 << 20))
        if uri.startswith("/forbidden"):
            return self.answer(403)
        if uri.startswith("/page"):
            cookies = [("Set-Cookie", "state=1; HttpOnly"), ("Set-Cookie", "next=2")]
            return self.answer(302, [("Location", "https://login.example/?next=" + uri), *cookies])
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        try:
            claims = jwt.decode(token, SECRET, algorithms=["HS256"])
        except jwt.InvalidTokenError as error:
            body = json.dumps({"why": type(error).__name__}).encode()
            fields = [("WWW-Authenticate", 'Bearer realm="service"'), ("Content-Type", "application/json")]
            return self.answer(401, [*fields, ("X-Internal", "secret"), ("Connection", "keep-alive")], body)
        self.answer(204, [("X-User", claims["sub"]), ("X-Group", "a"), ("X-Group", "b"), ("X-Internal", "secret")])

    do_HEAD = do_POST = do_GET


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
print(jwt.encode({"sub": "ann", "exp": int(time.time()) + 600}, SECRET, algorithm="HS256"), flush=True)
server.serve_forever()
