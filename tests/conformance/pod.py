"""One machine of a service: ``python pod.py STORAGE_DIR TURNS HOW``, with a home of its own.

Continues the conversation "chat" for so many turns, and says what it found, did and sent. HOW is
"plain", "exclusive" (and waits for a line before it ends) or "killed" (inside its last turn).
"""

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import apps

from burr_otel import OtelTracker
from burr_otel.testing import SpanCapture

storage_dir, turns, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
left = turns


@apps.action(reads=["count"], writes=["count"])
def turn(state):
    global left
    left -= 1
    if how == "killed" and not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return state.update(count=state["count"] + 1)


def say(**what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


spans = SpanCapture()
tracker = OtelTracker(
    "proj",
    storage_dir,
    tracer_provider=spans.provider,
    exclusive=how == "exclusive",
    root_linger=None,  # a claim is held until the end
)
app = (
    apps.builder(tracker, "chat", turn=turn)
    .with_transitions(("turn", "turn", apps.default))
    .initialize_from(
        tracker,
        resume_at_next_action=True,
        default_state={"count": 0},
        default_entrypoint="turn",
    )
    .build()
)
found = app.state["count"]
for _ in range(turns):
    app.step()
say(found=found, left=app.state["count"])
if how == "exclusive":
    sys.stdin.readline()
tracker.close()
say(
    spans=[
        [s.name, s.attributes.get("burr.outcome"), f"{s.context.span_id:016x}"] for s in spans.spans
    ]
)
