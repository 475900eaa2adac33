"""An origin of WebSocket over HTTP/2 without TLS (RFC 8441), by hyper-h2 and wsproto: echoes messages. Says in x-seen how
it was asked. A request for /refused is answered 403, any that is no CONNECT 200. Where a directory is named, reads at /N
as many bytes as N.client has, keeps them as N.seen, says those of N.server, and ends. Prints its port, and the code of each
close."""

import os, socket, sys, threading
import h2.config, h2.connection, h2.events, h2.settings
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage


class Raw:
    """A tunnel whose bytes mean nothing."""

    def __init__(self, directory, path):
        self.file = f"{directory}{path}"
        self.rest, self.seen = os.path.getsize(f"{self.file}.client"), b""

    def said(self, data):
        """What to say to that, once all has come."""
        self.seen, self.rest = self.seen + data, self.rest - len(data)
        if self.rest > 0:
            return None
        with open(f"{self.file}.seen", "wb") as file:
            file.write(self.seen)
        with open(f"{self.file}.server", "rb") as file:
            return file.read()


class Session:
    def __init__(self, tcp):
        self.tcp = tcp
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.sockets = {}
        self.waiting = {}
        self.closing = set()

    def run(self):
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        while True:
            self.tcp.sendall(self.h2.data_to_send())
            data = self.tcp.recv(65536)
            if not data:
                return
            for event in self.h2.receive_data(data):
                self.take(event)

    def take(self, event):
        if isinstance(event, h2.events.RequestReceived):
            self.begin(event.stream_id, dict(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.data and event.stream_id in self.sockets and event.stream_id not in self.closing:
                self.echo(event.stream_id, event.data)
        elif isinstance(event, h2.events.StreamEnded):
            if not isinstance(self.sockets.get(event.stream_id), Raw):
                self.closing.add(event.stream_id)
            self.move(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.sockets.pop(event.stream_id, None)
            self.waiting.pop(event.stream_id, None)
        elif isinstance(event, h2.events.WindowUpdated):
            for stream in list(self.waiting):
                self.move(stream)

    def begin(self, stream, head):
        seen = f"{head[':method']} {head.get(':protocol')} {head.get('sec-websocket-version')}"
        seen += " key" if "sec-websocket-key" in head else ""
        fields = [("x-seen", seen)]
        if head[":path"] == "/refused":
            self.h2.send_headers(stream, [(":status", "403"), *fields])
            self.h2.send_data(stream, b"no", end_stream=True)
        elif head[":method"] != "CONNECT":
            self.h2.send_headers(stream, [(":status", "200"), *fields], end_stream=True)
        else:
            self.h2.send_headers(stream, [(":status", "200"), *fields])
            self.sockets[stream] = Raw(sys.argv[1], head[":path"]) if sys.argv[1:] else Connection(ConnectionType.SERVER)
            self.waiting[stream] = bytearray()

    def echo(self, stream, data):
        ws = self.sockets[stream]
        if isinstance(ws, Raw):
            if (answer := ws.said(data)) is not None:
                self.waiting[stream] += answer
                self.closing.add(stream)
            return self.move(stream)
        ws.receive_data(data)
        for event in ws.events():
            if isinstance(event, TextMessage):
                self.waiting[stream] += ws.send(TextMessage(event.data, message_finished=event.message_finished))
            elif isinstance(event, BytesMessage):
                self.waiting[stream] += ws.send(BytesMessage(event.data, message_finished=event.message_finished))
            elif isinstance(event, (Ping, CloseConnection)):
                self.waiting[stream] += ws.send(event.response())
                if isinstance(event, CloseConnection):
                    print("closed", event.code, flush=True)
                    self.closing.add(stream)
        self.move(stream)

    def move(self, stream):
        waiting = self.waiting.get(stream)
        if waiting is None:
            return
        while waiting:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room <= 0:
                return
            self.h2.send_data(stream, bytes(waiting[:room]))
            del waiting[:room]
        if stream in self.closing:
            self.h2.end_stream(stream)
            del self.waiting[stream]


def serve(tcp):
    try:
        Session(tcp).run()
    except OSError:
        pass


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1])
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
