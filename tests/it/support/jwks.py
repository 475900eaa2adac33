"""An issuer whose keys change: /jwks is its set, /keys?one,two says which are in it, /status?500 what it answers,
/odd says that other members stand in the set beside the keys, /fetches how often it was asked. It prints its port, then a token of each key with the key's name."""

import base64
import http.server
import json
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUED = {
    "one": ("RS256", RSAAlgorithm, rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    "two": ("ES256", ECAlgorithm, ec.generate_private_key(ec.SECP256R1())),
    "stranger": ("EdDSA", OKPAlgorithm, ed25519.Ed25519PrivateKey.generate()),
}
state = {"keys": ["one"], "status": 200, "fetches": 0, "odd": False}
SMALL = rsa.generate_private_key(public_exponent=65537, key_size=1024)
# Members of a set that cannot be used (RFC 7517 section 5).
ODD = [
    {**json.loads(RSAAlgorithm.to_jwk(SMALL.public_key())), "kid": "small", "use": "sig", "alg": "RS256"},
    {"kty": "AKP", "kid": "later", "alg": "ML-DSA-65", "pub": "AA"},
    {"kty": "EC", "crv": "P-521", "kid": "large", "x": "AA", "y": "AA"},
    {"kty": "RSA", "kid": "half", "n": "AA"},
    {"kty": 5, "kid": "number"},
    {"kid": "nothing"},
    "garbage",
    None,
]


def jwk(name):
    _, algorithm, key = ISSUED[name]
    written = algorithm.to_jwk(key.public_key())
    return {**whole(written if isinstance(written, dict) else json.loads(written)), "kid": name, "use": "sig"}


def whole(key):
    """RFC 7518 section 6.2.1.2 wants coordinates in full; PyJWT leaves out their leading zeros."""
    if key["kty"] != "EC":
        return key
    return {**key, **{name: padded(key[name]) for name in "xy"}}


def padded(number):
    octets = base64.urlsafe_b64decode(number + "==").rjust(32, b"\0")
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def members():
    keys = [jwk(name) for name in state["keys"]]
    return [*ODD[:4], *keys, *ODD[4:]] if state["odd"] else keys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        path, _, query = self.path.partition("?")
        status, body = 200, ""
        if path == "/jwks":
            state["fetches"] += 1
            status, body = state["status"], json.dumps({"keys": members()})
        elif path == "/keys":
            state["keys"] = [name for name in query.split(",") if name]
        elif path == "/odd":
            state["odd"] = True
        elif path == "/status":
            state["status"] = int(query)
        elif path == "/fetches":
            body = str(state["fetches"])
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
for name, (algorithm, _, key) in ISSUED.items():
    token = jwt.encode({"sub": "ann", "exp": int(time.time()) + 600}, key, algorithm=algorithm, headers={"kid": name})
    print(name, token, flush=True)
server.serve_forever()
