"""A scripted model server: the same three turns for everybody, on a TCP port and a unix socket.

Turn 1 calls `bash`, turn 2 calls `read`, turn 3 answers. Requests without tools (a title, say)
get two words. The server notes when it was first asked for a completion.
"""

import http.server
import json
import os
import socketserver
import threading
import time

TURNS = [
    ("bash", {"command": "ls -la && echo hello > note.txt", "description": "Looks around"}),
    ("read", {"filePath": "note.txt"}),
    "I looked around, wrote a note and read it back.",
]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Tcp | Unix"

    def log_message(self, *_):
        pass

    def setup(self):
        if self.server.address_family != Tcp.address_family:
            self.disable_nagle_algorithm = False  # a unix socket has no such thing
        super().setup()

    def do_GET(self):
        models = [{"id": "bench", "object": "model", "max_model_len": 65536}]
        body = json.dumps({"object": "list", "data": models}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        now = time.monotonic()
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.notes.asked(now)
        if self.server.delay:
            time.sleep(self.server.delay)
        turn = "A title"
        if request.get("tools"):
            done = sum(message["role"] == "tool" for message in request["messages"])
            turn = TURNS[min(done, len(TURNS) - 1)]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.answer(request["model"], turn)

    def answer(self, model, turn):
        def send(data):
            line = b"data: " + data + b"\n\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

        def choice(delta, reason=None):
            choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
            send(json.dumps({**head, "choices": choices}).encode())

        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model}
        if isinstance(turn, str):
            for word in turn.split():
                choice({"role": "assistant", "content": word + " "})
            choice({}, "stop")
        else:
            name, arguments = turn
            call = {"index": 0, "id": f"call_{name}", "type": "function"}
            call["function"] = {"name": name, "arguments": json.dumps(arguments)}
            choice({"role": "assistant", "tool_calls": [call]})
            choice({}, "tool_calls")
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        send(json.dumps({**head, "choices": [], "usage": usage}).encode())
        send(b"[DONE]")
        self.wfile.write(b"0\r\n\r\n")


class Notes:
    """When a completion was first asked for, and how often, since the last reset."""

    def __init__(self):
        self.lock = threading.Lock()
        self.reset()

    def reset(self):
        with self.lock:
            self.first, self.count = None, 0

    def asked(self, when):
        with self.lock:
            self.first = self.first or when
            self.count += 1


class Tcp(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True


class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def get_request(self):
        connection, _ = super().get_request()
        return connection, ("unix", 0)


def start(socket, owner, delay):
    """Starts both servers; returns the port and the notes."""
    notes = Notes()
    servers = [Tcp(("127.0.0.1", 0), Handler), Unix(socket, Handler)]
    os.chmod(socket, 0o600)
    os.chown(socket, *owner)
    for server in servers:
        server.notes, server.delay = notes, delay
        threading.Thread(target=server.serve_forever, daemon=True).start()
    return servers[0].server_address[1], notes
