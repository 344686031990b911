"""An OpenAI-compatible model on this machine: chat completions, whole and streamed, with usage."""

import contextlib
import http.server
import json
import threading

USAGE = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}
WORDS = ("Hello", " there", ".")


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if request["model"] == "broken":
            self._send(500, "application/json", b'{"error": {"message": "no model"}}')
        elif request.get("stream"):
            wants = (request.get("stream_options") or {}).get("include_usage")
            lines = [f"data: {json.dumps(each)}\n\n" for each in _chunks(request["model"], wants)]
            self._send(200, "text/event-stream", "".join([*lines, "data: [DONE]\n\n"]).encode())
        else:
            message = {"role": "assistant", "content": "".join(WORDS)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            whole = _of(request["model"], "chat.completion", [choice], USAGE)
            self._send(200, "application/json", json.dumps(whole).encode())

    def _send(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def _chunks(model, wants_usage):
    kind = "chat.completion.chunk"
    for word in WORDS:
        delta = {"role": "assistant", "content": word}
        yield _of(model, kind, [{"index": 0, "delta": delta, "finish_reason": None}], None)
    yield _of(model, kind, [{"index": 0, "delta": {}, "finish_reason": "stop"}], None)
    if wants_usage:
        yield _of(model, kind, [], USAGE)


def _of(model, kind, choices, usage):
    told = {"id": "chat-1", "object": kind, "created": 1, "model": model, "choices": choices}
    return told if usage is None else {**told, "usage": usage}


@contextlib.contextmanager
def serving():
    """The URL of a model that answers."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with server:
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
