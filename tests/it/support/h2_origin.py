"""An HTTP/2 origin in the clear by hyper-h2, told by JSON how to behave. Prints its port, then a line of JSON for each
complete request and for each connection that the client closed. It answers 200 and says in the body which request it saw.

second: what happens to the second stream of the first connection ("refuse", "goaway" with this `code` and
  the `last` stream that is processed, by default the first, "drop": the connection is closed), once its head is there, or once its body is (`at`: "head" or "end").
  "freeze" leaves the whole connection without any answer from then on.
refuse: every stream is refused.
connect: the value of SETTINGS_ENABLE_CONNECT_PROTOCOL. A CONNECT is answered 200, and said.
late: SETTINGS and all else are sent after so many seconds; whether a stream was opened before is said.
pings: every PING is said.
limit, hold: so many streams are allowed on a connection, and nothing is answered before so many are open on all of them.
Paths: /free is never held. /early, /early-reset and /early-close get 413 before the body: without more, with RST_STREAM(NO_ERROR), with GOAWAY and
  the connection's end; /early-cut as the last one, with a body of 200,000 bytes and no length. /asks gets 100, /rejects gets 417 at once."""

import json, socket, sys, threading, time
import h2.config, h2.connection, h2.errors, h2.events
from h2.settings import SettingCodes, Settings

SPEC = json.loads(sys.argv[1])
# Everything but waiting for bytes happens under it.
LOCK = threading.RLock()
HELD = []


def say(**what):
    print(json.dumps(what), flush=True)


class Session:
    def __init__(self, tcp, number):
        self.tcp, self.number, self.seen, self.most, self.ended = tcp, number, {}, 0, False
        self.open = set()
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        codes = {"limit": SettingCodes.MAX_CONCURRENT_STREAMS, "connect": SettingCodes.ENABLE_CONNECT_PROTOCOL}
        if named := {code: SPEC[name] for name, code in codes.items() if name in SPEC}:
            self.h2.local_settings = Settings(client=False, initial_values=named)

    def run(self):
        self.h2.initiate_connection()
        if "late" in SPEC:
            time.sleep(SPEC["late"])
            say(early=opens_stream(self.tcp.recv(65536, socket.MSG_PEEK)), on=self.number)
        self.send()
        while data := self.tcp.recv(65536):
            with LOCK:
                if self.ended:
                    continue
                for event in self.h2.receive_data(data):
                    if not self.ended:
                        self.take(event)
                self.send()
        say(closed=self.number)

    def send(self):
        self.tcp.sendall(self.h2.data_to_send())

    def end(self):
        """Sends no more, and reads past what still comes."""
        self.send()
        self.ended = True
        self.tcp.shutdown(socket.SHUT_WR)

    def take(self, event):
        if isinstance(event, h2.events.RequestReceived):
            self.seen[event.stream_id] = [dict(event.headers), 0]
            self.open.add(event.stream_id)
            self.most = max(self.most, len(self.open))
            if not self.misbehave(event.stream_id, "head"):
                self.begin(event.stream_id, dict(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self.seen:
                self.seen[event.stream_id][1] += len(event.data)
        elif isinstance(event, h2.events.StreamEnded):
            if event.stream_id in self.seen:
                head, length = self.seen[event.stream_id]
                seen = {"connection": self.number, "stream": event.stream_id, "length": length}
                seen |= {"method": head[":method"], "path": head[":path"], "expect": head.get("expect")}
                say(**seen)
                if not self.misbehave(event.stream_id, "end"):
                    self.hold(event.stream_id, seen)
        elif isinstance(event, h2.events.StreamReset):
            self.open.discard(event.stream_id)
        elif isinstance(event, h2.events.PingReceived) and "pings" in SPEC:
            say(ping=self.number)

    def misbehave(self, stream, at):
        if "refuse" in SPEC and at == "head":
            self.h2.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
            del self.seen[stream]
            return True
        if (self.number, stream) != (0, 3) or SPEC.get("at") != at:
            return False
        if SPEC["second"] == "freeze":
            self.ended = True
        elif SPEC["second"] == "refuse":
            self.h2.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
            del self.seen[stream]
        else:
            if SPEC["second"] == "goaway":
                self.h2.close_connection(SPEC["code"], last_stream_id=SPEC.get("last", 1))
            self.end()
        return True

    def begin(self, stream, head):
        """What is said before the body is there."""
        path = head[":path"]
        if head[":method"] == "CONNECT":
            say(connect=path)
            self.h2.send_headers(stream, [(":status", "200")])
        elif path == "/asks":
            self.h2.send_headers(stream, [(":status", "100"), ("x-from", "origin")])
        elif path == "/early-cut":
            self.h2.send_headers(stream, [(":status", "413")])
            for left in range(20, 0, -1):
                self.h2.send_data(stream, b"x" * 10_000, end_stream=left == 1)
        elif path == "/rejects" or path.startswith("/early"):
            status = "417" if path == "/rejects" else "413"
            self.h2.send_headers(stream, [(":status", status), ("content-length", "3")])
            self.h2.send_data(stream, b"big", end_stream=True)
            self.open.discard(stream)
        if path == "/early-reset":
            self.h2.reset_stream(stream, h2.errors.ErrorCodes.NO_ERROR)
        elif path in ("/early-close", "/early-cut"):
            self.h2.close_connection(last_stream_id=stream)
            self.end()

    def hold(self, stream, seen):
        if seen["path"] == "/free":
            return self.answer(stream, seen)
        HELD.append((self, stream, seen))
        if len(HELD) < SPEC.get("hold", 1):
            return
        for session, stream, seen in HELD:
            if session.ended or stream not in session.open:
                continue
            session.answer(stream, seen)
            session.send()
        if "hold" in SPEC:
            say(most=max(session.most for session, *_ in HELD), connections=len({id(session) for session, *_ in HELD}))
        HELD.clear()


    def answer(self, stream, seen):
        body = json.dumps(seen).encode()
        self.h2.send_headers(stream, [(":status", "200"), ("content-length", str(len(body)))])
        self.h2.send_data(stream, body, end_stream=True)
        self.open.discard(stream)


def opens_stream(data):
    """Whether there is a HEADERS frame behind the preface."""
    data = data[24:]
    while len(data) >= 9:
        if data[3] == 1:
            return True
        data = data[9 + int.from_bytes(data[:3], "big"):]
    return False


def serve(tcp, number):
    try:
        Session(tcp, number).run()
    except OSError:
        say(closed=number)


listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print(listener.getsockname()[1], flush=True)
number = 0
while True:
    tcp = listener.accept()[0]
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=serve, args=(tcp, number), daemon=True).start()
    number += 1
