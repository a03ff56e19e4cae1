"""A scripted model server on loopback: a task that is a shell command gets it run, once.

The task `say WORDS` is answered with WORDS; any other is given to the tool `bash` as it is.
"""

import http.server
import json
import socketserver
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        models = [{"id": "scripted", "object": "model", "max_model_len": 65536}]
        body = json.dumps({"object": "list", "data": models}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        messages = request["messages"]
        called = any(message["role"] == "tool" for message in messages)
        task = next((m for m in messages if m["role"] == "user"), {}).get("content", "")
        if isinstance(task, list):
            task = "".join(part.get("text", "") for part in task)
        task = task.strip()
        if not request.get("tools"):
            deltas, reason = [{"role": "assistant", "content": "A title"}], "stop"
        elif task.startswith("say ") or called:
            words = task[4:] if task.startswith("say ") else "It ran."
            deltas, reason = [{"role": "assistant", "content": words}], "stop"
        else:
            arguments = json.dumps({"command": task, "description": "Runs the task"})
            function = {"name": "bash", "arguments": arguments}
            call = {"index": 0, "id": "call_1", "type": "function", "function": function}
            deltas, reason = [{"role": "assistant", "tool_calls": [call]}], "tool_calls"
        self.stream(request["model"], deltas, reason)

    def stream(self, model, deltas, reason):
        def chunk(choices, **more):
            head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model}
            data = json.dumps({**head, "choices": choices, **more}).encode()
            self.wfile.write(b"data: " + data + b"\n\n")

        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for delta in deltas:
            chunk([{"index": 0, "delta": delta, "finish_reason": None}])
        chunk([{"index": 0, "delta": {}, "finish_reason": reason}])
        chunk([], usage={"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    request_queue_size = 256
    allow_reuse_address = True


def start():
    """Starts it; returns its base address."""
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/v1"
