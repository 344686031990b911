"""A chat with history, asked of an OpenAI-compatible model; the model's call nests in its step.

python examples/chatbot.py ann "Who are you?" "And what did I ask before?"

OPENAI_API_KEY (and OPENAI_BASE_URL, OPENAI_MODEL) choose the model; without a key a stand-in on
this machine answers. Run it again with the same name and the conversation goes on.
"""

import contextlib
import http.server
import json
import os
import sys
import threading

import openai
from burr.core import ApplicationBuilder, State, action
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

from burr_otel import OtelTracker


class StandIn(http.server.BaseHTTPRequestHandler):
    """Answers like a chat model that only knows how often it was asked."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = [m["content"] for m in request["messages"] if m["role"] == "user"]
        text = f"That is your question {len(asked)}. The first was {asked[0]!r}."
        message = {"role": "assistant", "content": text}
        answer = {
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def model_client():
    if os.environ.get("OPENAI_API_KEY"):
        with openai.OpenAI() as client:
            yield client
        return
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    with server, openai.OpenAI(base_url=url, api_key="none") as client:
        yield client
        server.shutdown()


@action(reads=["history"], writes=["history"])
def prompt(state: State, question: str) -> State:
    return state.append(history={"role": "user", "content": question})


# The tag makes the step an LLM step in Phoenix and by the GenAI conventions.
@action(reads=["history"], writes=["history"], tags=["otel.kind:llm"])
def respond(state: State, client: openai.OpenAI) -> State:
    model = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
    answer = client.chat.completions.create(model=model, messages=state["history"])
    content = answer.choices[0].message.content
    return state.append(history={"role": "assistant", "content": content})


def main(name: str = "ann", *questions: str) -> None:
    OpenAIInstrumentor().instrument()
    with OtelTracker(project="chatbot") as tracker, model_client() as client:
        app = (
            ApplicationBuilder()
            .with_actions(prompt, respond=respond.bind(client=client))
            .with_transitions(("prompt", "respond"), ("respond", "prompt"))
            .with_identifiers(app_id=name)
            .with_tracker(tracker)
            .initialize_from(
                tracker,
                resume_at_next_action=True,
                default_state={"history": []},
                default_entrypoint="prompt",
            )
            .build()
        )
        for question in questions or ("Who are you?", "And what did I ask before?"):
            _, _, state = app.run(halt_after=["respond"], inputs={"question": question})
            print(f"{name}: {question}\nmodel: {state['history'][-1]['content']}")
    print(f"Here:      burr-otel show {name}")
    print("In Jaeger: http://localhost:16686/search?service=chatbot")


if __name__ == "__main__":
    main(*sys.argv[1:])
